"""Derived PET: the numbers, places and meaning of the source's voxels survive, and what cannot be right is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_io.errors import DicomError, GeometryRefused, PixelsRefused, QuantityRefused
from dicom_io.volume import LoadedSeries, load
from dicom_io.write import header
from dicom_io.write.pet import Derivation, derived_pet, stored_values
from engines.contract import DynamicVolume, Quantity, Volume
from tests import findings, make, peers
from tests.findings import BERLIN, IDENTITY

SHAPE = (4, 6, 5)
SMOOTHED = Derivation("Smoothed", codes.cid7203.Smoothing, "Gaussian of 4 mm FWHM.")


def loaded(folder: Path, quantity: Quantity = Quantity.SUVBW, **more: Any) -> LoadedSeries:
    return load(make.study(folder, pet_shape=SHAPE, **more).pet, quantity, BERLIN)


def smoothed(source: LoadedSeries, array: NDArray[Any] | None = None) -> Volume:
    """Something an engine might have computed: on the source's grid, with other numbers in every slice."""
    if array is None:
        array = source.volume.array * np.linspace(0.25, 1.75, SHAPE[0])[:, None, None]
    return Volume(array.astype(np.float32), source.volume.affine, source.volume.quantity)


def written(source: LoadedSeries, array: NDArray[Any] | None = None, **more: Any) -> list[Dataset]:
    images = derived_pet(smoothed(source, array), source, IDENTITY, SMOOTHED, **more)
    return [findings.reread(header.encode(image)) for image in images]


def save(images: Sequence[Dataset], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:04d}.dcm" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(header.encode(image))
    return paths


def refusal(source: LoadedSeries, volume: Volume | DynamicVolume) -> DicomError:
    with pytest.raises(DicomError) as caught:
        derived_pet(volume, source, IDENTITY, SMOOTHED)
    return caught.value


def seconds(time: str) -> float:
    text = str(time)
    return int(text[:2]) * 3600.0 + int(text[2:4]) * 60.0 + float(text[4:])


def viewer_suv(image: Dataset) -> NDArray[np.float64]:
    """SUVbw as OHIF computes it (calculate-suv): it asks for all of these, whatever Units says."""
    assert {"ATTN", "DECY"} <= set(image.CorrectedImage)
    (given,) = image.RadiopharmaceuticalInformationSequence
    weight_kg, dose_bq = float(image.PatientWeight), float(given.RadionuclideTotalDose)
    half_life_s, injected_s = float(given.RadionuclideHalfLife), seconds(given.RadiopharmaceuticalStartTime)
    assert min(weight_kg, dose_bq, half_life_s) > 0
    assert image.AcquisitionDate and image.AcquisitionTime and image.SeriesDate and image.DecayCorrection == "START"
    values = image.pixel_array.astype(np.float64) * float(image.RescaleSlope) + float(image.RescaleIntercept)
    if image.Units == "GML":
        return values
    assert image.Units == "BQML"
    decayed = exp(-log(2.0) * (seconds(image.SeriesTime) - injected_s) / half_life_s)
    return values * weight_kg * 1000.0 / (dose_bq * decayed)


# Numbers and places


@pytest.mark.parametrize("quantity", [Quantity.SUVBW, Quantity.ACTIVITY_BQML])
@pytest.mark.parametrize("flip", ["", "zx"])
def test_a_reader_of_our_own_gets_the_volume_back(tmp_path: Path, quantity: Quantity, flip: str) -> None:
    source = loaded(tmp_path, quantity, flip=flip)
    volume = smoothed(source)
    images = derived_pet(volume, source, IDENTITY, SMOOTHED)
    back = load(save(images, tmp_path / "derived"), quantity, BERLIN)
    slopes = np.array([float(image.RescaleSlope) for image in images])[:, None, None]
    assert (np.abs(back.volume.array.astype(np.float64) - volume.array) <= slopes / 2 * (1 + 1e-6) + 1e-12).all()
    assert len(set(slopes.ravel())) == SHAPE[0], "a slope for every slice"
    assert np.abs(back.volume.affine - source.volume.affine).max() < 1e-6


