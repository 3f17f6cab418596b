"""Regions that others drew, as labels on the image: what was drawn comes back, what lies elsewhere is refused."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.seg import SegmentationTypeValues
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_io import regions
from dicom_io.errors import RegionsRefused
from dicom_io.regions import chosen_of, drawn_on, inside, read_regions, tumours
from dicom_io.volume import LoadedSeries
from dicom_io.write import rtstruct, seg
from tests import drawn, findings, make

SHAPE = (8, 16, 14)


def series(folder: Path, flip: str = "") -> LoadedSeries:
    return findings.series(make.study(folder, pet_shape=SHAPE, flip=flip).pet)


def structure_set(source: LoadedSeries, labels: NDArray[np.uint16] | None = None) -> Dataset:
    dataset = rtstruct.structure_set(findings.products(source, labels), source, findings.IDENTITY)
    assert dataset is not None
    return dataset


def segmentation(source: LoadedSeries) -> Dataset:
    dataset = seg.segmentation(findings.products(source), source, findings.IDENTITY)
    assert dataset is not None
    return dataset


def reread(dataset: Dataset, folder: Path) -> Dataset:
    (path,) = findings.save([dataset], folder)
    return read_regions(path)


def by_highdicom(folder: Path, mask: NDArray[np.bool_], **more: Any) -> Dataset:
    """A segmentation by another program, of the study that `series` made."""
    return read_regions(drawn.segmentation(sorted((folder / "PT").glob("*.dcm")), mask, folder / "drawn.dcm", **more))


@pytest.mark.parametrize("flip", ["", "z", "y", "x", "zyx"])
@pytest.mark.parametrize("make_regions", [structure_set, segmentation])
def test_our_own_objects_come_back(tmp_path: Path, flip: str, make_regions: object) -> None:
    source = series(tmp_path / "study", flip)
    found = tumours(reread(make_regions(source), tmp_path / "made"), source)  # type: ignore[operator]
    labels = findings.corner_regions(SHAPE)
    assert np.array_equal(found.array, (labels == 3) * 1 + (labels == 9) * 2)
    assert found.array.dtype == np.uint16
    assert np.array_equal(found.affine, source.static.affine)
    assert set(found.names) == {1, 2}
    assert all("Lesion" in name for name in found.names.values())


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1), slice(1, 5), slice(4, 0, -1)])
@pytest.mark.parametrize("omit_empty", [False, True])
def test_segmentations_of_others_in_any_order_and_extent(tmp_path: Path, order: slice, omit_empty: bool) -> None:
    source = series(tmp_path)
    mask = findings.corner_regions(SHAPE) == 3
    found = tumours(by_highdicom(tmp_path, mask, order=order, omit_empty=omit_empty), source)
    assert np.array_equal(found.array > 0, mask)
    assert source.datasets[0].SeriesInstanceUID in drawn_on(read_regions(tmp_path / "drawn.dcm"))


def test_label_maps_and_shares_are_read(tmp_path: Path) -> None:
    source = series(tmp_path)
    mask = findings.corner_regions(SHAPE) == 3
    for kind in (SegmentationTypeValues.LABELMAP, SegmentationTypeValues.FRACTIONAL):
        found = tumours(by_highdicom(tmp_path, mask, kind=kind), source)
        assert np.array_equal(found.array > 0, mask)


def test_a_segmentation_on_another_grid_is_refused(tmp_path: Path) -> None:
    source = series(tmp_path)
    sound = by_highdicom(tmp_path, findings.corner_regions(SHAPE) == 3)
    for change in ("shift", "beyond"):
        altered = deepcopy(sound)
        for group in altered.PerFrameFunctionalGroupsSequence:
            plane = group.PlanePositionSequence[0]
            x, y, z = (float(value) for value in plane.ImagePositionPatient)
            plane.ImagePositionPatient = [x + (17.0 if change == "shift" else 0.0), y, z]
            if change == "beyond":
                step = source.static.spacing_mm[0]
                plane.ImagePositionPatient = [x, y, round(z + 6 * step, 6)]
        with pytest.raises(RegionsRefused) as refused:
            tumours(altered, source)
        assert refused.value.code == "not-on-grid"


def test_another_frame_of_reference_is_refused(tmp_path: Path) -> None:
    source = series(tmp_path)
    for dataset in (structure_set(source), segmentation(source)):
        source.datasets[0].FrameOfReferenceUID = "2.25.1"
        with pytest.raises(RegionsRefused) as refused:
            tumours(dataset, source)
        assert refused.value.code == "another-frame-of-reference"
        source.datasets[0].FrameOfReferenceUID = source.datasets[1].FrameOfReferenceUID


def test_who_was_drawn_on(tmp_path: Path) -> None:
    source = series(tmp_path)
    for dataset in (structure_set(source), segmentation(source)):
        assert drawn_on(dataset) == {source.datasets[0].SeriesInstanceUID}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["GTV_Mass_PET"], [1]),
        (["Liver", "Lesion 1", "lesion-2", "Brain"], [2, 3]),
        (["anything"], [1]),
        (["Body", "GTV1", "PTV", "CTV 2"], [2, 3, 4]),
        (["Metastasis left", "Tumour", "tumor_bed"], [1, 2, 3]),
        (["Metric", "Total"], None),
        (["Liver", "Spleen"], None),
        ([], None),
    ],
)
def test_which_labelsare_tumours(names: list[str], chosen: list[int] | None) -> None:
    found = list(enumerate(names, start=1))
    if chosen is None:
        with pytest.raises(RegionsRefused):
            chosen_of(found)
    else:
        assert [number for number, _ in chosen_of(found)] == chosen


def square(z: float, low: float, high: float) -> NDArray[np.float64]:
    """(x, y, z) corners of a square in index coordinates, which an identity affine makes millimetres, as (z, y, x)."""
    return np.array([[z, low, low], [z, low, high], [z, high, high], [z, high, low]], float)


def test_contours_of_other_slices_and_holes() -> None:
    identity, shape = np.eye(4), (9, 12, 12)
    solid = inside([square(z, 1.5, 8.5) for z in range(2, 6)], identity, shape)
    assert solid.sum() == 4 * 49
    assert solid[2:6, 2:9, 2:9].all()
    hollow = inside([square(3, 1.5, 8.5), square(3, 3.5, 5.5)], identity, shape)
    assert hollow.sum() == 49 - 4
    coarse = inside([square(z, 1.5, 8.5) for z in (2.0, 4.0)], identity, shape)  # every other slice was drawn
    assert np.flatnonzero(coarse.any(axis=(1, 2))).tolist() == [1, 2, 3, 4, 5]
    fine = inside([square(2 + n / 4, 1.5, 8.5) for n in range(5)], identity, shape)
    assert np.flatnonzero(fine.any(axis=(1, 2))).tolist() == [2, 3]
    assert not inside([], identity, shape).any()
    assert not inside([square(3, 20, 30)], identity, shape).any()
    assert inside([square(3, -5, 30)], identity, shape)[3].all()
    with pytest.raises(RegionsRefused) as refused:
        inside([np.array([[2, 0, 0], [3, 0, 5], [4, 5, 5]], float)], identity, shape)
    assert refused.value.code == "not-planar"


def test_objects_that_are_no_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make.study(tmp_path / "study", pet_shape=SHAPE)
    source = findings.series(study.pet)
    (tmp_path / "text").write_text("no DICOM")
    broken = structure_set(source)
    del broken.StructureSetROISequence[0].ROINumber
    empty = structure_set(source)
    empty.ROIContourSequence = []
    points = structure_set(source)
    points.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2"]
    for content, code in ((study.pet[0], "not-regions"), (tmp_path / "text", "unreadable")):
        with pytest.raises(RegionsRefused) as refused:
            read_regions(content)
        assert refused.value.code == code
    for dataset, code in ((broken, "unreadable"), (empty, "no-regions"), (points, "unreadable")):
        with pytest.raises(RegionsRefused) as refused:
            tumours(dataset, source)
        assert refused.value.code == code
    monkeypatch.setattr(regions, "POINTS_MAX", 10)
    with pytest.raises(RegionsRefused) as refused:
        tumours(structure_set(source), source)
    assert refused.value.code == "too-large"
    monkeypatch.setattr(regions, "BYTES_MAX", 10)
    with pytest.raises(RegionsRefused) as refused:
        read_regions(study.pet[0])
    assert refused.value.code == "too-large"
