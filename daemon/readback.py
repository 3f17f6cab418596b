"""What a viewer sees in our results: regions from a DICOM Segmentation, numbers and sentences from a report.

Written against the Standard, not against our writers, so that pages show what left the node and not what we meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from engines.contract import Affine

SAME_PLACE_MM = 0.01
MEASURES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        (codes.DCM.Suvbw.value, codes.SCT.Maximum.value): "suv_max",
        (codes.DCM.Suvbw.value, codes.SCT.Mean.value): "suv_mean",
        (codes.DCM.Suvbw.value, codes.DCM.PeakValueWithinROI.value): "suv_peak",
        (codes.DCM.MetabolicVolume.value, ""): "mtv_ml",
        (codes.DCM.TotalLesionGlycolysis.value, ""): "tlg_g",
    }
)
"""Concept and derivation of a measurement → what we call it."""


class NotOnGrid(Exception):
    """A segmentation that does not lie on the grid of the image."""


@dataclass(frozen=True, slots=True)
class Reported:
    """One measurement group of a report.

    segment : number of the segment it speaks of, None for the image as a whole
    measures : name → value, in the unit the name says
    """

    name: str
    segment: int | None
    measures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """What a measurement report (TID 1500) says.

    sentences : concept → texts, such as Finding → ("3 lesions found.",)
    """

    groups: tuple[Reported, ...]
    sentences: Mapping[str, tuple[str, ...]]


def read_report(document: Dataset) -> Report:
    """Groups and sentences of a measurement report (PS3.16 TID 1500, 1411, 1501)."""
    groups: list[Reported] = []
    sentences: dict[str, tuple[str, ...]] = {}
    for item in _items_below(document):
        if _is(item, codes.DCM.MeasurementGroup):
            groups.append(_group(item))
        elif item.ValueType == "TEXT":
            concept = str(item.ConceptNameCodeSequence[0].CodeMeaning)
            sentences[concept] = (*sentences.get(concept, ()), str(item.TextValue))
    return Report(tuple(groups), sentences)


def _items_below(item: Dataset) -> Iterator[Dataset]:
    """Content items in the order of the document; a measurement group is one item here."""
    for child in item.get("ContentSequence", ()):
        yield child
        if not _is(child, codes.DCM.MeasurementGroup):
            yield from _items_below(child)


def _is(item: Dataset, concept: Code) -> bool:
    names = item.get("ConceptNameCodeSequence")
    return bool(names) and (names[0].CodeValue, names[0].CodingSchemeDesignator) == (
        concept.value,
        concept.scheme_designator,
    )


def _group(group: Dataset) -> Reported:
    name, segment = "", None
    measures: dict[str, float] = {}
    for item in group.ContentSequence:
        if _is(item, codes.DCM.TrackingIdentifier):
            name = str(item.TextValue)
        elif _is(item, codes.DCM.ReferencedSegment):
            segment = int(item.ReferencedSOPSequence[0].ReferencedSegmentNumber)
        elif item.ValueType == "NUM":
            key = MEASURES.get((item.ConceptNameCodeSequence[0].CodeValue, _derivation(item)))
            measures |= {key: _value(item)} if key else {}
    return Reported(name, segment, measures)


def _derivation(item: Dataset) -> str:
    """Code of the derivation that qualifies a measurement ("" where there is none)."""
    derivations = (child for child in item.get("ContentSequence", ()) if _is(child, codes.DCM.Derivation))
    return next((str(child.ConceptCodeSequence[0].CodeValue) for child in derivations), "")


def _value(item: Dataset) -> float:
    """The exact number where there is one, else the one written for people (PS3.3 C.18.1)."""
    measured = item.MeasuredValueSequence[0]
    return float(measured.get("FloatingPointValue", measured.NumericValue))


def read_labels(segmentation: Dataset, shape: tuple[int, int, int], affine: Affine) -> NDArray[np.uint16]:
    """Segments as labels (their Segment Numbers) on the grid of an image, placed by the position of each frame.

    Where segments overlap, the later one is seen.

    shape, affine : of the image, (z, y, x) and (z, y, x, 1) → LPS mm

    Raises
    ------
    NotOnGrid
        A frame lies between the slices, or is turned or shifted against them.
    """
    labels = np.zeros(shape, np.uint16)
    frames = np.reshape(segmentation.pixel_array, (-1, *shape[1:]))
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        segment = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        orientation = groups if "PlaneOrientationSequence" in groups else shared
        directions = np.asarray(orientation.PlaneOrientationSequence[0].ImageOrientationPatient, float)
        position = np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        index = _slice_at(position, directions, shape, affine)
        labels[index][frame > 0] = segment
    return labels


def _slice_at(
    position_mm: NDArray[np.float64], directions: NDArray[np.float64], shape: tuple[int, int, int], affine: Affine
) -> int:
    """Index of the slice whose first pixel and directions are these."""
    index = round(float((np.linalg.inv(affine) @ [*position_mm, 1.0])[0]))
    expected = (affine @ [index, 0.0, 0.0, 1.0])[:3]
    rows, columns = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (2, 1))
    same_way = np.allclose(directions, [*rows, *columns], atol=1e-4)
    if not 0 <= index < shape[0] or not same_way or np.abs(expected - position_mm).max() > SAME_PLACE_MM:
        raise NotOnGrid("a frame of the segmentation does not lie on a slice of the image")
    return index


def read_colours(segmentation: Dataset) -> dict[int, tuple[float, float, float]]:
    """Segment number → its recommended colour (0062,000D) as red, green, blue, each 0 … 1."""
    from highdicom.color import CIELabColor

    return {
        int(segment.SegmentNumber): _unit_colour(
            CIELabColor.from_dicom_value(tuple(segment.RecommendedDisplayCIELabValue)).to_rgb(clip=True)
        )
        for segment in segmentation.SegmentSequence
        if "RecommendedDisplayCIELabValue" in segment
    }


def _unit_colour(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = rgb
    return red / 255.0, green / 255.0, blue / 255.0