@pytest.mark.parametrize(
    ("units", "quantity"),
    [("BQML", Quantity.SUVBW), ("GML", Quantity.SUVBW), ("BQML", Quantity.ACTIVITY_BQML)],
)
def test_a_viewer_computes_the_suv_of_the_engine(tmp_path: Path, units: str, quantity: Quantity) -> None:
    made = make.study(tmp_path, pet_shape=SHAPE, examination={"units": units})
    source = load(made.pet, quantity, BERLIN)
    images = written(source, source.volume.array * 0.5)
    position = {float(image.ImagePositionPatient[2]): viewer_suv(image) for image in images}
    for index, plane in enumerate(made.suv):
        found = position[float(np.round((made.affine @ [index, 0, 0, 1])[2], 6))]
        # half a slope of the source and half a slope of ours, of the same slice
        assert np.abs(found - 0.5 * plane).max() <= plane.max() * (0.5 / 65534 + 0.25 / 65534) + 1e-9


def test_stored_values_by_hand() -> None:
    """Unsigned: 65535 steps; 6.5535 / 65535 = 0.0001."""
    stored, slope = stored_values(np.array([[0.0, 6.5535], [0.00014, 3.0]], np.float32), signed=False)
    assert float(slope) == pytest.approx(1e-4, rel=1e-7)
    assert (stored.dtype, stored.tolist()) == (np.uint16, [[0, 65535], [1, 30000]])


def test_stored_values_with_negative_ones_by_hand() -> None:
    """Signed: 32767 steps to either side; 3.2767 / 32767 = 0.0001."""
    stored, slope = stored_values(np.array([[-3.2767, 1.5], [0.0, -0.00006]], np.float32), signed=True)
    assert float(slope) == pytest.approx(1e-4, rel=1e-7)
    assert (stored.dtype, stored.tolist()) == (np.int16, [[-32767, 15000], [0, -1]])


@pytest.mark.parametrize("highest", [1e-11, 1e-6, 1.0, 4e4, 1e8, 3e38])
def test_any_range_is_kept_to_half_a_slope(highest: float) -> None:
    plane = np.linspace(0.0, highest, 1000, dtype=np.float32).reshape(20, 50)
    stored, slope = stored_values(plane, signed=False)
    assert len(slope) <= 16
    assert stored.max() == 65535
    assert np.abs(stored * float(slope) - plane.astype(np.float64)).max() <= float(slope) / 2 * (1 + 1e-9)


@pytest.mark.parametrize("highest", [0.0, 1e-12, 1e-45])
@pytest.mark.parametrize("signed", [False, True])
def test_a_slice_of_nothing_has_a_harmless_slope(highest: float, *, signed: bool) -> None:
    stored, slope = stored_values(np.full((2, 3), highest, np.float32), signed=signed)
    assert (stored.tolist(), float(slope)) == ([[0, 0, 0], [0, 0, 0]], 1.0)


def test_empty_and_hot_slices_side_by_side(tmp_path: Path) -> None:
    source = loaded(tmp_path)
    array = np.zeros(SHAPE, np.float32)
    array[1, 2, 3], array[2] = 1e6, 1e-3
    images = written(source, array)
    assert [float(image.RescaleSlope) for image in images] == pytest.approx([1.0, 1e6 / 65535, 1e-3 / 65535, 1.0])
    assert [image.pixel_array.max() for image in images] == [0, 65535, 65535, 0]
    assert images[1].pixel_array[2, 3] == 65535


def test_negative_values_make_the_whole_series_signed(tmp_path: Path) -> None:
    source = loaded(tmp_path)
    array = source.volume.array.copy()
    array[2, 0, 0] = -0.75
    images = derived_pet(smoothed(source, array), source, IDENTITY, SMOOTHED)
    assert {image.PixelRepresentation for image in images} == {1}
    back = load(save(images, tmp_path / "derived"), Quantity.SUVBW, BERLIN)
    slope = float(images[2].RescaleSlope)
    assert back.volume.array[2, 0, 0] == pytest.approx(-0.75, abs=slope / 2 * 1.001)
    assert {image.PixelRepresentation for image in written(source)} == {0}


# What stands in the header


def test_pixels_are_what_the_pet_image_module_allows(tmp_path: Path) -> None:
    for image in written(loaded(tmp_path)):
        assert (image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation) == (16, 16, 15, 0)
        assert (image.SamplesPerPixel, image.PhotometricInterpretation) == (1, "MONOCHROME2")
        assert (image.RescaleIntercept, image.Rows, image.Columns) == (0, SHAPE[1], SHAPE[2])
        assert len(image.PixelData) == 2 * SHAPE[1] * SHAPE[2]


