"""RT Structure Sets: the contours are the masks, read by an independent rasteriser, at their places in the patient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset
from scipy.ndimage import label
from skimage.measure import points_in_poly

from dicom_io.volume import LoadedSeries
from dicom_io.write import header, rtstruct, seg
from dicom_io.write.rtstruct import outline, structure_set
from engines.contract import LabelMap
from tests import findings, make, make_enhanced
from tests.findings import IDENTITY

SHAPE = (8, 16, 14)


def written(source: LoadedSeries, labels: NDArray[np.uint16] | None = None) -> Dataset:
    dataset = structure_set(findings.products(source, labels), source, IDENTITY)
    assert dataset is not None
    return findings.reread(header.encode(dataset))


def polygons(dataset: Dataset, number: int) -> Iterator[NDArray[np.float64]]:
    """(n, 3) points of every contour of a ROI [LPS mm]."""
    (roi,) = (one for one in dataset.ROIContourSequence if one.ReferencedROINumber == number)
    for contour in roi.ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        points = np.array([float(mm) for mm in contour.ContourData]).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        yield points


def rasterised(dataset: Dataset, number: int, source: LoadedSeries) -> NDArray[np.bool_]:
    """Voxels whose centre is inside an odd number of contours; scikit-image's point-in-polygon test."""
    shape = source.volume.array.shape[-3:]
    mask = np.zeros(shape, bool)
    centres = np.argwhere(np.ones(shape[1:], bool))
    for points in polygons(dataset, number):
        index = (np.linalg.inv(source.volume.affine) @ np.column_stack([points, np.ones(len(points))]).T).T
        z = round(float(index[:, 0].mean()))
        assert np.abs(index[:, 0] - z).max() < 1e-3
        mask[z] ^= points_in_poly(centres, index[:, 1:3]).reshape(shape[1:])
    return mask


def area_mm2(points: NDArray[np.float64]) -> float:
    """Of a planar polygon in space: half the length of the sum of the cross products."""
    return float(np.linalg.norm(np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0)) / 2.0)


@pytest.mark.parametrize("flip", ["", "z", "y", "x", "zyx"])
def test_contours_are_the_mask(tmp_path: Path, flip: str) -> None:
    source = findings.series(make.study(tmp_path, pet_shape=SHAPE, flip=flip).pet)
    dataset = written(source)
    labels = findings.corner_regions(SHAPE)
    for number, of_label in ((1, 3), (2, 9)):
        assert np.array_equal(rasterised(dataset, number, source), labels == of_label)


def ball(centre: tuple[float, float, float], radius_mm: float, source: LoadedSeries) -> NDArray[np.bool_]:
    z, y, x = np.indices(source.volume.array.shape)
    mm = source.volume.spacing_mm
    return sum(((axis - c) * s) ** 2 for axis, c, s in zip((z, y, x), centre, mm, strict=True)) <= radius_mm**2


@pytest.mark.parametrize("radius_mm", [6.5, 12.0, 25.0])
def test_volume_and_overlap_of_lesions(tmp_path: Path, radius_mm: float) -> None:
    """Volume of the polygons within 2 %, Dice of their mask at least 0.95: here both are exact; one is hollow."""
    source = findings.series(
        make.study(tmp_path, pet_shape=(60, 40, 40), plan={"pet_field_of_view_mm": (180.0, 160.0, 160.0)}).pet
    )
    labels = np.zeros(source.volume.array.shape, np.uint16)
    labels[ball((20, 14, 20), radius_mm, source)] = 1
    labels[ball((42, 20, 20), radius_mm, source) & ~ball((42, 20, 20), radius_mm / 2, source)] = 2
    dataset = written(source, labels)
    for number in (1, 2):
        mask = rasterised(dataset, number, source)
        assert 2 * (mask & (labels == number)).sum() / (mask.sum() + (labels == number).sum()) >= 0.95
        volume_mm3 = sum(area_mm2(points) for points in polygons(dataset, number)) * source.volume.spacing_mm[0]
        true_ml = (labels == number).sum() * source.volume.voxel_volume_ml
        assert true_ml > 0.8
        assert volume_mm3 / 1000.0 == pytest.approx(true_ml, rel=0.02)


