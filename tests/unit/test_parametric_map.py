"""Parametric Maps and their viewable copies: the very numbers, at their places, with their unit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_io.errors import DicomError, GeometryRefused, PixelsRefused, QuantityRefused
from dicom_io.volume import LoadedSeries, load
from dicom_io.write import concepts, header
from dicom_io.write.parametric_map import parametric_map
from dicom_io.write.pet import Derivation, derived_pet
from engines.contract import Quantity, Volume
from tests import findings, make, make_enhanced
from tests.findings import BERLIN, IDENTITY

SHAPE = (5, 12, 10)
DURATIONS_S = (10.0, 10.0, 30.0, 120.0)
UNITS = {
    Quantity.SUVBW: ("g/ml{SUVbw}", "126401"),
    Quantity.K1: ("ml/min/g", "K1"),
    Quantity.K2: ("/min", "k2"),
    Quantity.MBF: ("ml/min/g", "126390"),
}
PERFUSION = concepts.derivation_code(Quantity.MBF)


def static(folder: Path, **more: Any) -> LoadedSeries:
    return findings.series(make.study(folder, pet_shape=SHAPE, **more).pet)


def dynamic(folder: Path) -> LoadedSeries:
    return load(findings.dynamic_series(folder, SHAPE, DURATIONS_S), Quantity.ACTIVITY_BQML, BERLIN)


def mapped(source: LoadedSeries, quantity: Quantity = Quantity.MBF) -> Volume:
    """No two voxels alike, negative ones among them."""
    array = np.random.default_rng(3).normal(1.5, 1.0, SHAPE).astype(np.float32)
    return Volume(array, source.volume.affine, quantity)


def written(volume: Volume, source: LoadedSeries, name: str = "MBF stress") -> Dataset:
    return findings.reread(header.encode(parametric_map(name, volume, source, IDENTITY)))


def by_hand(dataset: Dataset, affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Frames put on the grid by their own positions; numpy and the Standard alone."""
    stored = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(-1, dataset.Rows, dataset.Columns)
    (mapping,) = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    values = stored * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == stored.min()
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == stored.max()
    found = np.full(stored.shape, np.nan, np.float32)
    for groups, plane in zip(dataset.PerFrameFunctionalGroupsSequence, values, strict=True):
        place = [float(mm) for mm in groups.PlanePositionSequence[0].ImagePositionPatient]
        z, y, x, _ = np.linalg.inv(affine) @ [*place, 1.0]
        assert max(abs(y), abs(x), abs(z - round(z))) < 1e-4
        found[round(z)] = plane
    return found


@pytest.mark.parametrize("quantity", UNITS)
@pytest.mark.parametrize("flip", ["", "zyx"])
def test_every_number_comes_back_exactly(tmp_path: Path, quantity: Quantity, flip: str) -> None:
    source = static(tmp_path, flip=flip)
    volume = mapped(source, quantity)
    assert np.array_equal(by_hand(written(volume, source), volume.affine), volume.array)


@pytest.mark.parametrize("quantity", UNITS)
def test_highdicom_reads_numbers_places_and_units(tmp_path: Path, quantity: Quantity) -> None:
    source = dynamic(tmp_path)
    volume = mapped(source, quantity)
    read = hd.pm.ParametricMap.from_dataset(written(volume, source))
    found = read.get_volume(dtype=np.float32, apply_real_world_transform=True)
    back = found.match_geometry(hd.Volume(volume.array, volume.affine, "PATIENT"))
    assert np.array_equal(back.array, volume.array)
    (mapping,) = read.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    (unit,), (definition,) = mapping.MeasurementUnitsCodeSequence, mapping.QuantityDefinitionSequence
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == (UNITS[quantity][0], "UCUM")
    assert definition.ConceptCodeSequence[0].CodeValue == UNITS[quantity][1]


def test_what_it_says_about_itself(tmp_path: Path) -> None:
    source = dynamic(tmp_path)
    dataset = written(mapped(source), source)
    assert dataset.ContentQualification == "RESEARCH"
    assert dataset.SeriesDescription == "MBF stress threshold_segmentation RESEARCH USE ONLY"
    assert dataset.FrameOfReferenceUID == source.datasets[0].FrameOfReferenceUID
    assert dataset.SeriesInstanceUID == IDENTITY.uid("parametric_map", "MBF stress series")
    assert dataset.PatientID == source.datasets[0].PatientID
    assert dataset.ContributingEquipmentSequence[1].ManufacturerModelName == "threshold_segmentation"
    other = written(mapped(source), source, "MBF rest")
    uids = [(one.SOPInstanceUID, one.SeriesInstanceUID) for one in (dataset, other)]
    assert len({uid for pair in uids for uid in pair}) == 4
    assert len({one.DimensionOrganizationSequence[0].DimensionOrganizationUID for one in (dataset, other)}) == 2


@pytest.mark.parametrize("flip", ["", "z", "x", "zyx"])
def test_frames_follow_the_slice_normal(tmp_path: Path, flip: str) -> None:
    """As readers suppose that stack frames without looking at their positions."""
    source = static(tmp_path, flip=flip)
    dataset = written(mapped(source), source)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    frames = dataset.PerFrameFunctionalGroupsSequence
    places = [np.array(one.PlanePositionSequence[0].ImagePositionPatient, float) for one in frames]
    assert (np.diff(places @ np.cross(orientation[:3], orientation[3:])) > 0).all()
    assert [one.FrameContentSequence[0].DimensionIndexValues for one in frames] == [1, 2, 3, 4, 5]