KEPT = """
    StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber PatientName PatientID PatientSex PatientWeight
    PatientSize FrameOfReferenceUID ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness
    SeriesDate SeriesTime AcquisitionDate AcquisitionTime ActualFrameDuration FrameReferenceTime DecayFactor
    DecayCorrection CorrectedImage CountsSource SeriesType ImageIndex NumberOfSlices BodyPartExamined
    RadiopharmaceuticalInformationSequence PatientOrientationCodeSequence AttenuationCorrectionMethod
"""


def test_the_meaning_of_the_source_is_kept(tmp_path: Path) -> None:
    source = loaded(tmp_path, edit=lambda dataset: setattr(dataset, "TimezoneOffsetFromUTC", "+0100"))
    for image, original in zip(written(source), source.datasets, strict=True):
        for keyword in (*KEPT.split(), "TimezoneOffsetFromUTC", "SpecificCharacterSet"):
            assert image[keyword].value == original[keyword].value, keyword


def test_what_is_new_says_so(tmp_path: Path) -> None:
    source = loaded(tmp_path)
    images = written(source)
    for index, (image, original) in enumerate(zip(images, source.datasets, strict=True)):
        assert image.ImageType == ["DERIVED", "PRIMARY"]
        assert image.SeriesDescription == "Smoothed threshold_segmentation RESEARCH USE ONLY"
        assert image.ContentQualification == "RESEARCH"
        assert image.DerivationCodeSequence[0].CodeValue == "113087"
        assert image.DerivationDescription == (
            "RESEARCH USE ONLY. Gaussian of 4 mm FWHM. threshold_segmentation 1.0.0, weights sha256 none"
        )
        (reference,) = image.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == original.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == original.SOPClassUID
        assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert reference.SpatialLocationsPreserved == "YES"
        assert (image.Units, image.SUVType) == ("GML", "BW")
        assert image.InstanceNumber == original.ImageIndex
        assert image.SOPInstanceUID == IDENTITY.uid("pet", "Smoothed instance", index)
        assert image.SeriesInstanceUID == IDENTITY.uid("pet", "Smoothed series")
    assert len({image.SOPInstanceUID for image in images} | {d.SOPInstanceUID for d in source.datasets}) == 2 * SHAPE[0]


def test_times_of_processing_stand_beside_those_of_the_scan(tmp_path: Path) -> None:
    """2 July 2026 00:30:15.25 in Berlin, where the node stands."""
    source = loaded(tmp_path)
    for image in written(source):
        assert (image.InstanceCreationDate, image.ContentDate) == ("20260702", "20260702")
        assert (image.InstanceCreationTime, image.ContentTime) == ("003015.250000", "003015.250000")
        assert image.SeriesDate == "20260302"
        assert image.SeriesTime == "093000.000000"


def test_the_equipment_is_the_scanner_then_us(tmp_path: Path) -> None:
    earlier = Dataset()
    earlier.Manufacturer = "another node"
    earlier.PurposeOfReferenceCodeSequence = [_code("109103", "DCM", "Modifying Equipment")]
    source = loaded(tmp_path, edit=lambda dataset: setattr(dataset, "ContributingEquipmentSequence", [earlier]))
    for image in written(source):
        scanner, other, ours = image.ContributingEquipmentSequence
        assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
        assert (scanner.Manufacturer, scanner.StationName) == ("SIMULATED", "SIMPETCT1")
        assert other == earlier
        assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert (ours.Manufacturer, ours.ManufacturerModelName) == ("tracerd", "threshold_segmentation")
        assert ours.ContributionDateTime == "20260702003015.250000+0200"
        assert image.Manufacturer == "tracerd"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


REPLACED = """
    SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue RescaleType WindowCenterWidthExplanation
    RealWorldValueMappingSequence IconImageSequence
"""