@settings(max_examples=150, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_any_piece_with_any_holes_comes_back(mask: NDArray[np.bool_]) -> None:
    """Drawn by Pillow at sixteen times the size, whose polygons are filled by the even-odd rule, and by area."""
    pieces, count = label(mask)
    for piece in range(1, count + 1):
        polygon = outline(pieces == piece)
        points = np.column_stack([polygon, np.zeros(len(polygon))]).astype(float)
        assert area_mm2(points) == (pieces == piece).sum()
        canvas = Image.new("1", (16 * mask.shape[1] + 1, 16 * mask.shape[0] + 1))
        ImageDraw.Draw(canvas).polygon([(16 * int(c), 16 * int(r)) for r, c in polygon], fill=1)
        drawn = np.asarray(canvas)[8::16, 8::16]
        diagonal = keyhole_cells(polygon)
        agree = drawn == (pieces == piece)
        assert (agree | diagonal[: mask.shape[0], : mask.shape[1]]).all()


def keyhole_cells(polygon: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Cells that a channel crosses: its line has no width, but Pillow draws it."""
    cells = np.zeros((10, 10), bool)
    for begin, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if begin[0] != end[0] and begin[1] != end[1]:
            low, high = np.minimum(begin, end), np.maximum(begin, end)
            cells[low[0] : high[0], low[1] : high[1]] = True
    return cells


def test_a_ring_is_one_contour_with_a_keyhole() -> None:
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    polygon = outline(ring)
    points = np.column_stack([polygon, np.zeros(len(polygon))]).astype(float)
    assert area_mm2(points) == 8.0
    inside = points_in_poly(np.argwhere(np.ones((3, 3), bool)) + 0.5, polygon)
    assert inside.reshape(3, 3).tolist() == ring.tolist()


def test_what_it_says(tmp_path: Path) -> None:
    source = findings.series(make.study(tmp_path, pet_shape=SHAPE).pet)
    dataset = written(source)
    segmentation = seg.segmentation(findings.products(source), source, IDENTITY)
    assert segmentation is not None
    first = source.datasets[0]
    assert (dataset.Modality, dataset.SOPClassUID) == ("RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3")
    assert (dataset.ApprovalStatus, dataset.StructureSetLabel) == ("UNAPPROVED", "LESIONS")
    assert dataset.SeriesDescription == "Lesions threshold_segmentation RESEARCH USE ONLY"
    assert (dataset.StructureSetDate, dataset.StructureSetTime) == ("20260702", "003015.250000")
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == first.FrameOfReferenceUID
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert (study.ReferencedSOPInstanceUID, series.SeriesInstanceUID) == (
        first.StudyInstanceUID,
        first.SeriesInstanceUID,
    )
    assert len(series.ContourImageSequence) == SHAPE[0]
    for roi, observation, segment in zip(
        dataset.StructureSetROISequence, dataset.RTROIObservationsSequence, segmentation.SegmentSequence, strict=True
    ):
        assert (roi.ROINumber, roi.ROIName) == (segment.SegmentNumber, segment.SegmentLabel)
        assert segment.TrackingUID in roi.ROIDescription
        assert (observation.ReferencedROINumber, observation.RTROIInterpretedType) == (roi.ROINumber, "")
        assert roi.ROIGenerationAlgorithm == "AUTOMATIC"


def test_contours_name_the_slice_they_lie_on(tmp_path: Path) -> None:
    source = findings.series(make.study(tmp_path, pet_shape=SHAPE).pet)
    places = {image.SOPInstanceUID: float(image.ImagePositionPatient[2]) for image in source.datasets}
    for roi in written(source).ROIContourSequence:
        for contour in roi.ContourSequence:
            (image,) = contour.ContourImageSequence
            assert {float(z) for z in contour.ContourData[2::3]} == {places[image.ReferencedSOPInstanceUID]}


def test_on_a_multi_frame_source(tmp_path: Path) -> None:
    order = [2, 0, 5, 1, 4, 3]
    frames, stored = make_enhanced.static(6), make_enhanced.pixels(6, 12, 14)
    whole = make_enhanced.enhanced_pet([frames[index] for index in order], stored[order])
    source = findings.series([make.save(whole, tmp_path / "enhanced.dcm")])
    dataset = written(source)
    labels = findings.corner_regions((6, 12, 14))
    assert np.array_equal(rasterised(dataset, 1, source), labels == 3)
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        (image,) = contour.ContourImageSequence
        z = round(float(contour.ContourData[2]) / make_enhanced.SPACING_MM[0])
        assert int(image.ReferencedFrameNumber) == order.index(z) + 1


def test_nothing_found_is_no_object_and_another_grid_a_fault(tmp_path: Path) -> None:
    source = findings.series(make.study(tmp_path, pet_shape=SHAPE).pet)
    assert structure_set(findings.nothing(), source, IDENTITY) is None
    moved = source.volume.affine.copy()
    moved[0, 3] += 2.0
    wrong = LabelMap(findings.corner_regions(SHAPE), moved, {})
    with pytest.raises(ValueError, match="grid"):
        structure_set(replace(findings.products(source), label_map=wrong), source, IDENTITY)


def test_the_same_job_writes_the_same_bytes(tmp_path: Path) -> None:
    source = findings.series(make.study(tmp_path, pet_shape=SHAPE).pet)
    once, again = (rtstruct.structure_set(findings.products(source), source, IDENTITY) for _ in "ab")
    assert once is not None and again is not None
    assert header.encode(once) == header.encode(again)
