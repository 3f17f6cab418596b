"""Regions that others drew: Segmentation and RT Structure Set → labels on the grid of an image.

Only what lies on that image is taken: a segmentation voxel for voxel, contours by the voxel centres inside them
(even-odd rule; PS3.3 C.8.8.6.3). Nothing is resampled: what lies on another grid is refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, RTStructureSetStorage, SegmentationStorage

from dicom_io.errors import RegionsRefused
from dicom_io.volume import LoadedSeries
from engines.contract import Affine, LabelMap

SEGMENTATIONS = (SegmentationStorage, UID("1.2.840.10008.5.1.4.1.1.66.7"))
"""Segmentation and Label Map Segmentation Storage."""
MODALITIES = frozenset({"SEG", "RTSTRUCT"})
BYTES_MAX = 512 * 2**20
POINTS_MAX = 20_000_000
ON_GRID_VOXELS = 0.1
"""How far a voxel of a segmentation may lie from one of the image."""
PLANAR_VOXELS = 0.25
"""How far the points of a contour may lie from one plane, in slices."""
LARGEST_LABEL = 65535
TUMOUR = re.compile(
    r"(?<![a-z])(?:[gipc]?tv|tumou?rs?|lesions?|metasta\w+|mets?|neoplasms?|cancer|malignan\w+|lymphoma\w*)(?![a-z])"
)
"""Names of regions that are tumours, in lower case, other signs as blanks."""
_MALFORMED = (AttributeError, KeyError, ValueError, TypeError, IndexError, RuntimeError, OverflowError)
"""What highdicom and pydicom raise on an object that is not as the Standard has it."""
Mask = NDArray[np.bool_]
Named = tuple[int, str]
"""Number and name of a region."""


def read_regions(path: Path) -> Dataset:
    """A Segmentation or RT Structure Set.

    Raises
    ------
    RegionsRefused
        too-large, unreadable, not-regions.
    """
    size = path.stat().st_size
    if size > BYTES_MAX:
        raise RegionsRefused(f"regions: expected at most {BYTES_MAX} bytes, got {size}", code="too-large")
    try:
        dataset = dcmread(path)
        class_uid = dataset.SOPClassUID
    except (InvalidDicomError, EOFError, *_MALFORMED) as error:
        raise RegionsRefused("regions: expected a DICOM object that can be read", code="unreadable") from error
    if class_uid not in (*SEGMENTATIONS, RTStructureSetStorage):
        message = "SOP Class UID (0008,0016): expected Segmentation or RT Structure Set Storage"
        raise RegionsRefused(message, code="not-regions")
    return dataset


def drawn_on(regions: Dataset) -> frozenset[str]:
    """Series Instance UIDs of the images that the regions say they were drawn on.

    Raises
    ------
    RegionsRefused
        unreadable.
    """
    try:
        return frozenset(_referenced_series(regions))
    except _MALFORMED as error:
        raise RegionsRefused("regions: expected references to series", code="unreadable") from error


def _referenced_series(regions: Dataset) -> Iterator[str]:
    for series in regions.get("ReferencedSeriesSequence") or ():
        yield str(series.get("SeriesInstanceUID"))
    for frame in regions.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                yield str(series.get("SeriesInstanceUID"))


def tumours(regions: Dataset, source: LoadedSeries) -> LabelMap:
    """The regions that are tumours by their names, or the only one, as labels 1, 2, … in the order of their numbers.

    Where two overlap the first one is seen. A region without a voxel on the image has no label.

    Raises
    ------
    RegionsRefused
        another-frame-of-reference, several-regions, no-regions, not-on-grid, not-planar, unreadable, too-large.
    """
    _check_frame_of_reference(regions, source)
    is_segmentation = regions.SOPClassUID in SEGMENTATIONS
    try:
        chosen = chosen_of(_segments(regions) if is_segmentation else _rois(regions))
        masks = _segment_masks(regions, chosen, source) if is_segmentation else _roi_masks(regions, chosen, source)
        return _labelled(chosen, masks, source)
    except _MALFORMED as error:
        message = f"regions: expected an object as PS3.3 has it, got a malformed one ({type(error).__name__})"
        raise RegionsRefused(message, code="unreadable") from error


def chosen_of(found: Sequence[Named]) -> list[Named]:
    """The tumours among named regions, or the only region there is.

    Raises
    ------
    RegionsRefused
        several-regions, no-regions.
    """
    named = [region for region in found if TUMOUR.search(re.sub(r"[\W_]+|\d+", " ", region[1].lower()))]
    chosen = named or (list(found) if len(found) == 1 else [])
    if not found:
        raise RegionsRefused("regions: expected at least one, got none", code="no-regions")
    if not chosen:
        message = f"regions: expected names that say which are tumours, got {len(found)} others"
        raise RegionsRefused(message, code="several-regions")
    if len(chosen) > LARGEST_LABEL:
        raise RegionsRefused(f"regions: expected at most {LARGEST_LABEL}, got {len(chosen)}", code="too-large")
    return chosen


def _check_frame_of_reference(regions: Dataset, source: LoadedSeries) -> None:
    own = regions.get("FrameOfReferenceUID")
    named = {str(own)} if own else set()
    for keyword in ("ReferencedFrameOfReferenceSequence", "StructureSetROISequence"):
        for item in regions.get(keyword) or ():
            uid = item.get("FrameOfReferenceUID") or item.get("ReferencedFrameOfReferenceUID")
            named |= {str(uid)} if uid else set()
    if str(source.datasets[0].get("FrameOfReferenceUID")) not in named:
        message = "Frame of Reference UID (0020,0052): expected that of the image, got another one"
        raise RegionsRefused(message, code="another-frame-of-reference")


def _labelled(chosen: Sequence[Named], masks: Iterable[Mask], source: LoadedSeries) -> LabelMap:
    volume = source.static
    array = np.zeros(volume.array.shape, np.uint16)
    names: dict[int, str] = {}
    for label, ((_, name), mask) in enumerate(zip(chosen, masks, strict=True), start=1):
        free = mask & (array == 0)
        array[free] = label
        if free.any():
            names[label] = name
    return LabelMap(array, volume.affine, names)


def _segments(regions: Dataset) -> list[Named]:
    """Number and label of each segment, with the meaning of its type, which may be what says that it is a tumour."""
    found = []
    for segment in regions.get("SegmentSequence") or ():
        number = int(segment.SegmentNumber)
        if number == 0:  # the background of a label map (PS3.3 C.8.20.4.1)
            continue
        types = segment.get("SegmentedPropertyTypeCodeSequence") or ()
        meanings = [str(code.get("CodeMeaning", "")) for code in types]
        found.append((number, " ".join([str(segment.get("SegmentLabel", "")), *meanings]).strip()))
    return found


def _segment_masks(regions: Dataset, chosen: Sequence[Named], source: LoadedSeries) -> Iterator[Mask]:
    from highdicom.seg import Segmentation

    segmentation = Segmentation.from_dataset(regions, copy=False)
    for number, _ in chosen:
        found = segmentation.get_volume(segment_numbers=[number], skip_overlap_checks=True, combine_segments=False)
        share = np.asarray(found.array)[..., 0]
        yield _on_grid(share >= 0.5, np.asarray(found.affine, np.float64), source)


def _on_grid(mask: Mask, affine: Affine, source: LoadedSeries) -> Mask:
    """A mask of the image's own voxels, which another order, direction or extent of the slices may hide."""
    volume = source.static
    to_image = np.linalg.inv(volume.affine) @ affine
    turn, shift = np.rint(to_image[:3, :3]), np.rint(to_image[:3, 3])
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(mask.shape) - 1)
    apart = corners @ (to_image[:3, :3] - turn).T + (to_image[:3, 3] - shift)
    one_each = (np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()
    if not one_each or np.abs(apart).max() > ON_GRID_VOXELS:
        message = f"segmentation: expected the voxels of the image, got others, up to {np.abs(apart).max():.2f} apart"
        raise RegionsRefused(message, code="not-on-grid")
    there = (np.argwhere(mask) @ turn.T + shift).astype(np.intp)
    if ((there < 0) | (there >= volume.array.shape)).any():
        raise RegionsRefused("segmentation: a region reaches beyond the image", code="not-on-grid")
    placed = np.zeros(volume.array.shape, bool)
    placed[tuple(there.T)] = True
    return placed


def _rois(regions: Dataset) -> list[Named]:
    """Number and name of each ROI that has closed planar contours."""
    drawn = _contours(regions)
    return [
        (int(roi.ROINumber), str(roi.get("ROIName", "")))
        for roi in regions.get("StructureSetROISequence") or ()
        if drawn.get(int(roi.ROINumber))
    ]


def _contours(regions: Dataset) -> Mapping[int, list[NDArray[np.float64]]]:
    """ROI Number → points (n, 3) in LPS mm of each closed planar contour."""
    found: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    points = 0
    for roi in regions.get("ROIContourSequence") or ():
        for contour in roi.get("ContourSequence") or ():
            if contour.get("ContourGeometricType") not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
                continue
            corners = np.asarray(contour.ContourData, np.float64).reshape(-1, 3)
            points += len(corners)
            if points > POINTS_MAX:
                message = f"contours: expected at most {POINTS_MAX} points, got more"
                raise RegionsRefused(message, code="too-large")
            if len(corners) >= 3 and np.isfinite(corners).all():
                found[int(roi.ReferencedROINumber)].append(corners)
    return found


def _roi_masks(regions: Dataset, chosen: Sequence[Named], source: LoadedSeries) -> Iterator[Mask]:
    drawn = _contours(regions)
    for number, _ in chosen:
        yield inside(drawn[number], source.static.affine, source.static.array.shape)


def inside(contours: Sequence[NDArray[np.float64]], affine: Affine, shape: Sequence[int]) -> Mask:
    """The voxels whose centre lies inside contours parallel to the slices.

    contours : points (n, 3) in LPS mm, each in one plane. A slice takes the contours of the plane next to it, if that
        is no further than half of the distance of the planes or of the slices, whichever is more.
    affine, shape : of the image, (z, y, x, 1) → LPS mm and (z, y, x)

    Raises
    ------
    RegionsRefused
        not-planar.
    """
    to_index = np.linalg.inv(affine)
    planes: dict[float, list[NDArray[Any]]] = defaultdict(list)
    for contour in contours:
        index = contour @ to_index[:3, :3].T + to_index[:3, 3]
        height = float(np.median(index[:, 0]))
        if np.abs(index[:, 0] - height).max() > PLANAR_VOXELS:
            message = "contours: expected planes along the slices of the image, got oblique ones"
            raise RegionsRefused(message, code="not-planar")
        planes[round(height, 2)].append(index[:, 1:])
    heights = np.array(sorted(planes))
    step = float(np.median(np.diff(heights))) if len(heights) > 1 else 1.0
    mask = np.zeros(tuple(shape), bool)
    for z in range(shape[0]) if len(heights) else ():
        nearest = float(heights[np.abs(heights - z).argmin()])
        if abs(nearest - z) <= max(step, 1.0) / 2.0 + 1e-3:
            for polygon in planes[nearest]:
                mask[z] ^= _filled(polygon, (shape[1], shape[2]))
    return mask


def _filled(polygon: NDArray[Any], shape: tuple[int, int]) -> Mask:
    """Pixels (rows, columns) whose centre lies inside a polygon of (row, column)."""
    from skimage.measure import points_in_poly

    low = np.maximum(np.floor(polygon.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(polygon.max(axis=0)), np.array(shape) - 1).astype(int)
    mask = np.zeros(shape, bool)
    if (high >= low).all():
        rows, columns = np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1]
        centres = np.column_stack([rows.ravel(), columns.ravel()])
        found = points_in_poly(centres, polygon)  # type: ignore[no-untyped-call]
        mask[rows, columns] = found.reshape(rows.shape)
    return mask