def test_what_described_other_pixels_is_gone(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = 0, 32767
        dataset.PixelPaddingValue = 0
        dataset.RescaleType = "US"
        dataset.WindowCenterWidthExplanation = "BRAIN"
        dataset.RealWorldValueMappingSequence = [Dataset()]
        dataset.IconImageSequence = [Dataset()]
        dataset.add_new(0x60000010, "US", 4)
        philips = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
        philips.add_new(0x00, "DS", "0.00123")
        philips.add_new(0x09, "DS", "4.5")

    for image in written(loaded(tmp_path, edit=edit)):
        for keyword in REPLACED.split():
            assert keyword not in image, keyword
        assert not [element for element in image if element.tag.group in {0x6000, 0x7053}]


def test_the_window_is_that_of_the_series(tmp_path: Path) -> None:
    assert {(i.WindowCenter, i.WindowWidth) for i in written(loaded(tmp_path / "suv"))} == {(5.0, 10.0)}
    source = loaded(tmp_path / "bqml", Quantity.ACTIVITY_BQML)
    top = float(source.volume.array.max())
    for image in written(source, source.volume.array):
        assert (float(image.WindowCenter), float(image.WindowWidth)) == pytest.approx((top / 2, top))
    # a linear window is at least 1 wide (PS3.3 C.11.2.1.2.1)
    assert {i.WindowWidth for i in written(source, source.volume.array * 0)} == {1.0}


def test_activity_stays_activity(tmp_path: Path) -> None:
    source = loaded(tmp_path, Quantity.ACTIVITY_BQML, change={"SUVType": "BW"})
    for image in written(source):
        assert image.Units == "BQML"
        assert "SUVType" not in image


def test_the_start_time_is_said_twice(tmp_path: Path) -> None:
    """Where the scanner sent the DateTime alone; in the object's zone where it carries another offset."""
    # 07:30 UTC is 08:30 at +0100, the offset of the object; tests/make.py injects an hour before 09:30
    plain = loaded(tmp_path / "plain", omit=["RadiopharmaceuticalStartTime"])
    (given,) = written(plain)[0].RadiopharmaceuticalInformationSequence
    stated = str(plain.datasets[0].RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime)
    assert str(given.RadiopharmaceuticalStartTime)[:6] == stated[8:14]
    assert "RadiopharmaceuticalStartTime" not in plain.datasets[0].RadiopharmaceuticalInformationSequence[0]
    aware = loaded(
        tmp_path / "aware",
        omit=["RadiopharmaceuticalStartTime"],
        change={"RadiopharmaceuticalStartDateTime": "20260302073000+0000"},
        edit=lambda dataset: setattr(dataset, "TimezoneOffsetFromUTC", "+0100"),
    )
    (given,) = written(aware)[0].RadiopharmaceuticalInformationSequence
    assert str(given.RadiopharmaceuticalStartTime)[:6] == "083000"
    sited = loaded(
        tmp_path / "sited",
        omit=["RadiopharmaceuticalStartTime"],
        change={"RadiopharmaceuticalStartDateTime": "20260302073000+0000"},
    )
    (given,) = written(sited)[0].RadiopharmaceuticalInformationSequence
    assert str(given.RadiopharmaceuticalStartTime)[:6] == "083000", "Berlin is at +0100 in March"


@pytest.mark.parametrize(
    ("position", "said"),
    [
        ("HFS", ("102538003", "40199007", "102540008")),
        ("FFDL", ("102538003", "102536004", "102541007")),
        ("FFP", ("102538003", "1240000", "102541007")),
        ("HFDR", ("102538003", "102535000", "102540008")),
    ],
)
def test_patient_position_is_said_in_codes(tmp_path: Path, position: str, said: tuple[str, str, str]) -> None:
    """PS3.16 CID 19, 20, 21 by value. Patient Position may not stand beside them, and a PET has them (C.7.3.1.1.2)."""
    empty = ["PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence"]
    source = loaded(tmp_path, omit=empty, edit=lambda dataset: setattr(dataset, "PatientPosition", position))
    for image in written(source):
        (orientation,), (entry,) = image.PatientOrientationCodeSequence, image.PatientGantryRelationshipCodeSequence
        (posture,) = orientation.PatientOrientationModifierCodeSequence
        assert (orientation.CodeValue, posture.CodeValue, entry.CodeValue) == said
        assert "PatientPosition" not in image
        assert source.datasets[0].PatientPosition == position


def test_a_position_without_codes_stays_as_it_is(tmp_path: Path) -> None:
    empty = ["PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence"]
    source = loaded(tmp_path, omit=empty, edit=lambda dataset: setattr(dataset, "PatientPosition", "LFS"))
    for image in written(source):
        assert (image.PatientPosition, len(image.PatientOrientationCodeSequence)) == ("LFS", 0)


@pytest.mark.parametrize(("series_type", "kept"), [("STATIC", False), ("GATED", True)])
def test_only_gates_have_a_trigger(tmp_path: Path, series_type: str, *, kept: bool) -> None:
    """Trigger Time and Frame Time are of gated images and may not be present otherwise (PS3.3 C.8.9.4)."""
    source = loaded(tmp_path)
    for original in source.datasets:
        original.SeriesType = [series_type, "IMAGE"]
        original.TriggerTime, original.FrameTime = "0", "100"
        original.NumberOfRRIntervals, original.NumberOfTimeSlots = 1, 1
    for image in written(source):
        for keyword in ("TriggerTime", "FrameTime", "NumberOfRRIntervals", "NumberOfTimeSlots"):
            assert (keyword in image) is kept, keyword


def test_a_rewritten_series_time_leaves_ges_scan_time_in_force(tmp_path: Path) -> None:
    """Decay is corrected to (0009,xx0d) where Series Time lies after the acquisition: it has to come along."""

    def edit(dataset: Dataset) -> None:
        if dataset.Modality == "PT":
            dataset.private_block(0x0009, "SOMEBODY ELSE", create=True).add_new(0x0D, "LO", "not this one")
            block = dataset.private_block(0x0009, "GEMS_PETD_01", create=True)
            block.add_new(0x0D, "DT", f"{dataset.SeriesDate}{dataset.SeriesTime}")
            block.add_new(0x11, "LO", "of no concern")
            dataset.SeriesTime = "235900"

    made = make.study(tmp_path, pet_shape=SHAPE, edit=edit)
    source = load(made.pet, Quantity.ACTIVITY_BQML, BERLIN)
    images = derived_pet(smoothed(source, source.volume.array), source, IDENTITY, SMOOTHED)
    assert [e.tag.elem for e in images[0] if e.tag.group == 0x0009] == [0x11, 0x110D]
    suv = load(made.pet, Quantity.SUVBW, BERLIN)
    back = load(save(images, tmp_path / "derived"), Quantity.SUVBW, BERLIN)
    assert "GE" in suv.suv_reference and "GE" in back.suv_reference
    assert back.volume.array == pytest.approx(suv.volume.array, rel=1e-4, abs=1e-4)


def test_image_indices_of_the_source_order_the_copies(tmp_path: Path) -> None:
    source = loaded(tmp_path, flip="z")
    originals = [int(dataset.ImageIndex) for dataset in source.datasets]
    assert originals == [4, 3, 2, 1], "the source counts against z"
    assert [image.ImageIndex for image in written(source)] == originals
    for wrong in (None, 1):
        spoilt = loaded(tmp_path / str(wrong), change={"ImageIndex": wrong})
        assert [image.ImageIndex for image in written(spoilt)] == [1, 2, 3, 4]


def test_the_same_job_writes_the_same_bytes(tmp_path: Path) -> None:
    source = loaded(tmp_path)
    once, again = ([header.encode(i) for i in derived_pet(smoothed(source), source, IDENTITY, SMOOTHED)] for _ in "ab")
    assert once == again
    other = derived_pet(smoothed(source), source, IDENTITY, replace(SMOOTHED, name="Denoised"))
    assert other[0].SeriesInstanceUID != pydicom.dcmread(save(other, tmp_path / "o")[0]).SOPInstanceUID
    assert {image.SOPInstanceUID for image in other}.isdisjoint(findings.reread(b).SOPInstanceUID for b in once)


def test_images_that_share_elements_are_told_apart(tmp_path: Path) -> None:
    """Also as data sets in memory, before they are encoded."""
    source = loaded(tmp_path)
    images = derived_pet(smoothed(source), source, IDENTITY, SMOOTHED)
    for index, image in enumerate(images):
        assert image.SOPInstanceUID == IDENTITY.uid("pet", "Smoothed instance", index)
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert image.InstanceNumber == image.ImageIndex == source.datasets[index].ImageIndex


def test_the_source_is_left_as_it_was(tmp_path: Path) -> None:
    source = loaded(tmp_path, omit=["RadiopharmaceuticalStartTime"])
    before = [dataset.to_json() for dataset in source.datasets]
    written(source)
    assert [dataset.to_json() for dataset in source.datasets] == before


# Refusals


def test_a_volume_that_is_not_on_the_grid_is_refused(tmp_path: Path) -> None:
    source = loaded(tmp_path)
    volume = smoothed(source)
    shifted, turned = volume.affine.copy(), volume.affine.copy()
    shifted[0, 3] += 0.02
    turned[:, [1, 2]] = turned[:, [2, 1]]
    for wrong in (
        Volume(volume.array[:3], volume.affine, volume.quantity),
        Volume(volume.array, shifted, volume.quantity),
        Volume(volume.array, turned, volume.quantity),
        Volume(volume.array, volume.affine * np.nan, volume.quantity),
    ):
        error = refusal(source, wrong)
        assert (type(error), error.code) == (GeometryRefused, "not-source-grid")
        assert "engine" in error.hint
    shifted[0, 3] -= 0.015
    assert derived_pet(Volume(volume.array, shifted, volume.quantity), source, IDENTITY, SMOOTHED)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    source = loaded(tmp_path)
    array = source.volume.array.copy()
    array[1, 2, 3] = value
    error = refusal(source, smoothed(source, array))
    assert (type(error), error.code) == (PixelsRefused, "not-finite")
    assert "1 of 120" in str(error)


def test_another_quantity_than_the_sources_is_refused(tmp_path: Path) -> None:
    source = loaded(tmp_path)
    volume = Volume(source.volume.array, source.volume.affine, Quantity.ACTIVITY_BQML)
    error = refusal(source, volume)
    assert (type(error), error.code) == (QuantityRefused, "not-source-quantity")


def test_a_ct_is_refused(tmp_path: Path) -> None:
    made = make.study(tmp_path, pet_shape=SHAPE, ct_shape=(8, 12, 10))
    source = load(made.ct, Quantity.HU, UTC)
    error = refusal(source, source.volume)  # type: ignore[arg-type]
    assert (type(error), error.code) == (QuantityRefused, "sop-class")


@pytest.mark.parametrize(
    "keyword",
    ["PatientWeight", "RadionuclideTotalDose", "RadionuclideHalfLife", "SeriesTime", "SeriesDate", "DecayCorrection"],
)
@pytest.mark.parametrize("empty", [None, "omit"])
def test_suv_that_no_viewer_could_show_is_refused(tmp_path: Path, keyword: str, empty: str | None) -> None:
    """A series in GML can be read without all of these; what we add to a PACS must be usable there."""
    source = loaded(tmp_path, examination={"units": "GML"})
    for original in source.datasets:
        (item,) = original.RadiopharmaceuticalInformationSequence
        owner = item if keyword in item else original
        if empty == "omit":
            delattr(owner, keyword)
        else:
            setattr(owner, keyword, None)
    error = refusal(source, smoothed(source))
    assert (type(error), error.code) == (QuantityRefused, "derived-header")
    assert keyword in str(error)


def test_suv_without_any_time_of_injection_is_refused(tmp_path: Path) -> None:
    source = loaded(
        tmp_path,
        omit=["RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime"],
        examination={"units": "GML"},
    )
    assert "RadiopharmaceuticalStartTime" in str(refusal(source, smoothed(source)))


def test_activity_needs_no_weight(tmp_path: Path) -> None:
    source = loaded(tmp_path, Quantity.ACTIVITY_BQML, omit=["PatientWeight"])
    assert len(written(source)) == SHAPE[0]


def test_suv_of_a_series_without_decay_correction_is_refused(tmp_path: Path) -> None:
    """SUV is corrected for decay; the header of the copy would say that it is not."""
    none = {"decay_correction": "NONE"}
    source = loaded(tmp_path / "suv", examination=none)
    assert refusal(source, smoothed(source)).code == "no-decay-correction"
    activity = loaded(tmp_path / "activity", Quantity.ACTIVITY_BQML, examination=none)
    for image in written(activity):
        assert (image.DecayCorrection, image.Units) == ("NONE", "BQML")
        assert "DecayFactor" not in image and "DECY" not in image.CorrectedImage


# Series over time

DURATIONS_S = (10.0, 10.0, 10.0, 20.0, 30.0, 60.0, 120.0)


def over_time(folder: Path) -> tuple[LoadedSeries, DynamicVolume]:
    """A source of seven frames, and something computed from it: with negative values, and an empty slice."""
    source = load(findings.dynamic_series(folder, SHAPE, DURATIONS_S), Quantity.ACTIVITY_BQML, BERLIN)
    assert isinstance(source.volume, DynamicVolume)
    array = source.volume.array * np.linspace(0.25, 1.75, SHAPE[0], dtype=np.float32)[:, None, None] - 200.0
    array[3, 1] = 0.0
    return source, replace(source.volume, array=array)


def read_by_hand(paths: Sequence[Path]) -> dict[tuple[float, float], tuple[NDArray[np.float64], float]]:
    """(seconds since the series began, z [mm]) → values and slope of every image; pydicom and numpy alone."""
    found = {}
    for path in paths:
        image = pydicom.dcmread(path)
        assert image.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        stored = np.frombuffer(image.PixelData, "<i2" if image.PixelRepresentation else "<u2")
        slope = float(image.RescaleSlope)
        assert float(image.RescaleIntercept) == 0.0
        start_s = seconds(image.AcquisitionTime) - seconds(image.SeriesTime)
        z_mm = float(image.ImagePositionPatient[2])
        found[start_s, z_mm] = (stored.reshape(image.Rows, image.Columns) * slope, slope)
    assert len(found) == len(paths), "two images of one place and time"
    return found


def test_a_series_over_time_is_within_half_a_slope_by_an_independent_reader(tmp_path: Path) -> None:
    source, volume = over_time(tmp_path / "source")
    paths = findings.save(derived_pet(volume, source, IDENTITY, SMOOTHED), tmp_path / "derived")
    found = read_by_hand(paths)
    for t, start_s in enumerate(np.cumsum([0.0, *DURATIONS_S[:-1]])):
        for z in range(SHAPE[0]):
            z_mm = float(np.round((volume.affine @ [z, 0, 0, 1])[2], 6))
            values, slope = found[start_s, z_mm]
            # stored values are whole numbers, volumes float32: 2⁻²⁴ of 32767 slopes is 0.4 % of half a slope
            assert np.abs(values - volume.array[t, z]).max() <= slope / 2 * 1.005
    assert len({slope for _, slope in found.values()}) == len(paths), "a slope for every slice of every frame"


def test_a_series_over_time_stays_one_to_our_own_reader(tmp_path: Path) -> None:
    source, volume = over_time(tmp_path / "source")
    images = derived_pet(volume, source, IDENTITY, SMOOTHED)
    # files in an order of their own: the frames must be told by what is in them
    paths = findings.save(images, tmp_path / "derived")
    back = load(paths[::3] + paths[1::3] + paths[2::3], Quantity.ACTIVITY_BQML, BERLIN).volume
    assert isinstance(back, DynamicVolume)
    assert back.frame_start_s == pytest.approx(volume.frame_start_s)
    assert back.frame_duration_s == pytest.approx(volume.frame_duration_s)
    slopes = np.array([float(image.RescaleSlope) for image in images]).reshape(*volume.array.shape[:2], 1, 1)
    assert (np.abs(back.array - volume.array) <= slopes / 2 * 1.005).all()


def test_a_series_over_time_keeps_what_orders_it(tmp_path: Path) -> None:
    source, volume = over_time(tmp_path / "source")
    images = derived_pet(volume, source, IDENTITY, SMOOTHED)
    for image, original in zip(images, source.datasets, strict=True):
        for keyword in ("SeriesType", "ImageIndex", "FrameReferenceTime", "ActualFrameDuration", "DecayFactor"):
            assert image[keyword].value == original[keyword].value, keyword
        assert image.AcquisitionTime == original.AcquisitionTime
        assert (image.NumberOfSlices, image.NumberOfTimeSlices) == (SHAPE[0], len(DURATIONS_S))
        (reference,) = image.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == original.SOPInstanceUID
    assert {image.PixelRepresentation for image in images} == {1}
    assert images[0].SeriesType == ["DYNAMIC", "IMAGE"]


def test_frames_at_other_times_are_refused(tmp_path: Path) -> None:
    source, volume = over_time(tmp_path / "source")
    late = replace(volume, frame_start_s=volume.frame_start_s + 1.0)
    assert refusal(source, late).code == "not-source-frames"
    assert refusal(source, volume.frame(0)).code == "not-source-grid"


# The validator and the real studies


def complaints(path: Path) -> set[str]:
    """Errors of dciodvfy in both of its modes, without the values they quote."""
    from tests.wire.test_validators import errors

    return set(errors(path, information_object="PETImage"))


@pytest.mark.parametrize(
    ("quantity", "more"),
    [
        (Quantity.SUVBW, {}),
        (Quantity.ACTIVITY_BQML, {}),
        (Quantity.SUVBW, {"flip": "zy", "examination": {"beds": 2}}),
        (Quantity.ACTIVITY_BQML, {"examination": {"decay_correction": "NONE"}}),
        (Quantity.SUVBW, {"omit": ["CollimatorType", "PatientOrientationCodeSequence", "PositionReferenceIndicator"]}),
    ],
    ids=["suv", "activity", "beds", "no-decay-correction", "bare"],
)
def test_dciodvfy_finds_no_error(tmp_path: Path, quantity: Quantity, more: dict[str, Any]) -> None:
    source = loaded(tmp_path / "source", quantity, **more)
    array = source.volume.array.copy()
    signed = array.copy()
    signed[0, 0, 0] = -1.0
    for name, values in (("unsigned", array), ("signed", signed), ("empty", array * 0)):
        images = derived_pet(smoothed(source, values), source, IDENTITY, SMOOTHED)
        path = save(images[:1], tmp_path / name)[0]
        assert complaints(path) == set(), name


def test_dciodvfy_finds_no_error_in_a_dynamic_series(tmp_path: Path) -> None:
    """The phantom twice, the second time a frame later and half as hot."""
    made = make.study(tmp_path / "source", pet_shape=SHAPE)
    paths = []
    for frame in range(2):
        for path in made.pet:
            image = pydicom.dcmread(path)
            duration_s = float(image.ActualFrameDuration) / 1000.0
            acquired = datetime.strptime(image.AcquisitionDate + image.AcquisitionTime, "%Y%m%d%H%M%S.%f")
            acquired += timedelta(seconds=frame * duration_s)
            image.AcquisitionDate, image.AcquisitionTime = f"{acquired:%Y%m%d}", f"{acquired:%H%M%S}"
            image.FrameReferenceTime = float(image.FrameReferenceTime) + frame * duration_s * 1000.0
            image.SeriesType, image.NumberOfTimeSlices = ["DYNAMIC", "IMAGE"], 2
            image.ImageIndex += frame * SHAPE[0]
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{image.SOPInstanceUID[:-1]}{frame}"
            image.RescaleSlope = float(image.RescaleSlope) / (frame + 1)
            paths.append(make.save(image, tmp_path / "dynamic" / f"{frame}{path.name}"))
    source = load(paths, Quantity.SUVBW, BERLIN)
    assert isinstance(source.volume, DynamicVolume)
    images = derived_pet(source.volume, source, IDENTITY, SMOOTHED)
    assert [image.ImageIndex for image in images] == list(range(1, 2 * SHAPE[0] + 1))
    assert {(image.NumberOfSlices, image.NumberOfTimeSlices) for image in images} == {(SHAPE[0], 2)}
    for path in save(images, tmp_path / "derived")[:: SHAPE[0]]:
        assert complaints(path) == set()
    one_frame = Volume(source.volume.array[0], source.volume.affine, source.volume.quantity)
    assert refusal(source, one_frame).code == "not-source-grid"


@pytest.mark.parametrize("study", ["STS_001", "STS_020"])
def test_a_real_series_comes_back(tmp_path: Path, study: str) -> None:
    """Half of each value, read by pydicom and numpy alone; no error of dciodvfy that the source has not."""
    files = sorted((peers.unpack_sarcoma(study) / "PET" / "image").glob("*.dcm"))
    source = load(files, Quantity.SUVBW, BERLIN)
    half = Volume(source.volume.array * np.float32(0.5), source.volume.affine, source.volume.quantity)
    images = derived_pet(half, source, IDENTITY, SMOOTHED)
    paths = save(images, tmp_path)
    originals = {str(o.SOPInstanceUID): o for o in map(pydicom.dcmread, files)}
    for path in paths:
        image = pydicom.dcmread(path)
        original = originals[image.SourceImageSequence[0].ReferencedSOPInstanceUID]
        slope = float(image.RescaleSlope)
        wanted = original.pixel_array * float(original.RescaleSlope) * 0.5
        # the volume is float32: 2⁻²⁴ of 65535 slopes is 0.8 % of half a slope
        assert np.abs(image.pixel_array * slope - wanted).max() <= slope / 2 * 1.01
        for keyword in ("ImagePositionPatient", "SeriesTime", "FrameReferenceTime", "DecayFactor", "PatientWeight"):
            assert image[keyword].value == original[keyword].value
    of_source = complaints(Path(str(originals[images[0].SourceImageSequence[0].ReferencedSOPInstanceUID].filename)))
    assert complaints(paths[0]) <= of_source
