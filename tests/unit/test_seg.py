"""Segmentations: every voxel where it belongs, nothing empty, everything a viewer looks for, and fast."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_io import volume
from dicom_io.volume import LoadedSeries
from dicom_io.write import header, report, seg
from engines.contract import LabelMap, Quantity, Volume
from tests import findings, make
from tests.findings import IDENTITY

SHAPE = (8, 16, 14)


def load(folder: Path, **more: Any) -> LoadedSeries:
    return findings.series(make.study(folder, pet_shape=SHAPE, **more).pet)


def written(source: LoadedSeries, **more: Any) -> hd.seg.Segmentation:
    dataset = seg.segmentation(findings.products(source, **more), source, IDENTITY)
    assert dataset is not None
    return hd.seg.Segmentation.from_dataset(findings.reread(header.encode(dataset)))


def as_labels(segmentation: hd.seg.Segmentation, source: LoadedSeries) -> np.ndarray[Any, Any]:
    """Segment numbers on the source's grid, found by the source instances that the frames refer to."""
    return segmentation.get_pixels_by_source_instance(
        [dataset.SOPInstanceUID for dataset in source.datasets], combine_segments=True, ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )  # fmt: skip


@pytest.mark.parametrize("flip", ["", "z", "y", "x", "zyx"])
def test_every_voxel_comes_back(tmp_path: Path, flip: str) -> None:
    source = load(tmp_path, flip=flip)
    labels = findings.corner_regions(SHAPE)
    # labels 3 and 9 become segments 1 and 2
    assert np.array_equal(as_labels(written(source), source), (labels == 3) * 1 + (labels == 9) * 2)


@pytest.mark.parametrize("flip", ["", "z", "y", "x"])
def test_every_voxel_is_at_its_place_in_the_patient(tmp_path: Path, flip: str) -> None:
    """By the geometry of the frames alone, as a viewer finds it, without the references to the source."""
    source = load(tmp_path, flip=flip)
    segmentation = written(source)
    labels = findings.corner_regions(SHAPE)
    expected = {
        (number, *np.round(source.volume.affine @ (*index, 1))[:3])
        for number, label in ((1, 3), (2, 9))
        for index in np.argwhere(labels == label)
    }
    found = set()
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    row_mm, column_mm = (float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing)
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    for frame, pixels in zip(segmentation.PerFrameFunctionalGroupsSequence, segmentation.pixel_array, strict=True):
        origin = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for row, column in np.argwhere(pixels):
            place = origin + orientation[3:] * row_mm * row + orientation[:3] * column_mm * column
            found.add((number, *np.round(place)))
    assert found == expected


def test_only_frames_with_voxels(tmp_path: Path) -> None:
    source = load(tmp_path)
    segmentation = written(source)
    # label 3 is on slices 1, 2, 3 and label 9 on slices 2, 3
    assert segmentation.NumberOfFrames == 3 + 2
    assert all(frame.any() for frame in segmentation.pixel_array)


def test_references(tmp_path: Path) -> None:
    source = load(tmp_path)
    segmentation = written(source)
    (referenced,) = segmentation.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == source.datasets[0].SeriesInstanceUID
    assert [i.ReferencedSOPInstanceUID for i in referenced.ReferencedInstanceSequence] == [
        dataset.SOPInstanceUID for dataset in source.datasets
    ]
    assert segmentation.FrameOfReferenceUID == source.datasets[0].FrameOfReferenceUID
    frames = segmentation.PerFrameFunctionalGroupsSequence
    positions = {dataset.SOPInstanceUID: list(dataset.ImagePositionPatient) for dataset in source.datasets}
    origins = [frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for frame in frames]
    assert [positions[uid] for uid in origins] == [
        list(frame.PlanePositionSequence[0].ImagePositionPatient) for frame in frames
    ]
    assert sorted(origins) == sorted(source.datasets[z].SOPInstanceUID for z in (1, 2, 3, 2, 3))
    assert [frame.DerivationImageSequence[0].DerivationCodeSequence[0].CodeValue for frame in frames] == ["113076"] * 5


def test_grid_is_the_sources(tmp_path: Path) -> None:
    source = load(tmp_path)
    segmentation = written(source)
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    (measures,) = shared.PixelMeasuresSequence
    assert measures.PixelSpacing == source.datasets[0].PixelSpacing
    assert float(measures.SliceThickness) == float(source.datasets[0].SliceThickness)
    assert float(measures.SpacingBetweenSlices) == pytest.approx(source.volume.spacing_mm[0])
    assert (segmentation.Rows, segmentation.Columns) == SHAPE[1:]


