"""Everything an engine found → the DICOM objects that a site asks for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pydicom import Dataset

from config.destinations import USUAL_OBJECTS
from dicom_io.volume import LoadedSeries
from dicom_io.write.concepts import derivation_code
from dicom_io.write.header import Identity
from dicom_io.write.kinds import KINDS
from dicom_io.write.parametric_map import parametric_map
from dicom_io.write.pet import Derivation, derived_pet
from dicom_io.write.report import measurement_report
from dicom_io.write.rtstruct import structure_set
from dicom_io.write.seg import segmentation
from engines.contract import Products, Volume


@dataclass(frozen=True, slots=True)
class Written:
    """One object; name : unique among those of a job, made of letters, digits, "-" and "_" only."""

    kind: str
    name: str
    dataset: Dataset


def objects(
    products: Products, source: LoadedSeries, identity: Identity, kinds: Collection[str] = USUAL_OBJECTS
) -> Iterator[Written]:
    """The objects of some kinds; of a kind there is nothing to say about there is none.

    kinds : of KINDS. A report of lesions refers to their segments and brings them with it: "sr" the Segmentation,
        "sr_labelmap" the Label Map.

    Raises
    ------
    ValueError
        A kind there is not; products that contradict each other or the grid of the source: a fault of the engine.
    GeometryRefused, QuantityRefused, PixelsRefused
        As `pet.derived_pet`, `parametric_map`.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"kinds of objects: expected {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    yield from _segments_and_reports(products, source, identity, kinds)
    if "rtstruct" in kinds and (contours := structure_set(products, source, identity)) is not None:
        yield Written("rtstruct", "rtstruct", contours)
    yield from _volumes(products, source, identity, kinds)
    if "capture" in kinds:
        from dicom_io.write.capture import summary_page  # matplotlib takes its time to load

        yield Written("capture", "capture", summary_page(products, source, identity))


def _segments_and_reports(
    products: Products, source: LoadedSeries, identity: Identity, kinds: Collection[str]
) -> Iterator[Written]:
    for kind, report in (("seg", "sr"), ("labelmap", "sr_labelmap")):
        if kind not in kinds and report not in kinds:
            continue
        segments = segmentation(products, source, identity, labelmap=kind == "labelmap")
        if segments is not None:
            yield Written(kind, kind, segments)
        if report in kinds:
            yield Written(report, report, measurement_report(products, source, segments, identity, product=report))


def _volumes(products: Products, source: LoadedSeries, identity: Identity, kinds: Collection[str]) -> Iterator[Written]:
    for number, (name, volume) in enumerate(products.volumes.items(), start=1):
        if "parametric_map" in kinds and isinstance(volume, Volume):
            dataset = parametric_map(name, volume, source, identity)
            yield Written("parametric_map", f"parametric_map-{number}", dataset)
        if "pet" in kinds:
            derivation = Derivation(name, derivation_code(volume.quantity), products.method)
            for index, image in enumerate(derived_pet(volume, source, identity, derivation), start=1):
                yield Written("pet", f"pet-{number}-{index:05d}", image)
