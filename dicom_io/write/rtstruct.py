"""Regions → RT Structure Set (PS3.3 A.19): closed planar contours on the slices of the source, for planning systems.

A contour runs along the edges of the voxels of its region: its area is theirs, and a reader that asks which voxel
centres lie inside gets the mask back. A hole is joined to the outside by a channel of no width (keyhole, C.8.8.6.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from highdicom.base import SOPClass
from numpy.typing import NDArray
from pydicom import Dataset, config
from pydicom.valuerep import DA, TM
from scipy.ndimage import find_objects, label

from dicom_io.volume import LoadedSeries
from dicom_io.write.header import FORMS, RESEARCH_USE_ONLY, Identity, arguments, long_string, settle
from dicom_io.write.seg import colour, present_labels, region_name, tracking_uid
from dicom_io.write.sources import check_grid, frame_reference, once_each, reference, slices
from engines.contract import Affine, LabelMap, Products

DETACHED_STUDY: Final = "1.2.840.10008.3.1.2.3.1"
Corners = NDArray[np.intp]
"""(n, 2): corners of pixels as (row, column); (0, 0) is the first corner of the first pixel, half a pixel before it."""


def structure_set(products: Products, source: LoadedSeries, identity: Identity) -> Dataset | None:
    """One ROI per region, numbered and coloured as the segments are; None where nothing was found.

    Of a series over time the contours refer to the slices of the first time frame.

    Raises
    ------
    ValueError
        The label map is not on the grid of the source: a fault of the engine.
    """
    label_map = products.label_map
    labels = present_labels(label_map)
    if label_map is None or not labels:
        return None
    check_grid(label_map, source)
    first = source.datasets[0]
    ours = arguments(identity, "rtstruct", "Lesions" if products.lesions else "Regions", first)
    at = ours.pop("content_date"), ours.pop("content_time")  # not in this object
    equipment = ours.pop("contributing_equipment")
    with config.disable_value_validation():
        dataset = SOPClass(
            study_instance_uid=first.StudyInstanceUID,
            sop_class_uid=FORMS["rtstruct"].sop_class_uid,
            modality=FORMS["rtstruct"].modality,
            **ours,
        )
        dataset.ContributingEquipmentSequence = equipment
        settle(dataset, first, identity)
        dataset.StructureSetDate, dataset.StructureSetTime = DA(at[0]), TM(at[1])
        dataset.StructureSetLabel = "LESIONS" if products.lesions else "REGIONS"
        dataset.StructureSetDescription = RESEARCH_USE_ONLY
        dataset.ApprovalStatus = "UNAPPROVED"
        dataset.OperatorsName = None
        _refer(dataset, source)
        numbered = list(enumerate(labels, start=1))
        boxes = find_objects(label_map.array)
        dataset.StructureSetROISequence = [_roi(n, label_map, each, first, identity) for n, each in numbered]
        dataset.ROIContourSequence = [
            _contours(n, region_contours(label_map.array, each, boxes[each - 1]), source) for n, each in numbered
        ]
        dataset.RTROIObservationsSequence = [_observation(n) for n, _ in numbered]
    return dataset


def _refer(dataset: Dataset, source: LoadedSeries) -> None:
    """Frame of reference, study, series and images (PS3.3 C.8.8.5)."""
    first = source.datasets[0]
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    series.ContourImageSequence = [reference(image) for image in once_each(source.datasets)]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = DETACHED_STUDY, first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.FrameOfReferenceUID = first.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = first.get("PositionReferenceIndicator")


def _roi(number: int, label_map: LabelMap, of_label: int, first: Dataset, identity: Identity) -> Dataset:
    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
    roi.ROIName = region_name(label_map, of_label)
    roi.ROIDescription = f"{RESEARCH_USE_ONLY}. Tracking UID {tracking_uid(identity, of_label)}"
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    roi.ROIGenerationDescription = long_string(f"{identity.engine} {identity.engine_version}")
    return roi


def _observation(number: int) -> Dataset:
    """Without an interpreted type: that a region is a target, a person says."""
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIInterpretedType = observation.ROIInterpreter = ""
    return observation


def _contours(number: int, outlines: Iterator[tuple[int, Corners]], source: LoadedSeries) -> Dataset:
    images = slices(source)
    contours: list[Dataset] = []
    for z, corners in outlines:
        contour = Dataset()
        contour.ContourImageSequence = [frame_reference(images[z])]
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.NumberOfContourPoints = len(corners)
        contour.ContourNumber = len(contours) + 1
        contour.ContourData = [f"{mm:.4f}" for mm in places_mm(z, corners, source.volume.affine).ravel()]
        contours.append(contour)
    roi = Dataset()
    roi.ReferencedROINumber = number
    roi.ROIDisplayColor = [round(255 * value) for value in colour(number)]
    roi.ContourSequence = contours
    return roi


def places_mm(z: int, corners: Corners, affine: Affine) -> NDArray[np.float64]:
    """(n, 3) LPS mm of corners of pixels of slice z."""
    count = len(corners)
    index = np.column_stack([np.full(count, z), corners - 0.5, np.ones(count)])
    return np.asarray((affine @ index.T).T[:, :3])


def region_contours(array: NDArray[np.uint16], of_label: int, box: tuple[slice, ...]) -> Iterator[tuple[int, Corners]]:
    """Slice and outline of every connected piece of a region, slice by slice; box : where the region lies."""
    start = np.array([box[1].start, box[2].start])
    for z in range(box[0].start, box[0].stop):
        pieces, count = label(array[z][box[1:]] == of_label)
        for piece in range(1, count + 1):
            yield z, outline(pieces == piece) + start


def outline(mask: NDArray[np.bool_]) -> Corners:
    """The outline of one connected piece of a slice as one polygon, holes joined to it by keyholes.

    mask : bool (rows, columns) whose pixels are connected by their edges
    """
    loops = _loops(mask)
    outside = max(range(len(loops)), key=lambda k: np.ptp(loops[k], axis=0).sum())
    joined = loops.pop(outside)
    while loops:
        gaps = [_nearest(joined, hole) for hole in loops]
        k = min(range(len(loops)), key=lambda one: gaps[one][0])
        _, here, there = gaps[k]
        hole = loops.pop(k)
        around = np.concatenate([hole[there:], hole[: there + 1]])
        joined = np.concatenate([joined[: here + 1], around, joined[here:]])
    return _without_straight(joined)


def _nearest(polygon: Corners, hole: Corners) -> tuple[int, int, int]:
    """Squared distance of the two nearest corners, and which they are: no third loop can lie between them."""
    apart = ((polygon[:, None] - hole[None]) ** 2).sum(axis=2)
    here, there = np.unravel_index(int(np.argmin(apart)), apart.shape)
    return int(apart[here, there]), int(here), int(there)


def _loops(mask: NDArray[np.bool_]) -> list[Corners]:
    """Closed walks along the edges of the mask with the inside to the right, a corner at every pixel."""
    onward: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for begin, end in _edges(mask):
        onward.setdefault(begin, []).append(end)
    loops = []
    while onward:
        start = next(iter(onward))
        walk = [start, _step(onward, start, None)]
        while walk[-1] != start or (walk[-1] in onward and _turns_right(onward, walk)):
            walk.append(_step(onward, walk[-1], walk[-2]))
        loops.append(np.array(walk[:-1], dtype=np.intp))
    return loops


def _turns_right(onward: dict[tuple[int, int], list[tuple[int, int]]], walk: list[tuple[int, int]]) -> bool:
    """Whether the walk goes on through its own first corner, where two pixels touch by a corner only."""
    (row, column), (to_row, to_column) = walk[-2], walk[-1]
    right = to_row + (to_column - column), to_column - (to_row - row)
    return right in onward[walk[-1]]


def _step(
    onward: dict[tuple[int, int], list[tuple[int, int]]], at: tuple[int, int], before: tuple[int, int] | None
) -> tuple[int, int]:
    """The next corner; where two ways are open the one to the right, which stays with the same pixel."""
    ways = onward[at]
    chosen = 0
    if before is not None and len(ways) > 1:
        right = at[0] + (at[1] - before[1]), at[1] - (at[0] - before[0])
        chosen = ways.index(right)
    end = ways.pop(chosen)
    if not ways:
        del onward[at]
    return end


def _edges(mask: NDArray[np.bool_]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Directed edges between inside and outside, the inside to the right (rows grow downwards)."""
    padded = np.pad(mask, 1).astype(np.int8)
    across = np.diff(padded, axis=0)[:, 1:-1]  # at the top of (row, column)
    along = np.diff(padded, axis=1)[1:-1]  # at the left of (row, column)
    for sign, shift in ((1, (0, 1)), (-1, (1, 0))):
        for row, column in np.argwhere(across == sign).tolist():
            yield (row, column + shift[0]), (row, column + shift[1])
        for row, column in np.argwhere(along == -sign).tolist():
            yield (row + shift[0], column), (row + shift[1], column)


def _without_straight(polygon: Corners) -> Corners:
    """The polygon without corners in the middle of a straight line."""
    ahead, behind = np.roll(polygon, -1, axis=0) - polygon, polygon - np.roll(polygon, 1, axis=0)
    straight = (ahead[:, 0] * behind[:, 1] == ahead[:, 1] * behind[:, 0]) & ((ahead * behind).sum(axis=1) > 0)
    return np.asarray(polygon[~straight])