@pytest.mark.parametrize("slices", [(2,), (1, 4, 6)])
def test_the_distance_of_slices_is_the_sources(tmp_path: Path, slices: tuple[int, ...]) -> None:
    """Also where regions lie on one slice, or on slices that are no neighbours."""
    source = findings.series(make.study(tmp_path, pet_shape=SHAPE).pet)
    labels = np.zeros(SHAPE, np.uint16)
    labels[list(slices), 2, 3] = 1
    segmentation = seg.segmentation(findings.products(source, labels), source, IDENTITY)
    assert segmentation is not None
    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert float(measures.SpacingBetweenSlices) == pytest.approx(np.linalg.norm(source.volume.affine[:3, 0]))


def test_segments(tmp_path: Path) -> None:
    segmentation = written(load(tmp_path))
    assert (segmentation.SegmentationType, segmentation.SegmentsOverlap) == ("BINARY", "NO")
    assert [s.SegmentNumber for s in segmentation.SegmentSequence] == [1, 2]
    assert [s.SegmentLabel for s in segmentation.SegmentSequence] == ["Lesion 1", "Lesion 2"]
    assert [s.TrackingID for s in segmentation.SegmentSequence] == ["Lesion 1", "Lesion 2"]
    # the tracking UID hangs on the label of the engine, not on the number of the segment
    assert [s.TrackingUID for s in segmentation.SegmentSequence] == [
        IDENTITY.uid("region", "tracking", label) for label in (3, 9)
    ]
    for segment in segmentation.SegmentSequence:
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert _code(segment.SegmentedPropertyCategoryCodeSequence) == ("49755003", "SCT")
        assert _code(segment.SegmentedPropertyTypeCodeSequence) == ("52988006", "SCT")
    colours = [tuple(s.RecommendedDisplayCIELabValue) for s in segmentation.SegmentSequence]
    assert len(set(colours)) == 2


def test_regions_that_are_no_lesions(tmp_path: Path) -> None:
    segmentation = written(load(tmp_path), lesions=())
    assert segmentation.SeriesDescription == "Regions threshold_segmentation RESEARCH USE ONLY"
    for segment in segmentation.SegmentSequence:
        assert _code(segment.SegmentedPropertyTypeCodeSequence) == ("85756007", "SCT")


def test_nothing_found_is_no_segmentation(tmp_path: Path) -> None:
    source = load(tmp_path)
    assert seg.segmentation(findings.nothing(), source, IDENTITY) is None
    empty = LabelMap(np.zeros(SHAPE, np.uint16), source.volume.affine, {})
    assert seg.segmentation(findings.nothing(label_map=empty), source, IDENTITY) is None


def test_one_voxel_at_the_very_edge(tmp_path: Path) -> None:
    source = load(tmp_path)
    labels = np.zeros(SHAPE, np.uint16)
    labels[-1, -1, -1] = 65535
    segmentation = written(source, labels=labels)
    assert np.array_equal(as_labels(segmentation, source), labels == 65535)


