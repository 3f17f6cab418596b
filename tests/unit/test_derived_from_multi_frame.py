"""Derived PET of multi-frame sources: single-frame images whose numbers, times and references are the frames'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedPETImageStorage, PositronEmissionTomographyImageStorage

from dicom_io.errors import QuantityRefused
from dicom_io.volume import LoadedSeries, load
from dicom_io.write.objects import objects
from dicom_io.write.pet import Derivation, derived_pet
from engines.contract import DynamicVolume, Quantity, Volume
from tests import findings, make, make_enhanced
from tests.findings import BERLIN, IDENTITY
from tests.make_enhanced import DOSE_MBQ, HALF_LIFE_S, INJECTED, STARTED, WEIGHT_KG, enhanced_pet, pixels
from tests.unit.test_enhanced_results import ORDER, SHAPE, SOURCES
from tests.unit.test_pet_writer import complaints, seconds, viewer_suv

SMOOTHED = Derivation("Smoothed", codes.cid7203.Smoothing, "Gaussian of 4 mm FWHM.")
DURATIONS_S = (10.0, 20.0, 60.0)
SUV_PER_BQML = (
    WEIGHT_KG * 1000.0 / (DOSE_MBQ * 1e6 * exp(-log(2.0) * (STARTED - INJECTED).total_seconds() / HALF_LIFE_S))
)


def one(folder: Path, frames: Sequence[make_enhanced.Frame], quantity: Quantity, **more: Any) -> LoadedSeries:
    dataset = enhanced_pet(frames, pixels(len(frames), *SHAPE[1:]), **more)
    return load([make.save(dataset, folder / "enhanced.dcm")], quantity, BERLIN)


def dynamic(folder: Path, **more: Any) -> LoadedSeries:
    return one(folder, make_enhanced.dynamic(SHAPE[0], DURATIONS_S), Quantity.ACTIVITY_BQML, **more)


def derived(source: LoadedSeries, folder: Path, volume: Volume | DynamicVolume | None = None) -> list[Dataset]:
    """Half of every value, or a volume, written and read again by pydicom."""
    if volume is None:
        volume = replace(source.volume, array=source.volume.array * np.float32(0.5))
    return [pydicom.dcmread(p) for p in findings.save(derived_pet(volume, source, IDENTITY, SMOOTHED), folder)]


def values(image: Dataset) -> NDArray[np.float64]:
    stored = np.frombuffer(image.PixelData, "<i2" if image.PixelRepresentation else "<u2")
    return stored.reshape(image.Rows, image.Columns) * float(image.RescaleSlope)


def z_of(image: Dataset) -> int:
    return round(float(image.ImagePositionPatient[2]) / make_enhanced.SPACING_MM[0])


def test_suv_by_an_independent_computation(tmp_path: Path) -> None:
    """What the builder put into the frames, by hand, against what a viewer computes from our images."""
    source = SOURCES["enhanced"](tmp_path)
    truth = pixels(*SHAPE) * np.array([frame.slope for frame in make_enhanced.static(SHAPE[0])])[:, None, None]
    for image in derived(source, tmp_path / "derived"):
        expected = truth[z_of(image)] * SUV_PER_BQML * 0.5
        assert np.abs(viewer_suv(image) - expected).max() <= float(image.RescaleSlope) / 2 * 1.01


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("quantity", [Quantity.SUVBW, Quantity.ACTIVITY_BQML])
def test_a_reader_of_our_own_gets_the_volume_back(tmp_path: Path, name: str, quantity: Quantity) -> None:
    SOURCES[name](tmp_path)
    source = load(sorted(tmp_path.glob("*.dcm")), quantity, BERLIN)
    volume = replace(source.volume, array=source.volume.array * np.float32(0.5))
    images = derived_pet(volume, source, IDENTITY, SMOOTHED)
    paths = findings.save(images, tmp_path / "derived")
    slopes = np.array([float(image.RescaleSlope) for image in images])[:, None, None]
    back = load(paths, quantity, BERLIN)
    assert (np.abs(back.volume.array.astype(np.float64) - volume.array) <= slopes / 2 * 1.01).all()
    assert back.volume.affine == pytest.approx(source.volume.affine)
    suv = load(paths, Quantity.SUVBW, BERLIN).volume.array, findings.series(sorted(tmp_path.glob("*.dcm"))).volume.array
    assert suv[0] == pytest.approx(suv[1] * 0.5, rel=1e-3, abs=float(suv[1].max()) * 1e-5)
    for path in paths:
        assert complaints(path) == set()


@pytest.mark.parametrize("name", SOURCES)
def test_every_image_names_its_frame(tmp_path: Path, name: str) -> None:
    source = SOURCES[name](tmp_path)
    originals = [pydicom.dcmread(path) for path in sorted(tmp_path.glob("*.dcm"))]
    images = derived(source, tmp_path / "derived")
    assert len(images) == SHAPE[0]
    for image in images:
        assert image.SOPClassUID == PositronEmissionTomographyImageStorage
        assert "ReferencedFrameNumber" not in image and "NumberOfFrames" not in image
        (item,) = image.SourceImageSequence
        (original,) = (one for one in originals if one.SOPInstanceUID == item.ReferencedSOPInstanceUID)
        assert item.ReferencedSOPClassUID == original.SOPClassUID
        groups = original.PerFrameFunctionalGroupsSequence[int(item.ReferencedFrameNumber) - 1]
        assert groups.PlanePositionSequence[0].ImagePositionPatient == image.ImagePositionPatient
        assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert item.SpatialLocationsPreserved == "YES"


def test_what_an_enhanced_object_says_in_its_own_way(tmp_path: Path) -> None:
    """By the builder: decay is corrected to 09:30, while Series Time is that of the reconstruction."""
    source = SOURCES["enhanced"](tmp_path)
    for image in derived(source, tmp_path / "derived"):
        assert (image.SeriesDate, image.SeriesTime) == ("20260302", "093000.000000")
        assert (image.AcquisitionDate, image.AcquisitionTime) == ("20260302", "093000.000000")
        assert (image.ActualFrameDuration, image.FrameReferenceTime) == (180000, 90000.0)
        assert (image.DecayCorrection, image.CountsSource) == ("START", "EMISSION")
        assert set(image.CorrectedImage) == {"DECY", "ATTN", "SCAT", "DTIM", "CLN", "RAN", "DCAL", "NORM"}
        assert list(image.SeriesType) == ["STATIC", "IMAGE"]
        decays = log(2.0) / HALF_LIFE_S * 180.0
        assert float(image.DecayFactor) == pytest.approx(decays / (1.0 - exp(-decays)))
        (given,) = image.RadiopharmaceuticalInformationSequence
        assert float(given.RadionuclideTotalDose) == DOSE_MBQ * 1e6
        assert given.RadiopharmaceuticalStartTime == "083000"
        assert "RadiopharmaceuticalAgentNumber" not in given
        assert image.AnatomicRegionSequence[0].CodeValue == "38266002"
    indices = {z_of(image): image.ImageIndex for image in derived(source, tmp_path / "again")}
    assert indices == {z: z + 1 for z in range(SHAPE[0])}


def test_a_dose_that_is_in_becquerel_stays(tmp_path: Path) -> None:
    def in_bq(dataset: Dataset) -> None:
        dataset.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose = "350000000"

    source = one(tmp_path, make_enhanced.static(SHAPE[0]), Quantity.SUVBW, edit=in_bq)
    (given,) = derived(source, tmp_path / "derived")[0].RadiopharmaceuticalInformationSequence
    assert float(given.RadionuclideTotalDose) == 350e6


def test_times_of_a_zone_are_written_on_the_clock_of_the_object(tmp_path: Path) -> None:
    """08:30 UTC is 09:30 in Berlin in March."""

    def with_offsets(dataset: Dataset) -> None:
        dataset.DecayCorrectionDateTime = "20260302083000+0000"
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            content = groups.FrameContentSequence[0]
            content.FrameAcquisitionDateTime = "20260302083000+0000"
            content.FrameReferenceDateTime = "20260302083130+0000"

    source = one(tmp_path, make_enhanced.static(SHAPE[0]), Quantity.ACTIVITY_BQML, edit=with_offsets)
    for image in derived(source, tmp_path / "derived"):
        assert (image.SeriesTime, image.AcquisitionTime) == ("093000.000000", "093000.000000")
        assert image.FrameReferenceTime == 90000.0


def test_a_series_over_time(tmp_path: Path) -> None:
    source = dynamic(tmp_path)
    assert isinstance(source.volume, DynamicVolume)
    truth = pixels(len(DURATIONS_S) * SHAPE[0], *SHAPE[1:]).astype(np.float64)
    truth *= np.array([f.slope for f in make_enhanced.dynamic(SHAPE[0], DURATIONS_S)])[:, None, None]
    images = derived(source, tmp_path / "derived")
    starts_s = np.cumsum([0.0, *DURATIONS_S[:-1]]).tolist()
    for image in images:
        t = starts_s.index(seconds(image.AcquisitionTime) - seconds("093000"))
        frame = t * SHAPE[0] + z_of(image)
        assert np.abs(values(image) - truth[frame] * 0.5).max() <= float(image.RescaleSlope) / 2 * 1.01
        assert image.SourceImageSequence[0].ReferencedFrameNumber == frame + 1
        assert image.ActualFrameDuration == DURATIONS_S[t] * 1000
        assert image.FrameReferenceTime == (starts_s[t] + DURATIONS_S[t] / 2) * 1000
        assert (image.NumberOfSlices, image.NumberOfTimeSlices) == (SHAPE[0], len(DURATIONS_S))
    paths = sorted((tmp_path / "derived").glob("*.dcm"))
    assert {complaint for path in paths for complaint in complaints(path)} == set()
    back = load(paths, Quantity.ACTIVITY_BQML, BERLIN).volume
    assert isinstance(back, DynamicVolume)
    assert back.frame_start_s == pytest.approx(source.volume.frame_start_s)
    assert back.frame_duration_s == pytest.approx(DURATIONS_S)


def test_a_map_of_a_series_over_time_names_all_frames_of_its_place(tmp_path: Path) -> None:
    source = dynamic(tmp_path)
    flow = Volume(source.volume.array[0] * np.float32(1e-4), source.volume.affine, Quantity.MBF)
    images = derived(source, tmp_path / "derived", flow)
    assert len(images) == SHAPE[0]
    for image in images:
        (item,) = image.SourceImageSequence
        z = z_of(image)
        assert list(item.ReferencedFrameNumber) == [z + 1, z + 1 + SHAPE[0], z + 1 + 2 * SHAPE[0]]
        assert (list(image.SeriesType), image.ActualFrameDuration) == (["STATIC", "IMAGE"], 90000)
        assert image.FrameReferenceTime == 45000.0
    assert complaints(tmp_path / "derived" / "0000.dcm") == set()


def test_a_series_without_decay_correction_counts_from_its_first_frame(tmp_path: Path) -> None:
    """Series Time of the builder is that of the reconstruction, at noon: nothing is counted from there."""
    frames = [replace(f, start_s=60.0 * f.z) for f in make_enhanced.static(SHAPE[0])]

    def no_factor(dataset: Dataset) -> None:
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            del groups.PETFrameCorrectionFactorsSequence[0].DecayFactor

    source = one(tmp_path, frames, Quantity.ACTIVITY_BQML, decay_corrected_to=None, edit=no_factor)
    for image in derived(source, tmp_path / "derived"):
        assert (image.SeriesTime, image.DecayCorrection) == ("093000.000000", "NONE")
        assert image.FrameReferenceTime == 60e3 * z_of(image) + 90e3
        assert "DecayFactor" not in image and "DECY" not in image.CorrectedImage
        assert complaints(Path(image.filename)) == set()


def test_decay_corrected_to_the_injection(tmp_path: Path) -> None:
    frames = make_enhanced.static(SHAPE[0])
    source = one(tmp_path, frames, Quantity.ACTIVITY_BQML, decay_corrected_to=STARTED - timedelta(hours=1))
    assert STARTED - timedelta(hours=1) == INJECTED
    for image in derived(source, tmp_path / "derived"):
        expected = values(image) * WEIGHT_KG * 1000.0 / (DOSE_MBQ * 1e6)
        assert viewer_suv(image) == pytest.approx(expected)
        assert (image.SeriesTime, image.FrameReferenceTime) == ("083000.000000", 3690e3)
    back = load(sorted((tmp_path / "derived").glob("*.dcm")), Quantity.SUVBW, BERLIN).static.array
    expected = source.static.array * 0.5 * WEIGHT_KG * 1000.0 / (DOSE_MBQ * 1e6)
    assert back == pytest.approx(expected, abs=float(expected.max()) / 65535)


# Refusals


def _of_frames(macro: str, keyword: str) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            del groups[macro][0][keyword]

    return edit


@pytest.mark.parametrize(
    ("edit", "missing"),
    [
        (_of_frames("FrameContentSequence", "FrameReferenceDateTime"), "FrameReferenceTime"),
        (_of_frames("PETFrameCorrectionFactorsSequence", "DecayFactor"), "DecayFactor"),
        (lambda dataset: dataset.pop("DecayCorrectionDateTime"), "DecayCorrection"),
    ],
    ids=["reference-time", "decay-factor", "decay-correction"],
)
def test_what_no_honest_value_exists_for_is_refused(
    tmp_path: Path, edit: Callable[[Dataset], None], missing: str
) -> None:
    source = one(tmp_path, make_enhanced.static(SHAPE[0]), Quantity.ACTIVITY_BQML, edit=edit)
    with pytest.raises(QuantityRefused, match=missing) as caught:
        derived_pet(source.volume, source, IDENTITY, SMOOTHED)
    assert caught.value.code == "derived-header"
    assert "scanner" in caught.value.hint


def test_gates_are_refused_by_what_they_lack(tmp_path: Path) -> None:
    """An enhanced gate has no Frame Time: triggers may lie anywhere in the heartbeat."""
    source = one(tmp_path, make_enhanced.gated(SHAPE[0], [0.0, 400.0]), Quantity.ACTIVITY_BQML)
    with pytest.raises(QuantityRefused, match="NumberOfRRIntervals, NumberOfTimeSlots") as caught:
        derived_pet(source.volume, source, IDENTITY, SMOOTHED)
    assert caught.value.code == "derived-header"
    assert "TriggerTime" not in str(caught.value), "0 ms is a time"


# The other writers


def test_all_kinds_of_objects_from_frames(tmp_path: Path) -> None:
    source = SOURCES["enhanced"](tmp_path)
    found = replace(findings.products(source), volumes={"Denoised": source.static})
    kinds = [each.kind for each in objects(found, source, IDENTITY, ("seg", "labelmap", "rtstruct", "sr", "pet"))]
    assert kinds == ["seg", "sr", "labelmap", "rtstruct", *["pet"] * SHAPE[0]]


def test_a_source_is_left_as_it_is(tmp_path: Path) -> None:
    source = SOURCES["enhanced"](tmp_path)
    before = [dataset.to_json() for dataset in source.datasets]
    assert {dataset.SOPClassUID for dataset in source.datasets} == {EnhancedPETImageStorage}
    assert [int(dataset.ReferencedFrameNumber) for dataset in source.datasets] == [ORDER.index(z) + 1 for z in range(6)]
    derived(source, tmp_path / "derived")
    assert [dataset.to_json() for dataset in source.datasets] == before
