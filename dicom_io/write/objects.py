"""Everything an engine found → the DICOM objects that a site asks for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from pydicom import Dataset

from dicom_io.volume import LoadedSeries
from dicom_io.write.concepts import derivation_code
from dicom_io.write.header import Identity
from dicom_io.write.parametric_map import parametric_map
from dicom_io.write.pet import Derivation, derived_pet
from dicom_io.write.report import measurement_report
from dicom_io.write.rtstruct import structure_set
from dicom_io.write.seg import segmentation
from engines.contract import Products, Volume

KINDS: Final = ("seg", "labelmap", "rtstruct", "sr", "parametric_map", "pet", "capture")
USUAL: Final = ("seg", "sr", "parametric_map", "pet")
"""What is written where nobody asks for anything else: a Label Map, contours and a page are second forms of these."""


@dataclass(frozen=True, slots=True)
class Written:
    """One object; name : unique among those of a job, made of letters, digits, "-" and "_" only."""

    kind: str
    name: str
    dataset: Dataset


def objects(
    products: Products, source: LoadedSeries, identity: Identity, kinds: Collection[str] = USUAL
) -> Iterator[Written]:
    """The objects of some kinds; of a kind there is nothing to say about there is none.

    kinds : of KINDS. A report of lesions refers to their segments: without "seg" and "labelmap" it brings its own
        Segmentation with it.

    Raises
    ------
    ValueError
        A kind there is not; products that contradict each other or the grid of the source: a fault of the engine.
    GeometryRefused, QuantityRefused, PixelsRefused
        As `pet.derived_pet`, `parametric_map`.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"kinds of objects: expected {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    segments: Dataset | None = None
    for kind in ("labelmap", "seg"):  # a report refers to the latter, where there are both
        if kind in kinds or (kind == "seg" and "sr" in kinds and "labelmap" not in kinds):
            segments = segmentation(products, source, identity, labelmap=kind == "labelmap")
            if segments is not None:
                yield Written(kind, kind, segments)
    if "rtstruct" in kinds and (contours := structure_set(products, source, identity)) is not None:
        yield Written("rtstruct", "rtstruct", contours)
    if "sr" in kinds:
        yield Written("sr", "sr", measurement_report(products, source, segments, identity))
    yield from _volumes(products, source, identity, kinds)
    if "capture" in kinds:
        from dicom_io.write.capture import summary_page  # matplotlib takes its time to load

        yield Written("capture", "capture", summary_page(products, source, identity))


def _volumes(products: Products, source: LoadedSeries, identity: Identity, kinds: Collection[str]) -> Iterator[Written]:
    for number, (name, volume) in enumerate(products.volumes.items(), start=1):
        if "parametric_map" in kinds and isinstance(volume, Volume):
            dataset = parametric_map(name, volume, source, identity)
            yield Written("parametric_map", f"parametric_map-{number}", dataset)
        if "pet" in kinds:
            derivation = Derivation(name, derivation_code(volume.quantity), products.method)
            for index, image in enumerate(derived_pet(volume, source, identity, derivation), start=1):
                yield Written("pet", f"pet-{number}-{index:05d}", image)