def test_more_segments_than_a_byte_holds(tmp_path: Path) -> None:
    source = load(tmp_path)
    labels = np.zeros(SHAPE, np.uint16)
    labels.flat[: 2 * 300 : 2] = np.arange(1, 301) * 7
    segmentation = written(source, labels=labels)
    assert segmentation.number_of_segments == 300
    assert np.array_equal(as_labels(segmentation, source), labels // 7)


def test_label_map_on_another_grid_is_refused(tmp_path: Path) -> None:
    source = load(tmp_path)
    found = findings.products(source)
    assert found.label_map is not None
    moved = source.volume.affine.copy()
    moved[2, 3] += 1.0
    for wrong in (
        replace(found.label_map, array=found.label_map.array[:-1]),
        replace(found.label_map, affine=moved),
        replace(found.label_map, affine=source.volume.affine[:, [0, 2, 1, 3]]),
    ):
        with pytest.raises(ValueError, match="grid"):
            seg.segmentation(replace(found, label_map=wrong), source, IDENTITY)


def test_source_headers_are_left_as_they_were(tmp_path: Path) -> None:
    source = load(tmp_path)
    before = [dataset.to_json() for dataset in source.datasets]
    written(source)
    assert [dataset.to_json() for dataset in source.datasets] == before


# Label Map Segmentation


@pytest.mark.parametrize("flip", ["", "zyx"])
def test_a_label_map_brings_every_voxel_back(tmp_path: Path, flip: str) -> None:
    """By highdicom, and by hand: the value of a pixel is the number of its segment."""
    source = load(tmp_path, flip=flip)
    dataset = seg.segmentation(findings.products(source), source, IDENTITY, labelmap=True)
    assert dataset is not None
    read = findings.reread(header.encode(dataset))
    segmentation = hd.seg.Segmentation.from_dataset(read)
    labels = findings.corner_regions(SHAPE)
    expected = (labels == 3) * 1 + (labels == 9) * 2
    assert np.array_equal(as_labels(segmentation, source), expected)
    assert (read.SOPClassUID, read.SegmentationType) == ("1.2.840.10008.5.1.4.1.1.66.7", "LABELMAP")
    assert read.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.5"
    for groups, pixels in zip(read.PerFrameFunctionalGroupsSequence, read.pixel_array, strict=True):
        place = [float(mm) for mm in groups.PlanePositionSequence[0].ImagePositionPatient]
        z = round(float((np.linalg.inv(source.volume.affine) @ [*place, 1.0])[0]))
        assert np.array_equal(pixels, expected[z])
        assert pixels.any()
    assert read.NumberOfFrames == 3  # slices 1, 2, 3: segments share frames


def test_a_label_map_says_the_same_of_its_segments(tmp_path: Path) -> None:
    source = load(tmp_path)
    found = findings.products(source)
    binary, labelmap = (seg.segmentation(found, source, IDENTITY, labelmap=kind) for kind in (False, True))
    assert binary is not None and labelmap is not None
    background, *segments = labelmap.SegmentSequence
    assert background.SegmentNumber == 0
    assert [segment.to_json() for segment in segments] == [segment.to_json() for segment in binary.SegmentSequence]
    assert labelmap.SOPInstanceUID != binary.SOPInstanceUID
    assert labelmap.SeriesInstanceUID != binary.SeriesInstanceUID
    document = report.measurement_report(found, source, labelmap, IDENTITY)
    assert len(document.ContentSequence) == len(
        report.measurement_report(found, source, binary, IDENTITY).ContentSequence
    )


def test_organs_have_their_codes(tmp_path: Path) -> None:
    source = load(tmp_path)
    labels = findings.corner_regions(SHAPE)
    organs = LabelMap(labels, source.volume.affine, {3: "Liver", 9: "something else"})
    dataset = seg.segmentation(findings.products(source, label_map=organs, lesions=()), source, IDENTITY)
    assert dataset is not None
    liver, other = dataset.SegmentSequence
    assert _code(liver.SegmentedPropertyTypeCodeSequence) == ("10200004", "SCT")
    assert _code(liver.SegmentedPropertyCategoryCodeSequence) == ("91723000", "SCT")
    assert _code(other.SegmentedPropertyTypeCodeSequence) == ("85756007", "SCT")


def test_a_source_over_time_is_named_whole_and_drawn_on_its_first_frame(tmp_path: Path) -> None:
    paths = findings.dynamic_series(tmp_path, SHAPE, (10.0, 20.0, 30.0))
    source = volume.load(paths, Quantity.ACTIVITY_BQML, findings.BERLIN)
    segmentation = written(source)
    (series,) = segmentation.ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == [
        image.SOPInstanceUID for image in source.datasets
    ]
    first = {image.SOPInstanceUID for image in source.datasets[: SHAPE[0]]}
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        (item,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert item.ReferencedSOPInstanceUID in first
    labels = findings.corner_regions(SHAPE)
    found = segmentation.get_volume(combine_segments=True).match_geometry(
        hd.Volume(labels, source.volume.affine, "PATIENT")
    )
    assert np.array_equal(found.array, (labels == 3) * 1 + (labels == 9) * 2)


def test_whole_body_in_time() -> None:
    """300 slices of 200 × 200 with six lesions: about 0.3 s of one core; the limit leaves room for a busy machine."""
    source = _whole_body()
    labels = np.zeros(source.volume.array.shape, np.uint16)
    z, y, x = np.mgrid[-10:11, -10:11, -10:11]
    sphere = z**2 + y**2 + x**2 <= 100
    corners = ((20, 30, 40), (60, 90, 9), (61, 150, 150), (150, 9, 99), (240, 99, 9), (270, 150, 80))
    for number, (top, row, column) in enumerate(corners, start=1):
        labels[top : top + 21, row : row + 21, column : column + 21][sphere] = number
    found = findings.products(source, labels)
    seg.segmentation(found, source, IDENTITY)
    started = time.process_time()
    dataset = seg.segmentation(found, source, IDENTITY)
    assert dataset is not None
    header.encode(dataset)
    assert time.process_time() - started < 1.5
    assert dataset.NumberOfFrames == 6 * 21


def _whole_body() -> LoadedSeries:
    datasets = []
    for z in range(300):
        dataset = Dataset()
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
        dataset.SOPInstanceUID = f"2.25.1.{z}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "2.25.2", "2.25.3", "2.25.4"
        dataset.Modality = "PT"
        dataset.Rows = dataset.Columns = 200
        dataset.PixelSpacing = [4.0, 4.0]
        dataset.SliceThickness = 3.0
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-400, -400, 3 * z]
        datasets.append(dataset)
    affine = np.array([[0, 0, 4, -400], [0, 4, 0, -400], [3, 0, 0, 0], [0, 0, 0, 1]], float)
    volume = Volume(np.zeros((300, 200, 200), np.float32), affine, Quantity.SUVBW)
    return LoadedSeries(volume, tuple(datasets), "series time")


def _code(sequence: Sequence[Dataset]) -> tuple[str, str]:
    return sequence[0].CodeValue, sequence[0].CodingSchemeDesignator