def test_sources_are_all_frames_and_the_places_those_of_the_first(tmp_path: Path) -> None:
    source = dynamic(tmp_path)
    dataset = written(mapped(source), source)
    (series,) = dataset.ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == [
        image.SOPInstanceUID for image in source.datasets
    ]
    positions = {image.SOPInstanceUID: list(image.ImagePositionPatient) for image in source.datasets[: SHAPE[0]]}
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        (item,) = groups.DerivationImageSequence[0].SourceImageSequence
        assert positions.pop(item.ReferencedSOPInstanceUID) == list(
            groups.PlanePositionSequence[0].ImagePositionPatient
        )
    assert not positions


def test_on_a_multi_frame_source_frames_are_named_by_number(tmp_path: Path) -> None:
    order = [2, 0, 4, 1, 3]
    frames, stored = make_enhanced.static(SHAPE[0]), make_enhanced.pixels(*SHAPE)
    whole = make_enhanced.enhanced_pet([frames[index] for index in order], stored[order])
    source = findings.series([make.save(whole, tmp_path / "enhanced.dcm")])
    volume = mapped(source)
    dataset = written(volume, source)
    assert np.array_equal(by_hand(dataset, volume.affine), volume.array)
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        (item,) = groups.DerivationImageSequence[0].SourceImageSequence
        z = round(float(groups.PlanePositionSequence[0].ImagePositionPatient[2]) / make_enhanced.SPACING_MM[0])
        assert item.ReferencedSOPInstanceUID == whole.SOPInstanceUID
        assert int(item.ReferencedFrameNumber) == order.index(z) + 1


def test_the_same_job_writes_the_same_bytes(tmp_path: Path) -> None:
    source = static(tmp_path)
    volume = mapped(source)
    first, second = (header.encode(parametric_map("K1", volume, source, IDENTITY)) for _ in "ab")
    assert first == second
    before = [image.to_json() for image in source.datasets]
    written(volume, source)
    assert [image.to_json() for image in source.datasets] == before


def refusal(volume: Volume, source: LoadedSeries) -> DicomError:
    with pytest.raises(DicomError) as caught:
        parametric_map("x", volume, source, IDENTITY)
    return caught.value


def test_what_is_no_map_is_refused(tmp_path: Path) -> None:
    source = static(tmp_path)
    volume = mapped(source)
    hole = volume.array.copy()
    hole[1, 2, 3] = np.nan
    assert isinstance(refusal(replace(volume, array=hole), source), PixelsRefused)
    assert isinstance(refusal(replace(volume, quantity=Quantity.HU), source), QuantityRefused)
    moved = volume.affine.copy()
    moved[1, 3] += 0.5
    for wrong in (replace(volume, array=volume.array[1:]), replace(volume, affine=moved)):
        with pytest.raises(ValueError, match="grid"):
            parametric_map("x", wrong, source, IDENTITY)


# The copy for viewers


@pytest.mark.parametrize(
    ("quantity", "units"), [(Quantity.K1, "MLMING"), (Quantity.K2, "MLMINML"), (Quantity.MBF, "MLMING")]
)
def test_the_viewable_copy_is_a_static_pet_series(tmp_path: Path, quantity: Quantity, units: str) -> None:
    source = dynamic(tmp_path)
    volume = mapped(source, quantity)
    images = derived_pet(volume, source, IDENTITY, Derivation("map", PERFUSION, "One-tissue model."))
    read = [pydicom.dcmread(path) for path in findings.save(images, tmp_path / "copy")]
    assert len(read) == SHAPE[0]
    for z, image in enumerate(read):
        values = image.pixel_array * float(image.RescaleSlope)
        assert np.abs(values - volume.array[z]).max() <= float(image.RescaleSlope) / 2 * 1.001
        assert image.ImagePositionPatient == source.datasets[z].ImagePositionPatient
        assert (image.Units, image.SeriesType, image.NumberOfSlices) == (units, ["STATIC", "IMAGE"], SHAPE[0])
        assert "NumberOfTimeSlices" not in image
        assert "SUVType" not in image
        assert image.SeriesTime == source.datasets[0].SeriesTime
        assert int(image.ActualFrameDuration) == 170_000
        assert float(image.DecayFactor) == 1.0
        assert {item.ReferencedSOPInstanceUID for item in image.SourceImageSequence} == {
            one.SOPInstanceUID for one in source.datasets if one.ImagePositionPatient == image.ImagePositionPatient
        }
    assert sorted(image.ImageIndex for image in read) == list(range(1, SHAPE[0] + 1))


def test_the_copy_is_dated_to_the_middle_of_the_measurement(tmp_path: Path) -> None:
    """10, 10, 30 and 120 s: the middle is 85 s after the start; the scanner's own is within a decay of it."""
    source = dynamic(tmp_path)
    image = derived_pet(mapped(source), source, IDENTITY, Derivation("map", PERFUSION, "x"))[0]
    assert float(image.FrameReferenceTime) == pytest.approx(85_000.0, abs=5.0)


def test_a_map_over_time_or_on_another_grid_is_refused(tmp_path: Path) -> None:
    source = dynamic(tmp_path)
    over_time = replace(source.volume, quantity=Quantity.MBF)
    shifted = mapped(source).affine.copy()
    shifted[0, 3] += 1.0
    for wrong in (over_time, replace(mapped(source), affine=shifted)):
        with pytest.raises(GeometryRefused) as caught:
            derived_pet(wrong, source, IDENTITY, Derivation("map", PERFUSION, "x"))
        assert caught.value.code == "not-source-grid"
