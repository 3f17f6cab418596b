"""What the simulated scanner sends: values, times, geometry, identifiers, and clean IODs."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_io import headers, volume
from dicom_io.corrections import is_attenuation_corrected
from dicom_io.errors import QuantityRefused
from dicom_io.write.scanner import Examination, hashed_uids, write
from engines.contract import Acquisition, DynamicVolume, Quantity, Volume
from tests import make
from tests.processes import program

HOUR_EAST = timezone(timedelta(hours=1))
STARTED = datetime(2026, 3, 2, 0, 20, 30, 250000, tzinfo=HOUR_EAST)
AXIAL = np.array([[0, 0, 2.0, -10], [0, 3.0, 0, -20], [4.0, 0, 0, 100], [0, 0, 0, 1]])


def acquisition(**changes: object) -> Acquisition:
    """4 slices of 2 × 3 voxels; 70 kg, 350 MBq F-18, half-life 6000 s, one half-life of uptake, 60 s per frame."""
    suv = np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 4.0
    scan = Acquisition(
        pet=Volume(suv, AXIAL, Quantity.SUVBW),
        ct=Volume(np.full((2, 2, 2), 40.0, dtype=np.float32), AXIAL, Quantity.HU),
        tracer="FDG",
        radionuclide="F-18",
        half_life_s=6000.0,
        dose_bq=350e6,
        weight_kg=70.0,
        height_m=1.75,
        sex="F",
        uptake_s=6000.0,
        frame_duration_s=60.0,
        seed=11,
    )
    return replace(scan, **changes)


def pets(scan: Acquisition | None = None, **examination: object) -> list[Dataset]:
    instances = write(
        scan or acquisition(), Examination(**{"started": STARTED, **examination}), new_uid=hashed_uids("test")
    )
    return [dataset for dataset in instances if dataset.Modality == "PT"]


def saved(folder: Path, datasets: list[Dataset]) -> list[Path]:
    return [make.save(dataset, folder / f"{number:03d}.dcm") for number, dataset in enumerate(datasets)]


TERMS_OF_GE = ("Unrecognized defined term = <RANSNG>", "Unrecognized defined term = <SLSENS>")
"""Real scanners send them in Corrected Image (0028,0051); dciodvfy does not know them and warns."""


def complaints_of(paths: list[Path]) -> list[str]:
    """Errors and warnings of dciodvfy."""
    lines: list[str] = []
    for path in paths:
        done = subprocess.run([program("dciodvfy"), "-new", str(path)], capture_output=True, text=True, timeout=60)
        found = [line for line in done.stderr.splitlines() if "Error" in line or "Warning" in line]
        lines += [line for line in found if not line.startswith("Warning") or not line.endswith(TERMS_OF_GE)]
        assert lines or done.returncode == 0
    return lines


def rescaled(dataset: Dataset) -> np.ndarray:
    stored = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
    return stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


# Bq/mL per g/mL: 350e6 Bq / 70 000 g = 5000 at injection, 2500 one half-life later.
# A 60 s frame: λT = ln2 · 60 / 6000 = 0.00693147; λT / (1 − e^−λT) = 1.00346974, 2500 / 1.00346974 = 2491.3557.
@pytest.mark.parametrize(
    ("units", "decay", "factor"),
    [("BQML", "START", 2500.0), ("BQML", "ADMIN", 5000.0), ("BQML", "NONE", 2491.3557), ("GML", "START", 1.0)],
)
def test_stored_values_are_the_suv_in_the_written_units(units: str, decay: str, factor: float) -> None:
    written = pets(units=units, decay_correction=decay)
    for index, dataset in enumerate(written):
        suv = np.arange(6).reshape(2, 3) / 4.0 + 1.5 * index
        rounding = float(dataset.RescaleSlope) / 2.0
        np.testing.assert_allclose(rescaled(dataset), suv * factor, rtol=1e-6, atol=rounding * 1.001)
        assert (dataset.Units, dataset.DecayCorrection) == (units, decay)
        assert ("DECY" in dataset.CorrectedImage) is (decay != "NONE")
    assert [dataset.get("SUVType") for dataset in written] == ["BW" if units == "GML" else None] * 4


def test_every_slice_has_its_own_slope_that_uses_fifteen_bits() -> None:
    slopes = [float(dataset.RescaleSlope) for dataset in pets()]
    # Hottest voxels 1.25, 2.75, 4.25, 5.75 g/mL × 2500 Bq/mL / 32767
    assert slopes == pytest.approx([0.0953703, 0.2098147, 0.3242592, 0.4387036], rel=1e-6)
    assert {np.frombuffer(dataset.PixelData, "<u2").max() for dataset in pets()} == {32767}


def test_an_empty_slice_has_slope_one() -> None:
    scan = acquisition(pet=Volume(np.zeros((2, 2, 2), np.float32), AXIAL, Quantity.SUVBW))
    assert [float(dataset.RescaleSlope) for dataset in pets(scan)] == [1.0, 1.0]


def test_times_are_local_and_the_injection_lies_on_the_day_before() -> None:
    dataset = pets()[0]
    assert (dataset.SeriesDate, dataset.SeriesTime) == ("20260302", "002030.250000")
    assert (dataset.AcquisitionDate, dataset.AcquisitionTime) == ("20260302", "002030.250000")
    injection = dataset.RadiopharmaceuticalInformationSequence[0]
    # 00:20:30.25 − 6000 s = 22:40:30.25
    assert injection.RadiopharmaceuticalStartDateTime == "20260301224030.250000"
    assert injection.RadiopharmaceuticalStartTime == "224030.250000"
    assert "TimezoneOffsetFromUTC" not in dataset
    assert pets(timezone_offset=True)[0].TimezoneOffsetFromUTC == "+0100"


def test_beds_are_acquired_one_after_the_other_from_the_last_slice() -> None:
    written = pets(beds=2)
    assert [dataset.AcquisitionTime for dataset in written] == ["002130.250000"] * 2 + ["002030.250000"] * 2
    assert {dataset.SeriesTime for dataset in written} == {"002030.250000"}
    assert {tuple(dataset.SeriesType) for dataset in written} == {("WHOLE BODY", "IMAGE")}
    # Mean-activity time in the frame: ln(1.00346974) / λ = 29.9827 s, second bed 60 s later.
    assert [float(dataset.FrameReferenceTime) for dataset in written] == pytest.approx(
        [89982.7] * 2 + [29982.7] * 2, abs=0.1
    )
    # 2^(60/6000) = 1.00695555 more decay in the second bed.
    assert [float(dataset.DecayFactor) for dataset in written] == pytest.approx(
        [1.0104495] * 2 + [1.0034697] * 2, rel=1e-6
    )


def test_without_decay_correction_each_bed_has_decayed_further() -> None:
    uniform = acquisition(pet=Volume(np.ones((2, 2, 2), np.float32), AXIAL, Quantity.SUVBW))
    later, earlier = (rescaled(dataset).max() for dataset in pets(uniform, beds=2, decay_correction="NONE"))
    assert earlier == pytest.approx(2491.3557, rel=1e-6)
    assert later == pytest.approx(2474.1463, rel=1e-6)  # 2491.3557 / 1.00695555
    assert "DecayFactor" not in pets(uniform, decay_correction="NONE")[0]


def test_decay_factor_of_admin_reaches_back_to_the_injection() -> None:
    assert float(pets(decay_correction="ADMIN")[0].DecayFactor) == pytest.approx(2.0069395, rel=1e-6)  # 2 × 1.00346974


def test_geometry_is_that_of_the_affine() -> None:
    dataset = pets()[2]
    assert [float(c) for c in dataset.ImagePositionPatient] == [-10.0, -20.0, 108.0]
    assert [float(c) for c in dataset.ImageOrientationPatient] == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert [float(c) for c in dataset.PixelSpacing] == [3.0, 2.0]  # rows are 3 mm apart, columns 2 mm
    assert float(dataset.SliceThickness) == 4.0
    assert (dataset.Rows, dataset.Columns, dataset.NumberOfSlices, dataset.ImageIndex) == (2, 3, 4, 3)


def test_flipped_axes_move_the_corner_and_turn_the_cosines(tmp_path: Path) -> None:
    plain, flipped = make.study(tmp_path / "a", seed=2), make.study(tmp_path / "b", seed=2, flip="xy")
    one, other = pydicom.dcmread(plain.pet[4]), pydicom.dcmread(flipped.pet[4])
    assert [float(c) for c in other.ImageOrientationPatient] == [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]
    extent_mm = 31 * float(one.PixelSpacing[0])
    shift = np.array(other.ImagePositionPatient, float) - np.array(one.ImagePositionPatient, float)
    assert shift == pytest.approx([extent_mm, extent_mm, 0.0])
    assert np.array_equal(one.pixel_array, other.pixel_array[::-1, ::-1])


def test_a_tilted_gantry_steps_slices_off_their_normal(tmp_path: Path) -> None:
    tilted = make.study(tmp_path, seed=2, ct_shape=(4, 16, 16), tilt_deg=15.0)
    first, second = (pydicom.dcmread(path) for path in tilted.ct[:2])
    step = np.array(second.ImagePositionPatient, float) - np.array(first.ImagePositionPatient, float)
    assert step == pytest.approx([0.0, 225.0 * np.tan(np.radians(15.0)), 225.0])  # 900 mm / 4 slices
    assert float(first.GantryDetectorTilt) == pytest.approx(15.0)


def test_ct_values_survive_in_twelve_bits() -> None:
    hu = np.array([[[-1024.0, -1000.0], [40.0, 3071.0]]], dtype=np.float32)
    scan = acquisition(ct=Volume(hu, AXIAL, Quantity.HU))
    (ct,) = (d for d in write(scan, Examination(started=STARTED), new_uid=hashed_uids("x")) if d.Modality == "CT")
    assert rescaled(ct).tolist() == hu[0].tolist()
    assert (ct.BitsStored, ct.HighBit, ct.PixelRepresentation) == (12, 11, 0)


def test_the_patient_is_called_simulated_and_the_seed_stands_in_the_study_description() -> None:
    dataset = pets()[0]
    assert str(dataset.PatientName).startswith("SIMULATED^")
    assert dataset.StudyDescription == "PET/CT whole body simulated seed 11"


def test_uids_depend_on_root_role_and_number_alone() -> None:
    one, again, other = hashed_uids("a"), hashed_uids("a"), hashed_uids("b")
    assert one("study", 0) == again("study", 0)
    assert len({one("study", 0), one("study", 1), one("series", 0), other("study", 0)}) == 4
    assert all(pydicom.uid.UID(one("x", n)).is_valid for n in range(20))


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (make.study(tmp_path / name, seed=4, ct_shape=(5, 16, 16)) for name in "ab")
    assert [path.read_bytes() for path in first.files] == [path.read_bytes() for path in second.files]
    uids = [dataset.SOPInstanceUID for dataset in first.datasets]
    assert len(set(uids)) == len(uids) == 35
    assert {dataset.StudyInstanceUID for dataset in first.datasets} == {first.study_uid}
    assert {dataset.FrameOfReferenceUID for dataset in first.datasets} == {first.frame_of_reference_uid}


def test_without_attenuation_correction_the_header_says_so() -> None:
    corrected, raw = pets()[0], pets(acquisition(attenuation_corrected=False))[0]
    assert "ATTN" in corrected.CorrectedImage and "AttenuationCorrectionMethod" in corrected
    assert "ATTN" not in raw.CorrectedImage and "AttenuationCorrectionMethod" not in raw


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pet": Volume(np.zeros((1, 2, 2), np.float32), AXIAL, Quantity.HU)}, "writes suvbw here, got hu"),
        ({"ct": Volume(np.zeros((1, 2, 2), np.float32), AXIAL, Quantity.SUVBW)}, "writes hu here, got suvbw"),
        ({"tracer": "water"}, "no code for water of F-18"),
    ],
)
def test_what_a_scanner_cannot_send_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pets(acquisition(**changes))


def test_an_examination_needs_a_time_zone_and_a_bed() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Examination(started=datetime(2026, 3, 2))
    with pytest.raises(ValueError, match="beds"):
        Examination(started=datetime(2026, 3, 2, tzinfo=UTC), beds=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"post_processed_s": -1.0}, "post_processed_s: expected not before the start, got -1.0"),
        ({"maker": "ge", "units": "CNTS"}, "units: expected BQML or GML of ge, got CNTS"),
    ],
)
def test_what_a_maker_does_not_write_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Examination(started=datetime(2026, 3, 2, tzinfo=UTC), **changes)


@pytest.mark.parametrize("units", ["BQML", "GML"])
@pytest.mark.parametrize("decay", ["START", "ADMIN", "NONE"])
@pytest.mark.parametrize("tilt", [0.0, 10.0])
def test_dciodvfy_finds_no_fault(tmp_path: Path, units: str, decay: str, tilt: float) -> None:
    written = make.study(
        tmp_path,
        pet_shape=(4, 16, 16),
        ct_shape=(4, 16, 16),
        examination={"units": units, "decay_correction": decay, "beds": 2, "timezone_offset": tilt > 0},
        acquisition={"attenuation_corrected": tilt == 0},
        tilt_deg=tilt,
    )
    assert complaints_of([written.pet[0], written.pet[-1], written.ct[0]]) == []


# --- dynamic series --------------------------------------------------------------------------------------------------


def dynamic_scan(**changes: object) -> Acquisition:
    """Two frames, 5 s and 10 s, of 3 slices of 2 × 4 voxels after 800 MBq Rb-82, injected 3 s after the start."""
    array = (np.arange(48, dtype=np.float32).reshape(2, 3, 2, 4) + 1.0) * 1000.0
    dynamic = DynamicVolume(array, AXIAL, Quantity.ACTIVITY_BQML, np.array([0.0, 5.0]), np.array([5.0, 10.0]))
    scan = acquisition(
        pet=None,
        ct=None,
        tracer="Rb-82",
        radionuclide="Rb-82",
        half_life_s=76.38,
        dose_bq=800e6,
        uptake_s=-3.0,
        frame_duration_s=15.0,
        dynamic=dynamic,
    )
    return replace(scan, **changes)


def test_a_dynamic_series_says_which_slice_of_which_frame_it_is() -> None:
    written = pets(dynamic_scan())
    assert [dataset.ImageIndex for dataset in written] == [1, 2, 3, 4, 5, 6]
    assert [dataset.InstanceNumber for dataset in written] == [1, 2, 3, 4, 5, 6]
    assert len({dataset.SOPInstanceUID for dataset in written}) == 6
    assert len({dataset.SeriesInstanceUID for dataset in written}) == 1
    for dataset in written:
        assert list(dataset.SeriesType) == ["DYNAMIC", "IMAGE"]
        assert (dataset.NumberOfSlices, dataset.NumberOfTimeSlices) == (3, 2)
        assert (dataset.Units, dataset.DecayCorrection, dataset.SeriesNumber) == ("BQML", "START", 3)
        assert "DECY" in dataset.CorrectedImage
    assert [float(dataset.ImagePositionPatient[2]) for dataset in written] == [100.0, 104.0, 108.0] * 2


def test_every_frame_has_its_own_times_and_decay_factor() -> None:
    written = pets(dynamic_scan())
    assert {dataset.SeriesTime for dataset in written} == {"002030.250000"}
    assert [dataset.AcquisitionTime for dataset in written] == ["002030.250000"] * 3 + ["002035.250000"] * 3
    assert [dataset.ActualFrameDuration for dataset in written] == [5000] * 3 + [10000] * 3
    # x = λT = ln2·5/76.38 = 0.0453749: x/(1 − e^−x) = 1 + x/2 + x²/12 = 1.0228590, its logarithm over λ 2.49055 s;
    # ln2·10/76.38 = 0.0907498: 1.0460612 → 4.96219 s after 5 s; times e^0.0453749 = 1.0464201 of those 5 s
    reference = [float(dataset.FrameReferenceTime) for dataset in written]
    assert reference == pytest.approx([2490.55] * 3 + [9962.19] * 3, abs=0.05)
    factors = [float(dataset.DecayFactor) for dataset in written]
    assert factors == pytest.approx([1.0228590] * 3 + [1.0946194] * 3, rel=1e-6)
    injection = written[0].RadiopharmaceuticalInformationSequence[0]
    assert injection.RadiopharmaceuticalStartDateTime == "20260302002033.250000"
    assert injection.RadiopharmaceuticalCodeSequence[0].CodeValue == "129503007"
    assert injection.RadionuclideCodeSequence[0].CodeValue == "79197006"


def test_a_dynamic_series_read_back_from_its_files(tmp_path: Path) -> None:
    scan = dynamic_scan()
    for number, dataset in enumerate(pets(scan)):
        dataset.save_as(tmp_path / f"{7 - number}.dcm", enforce_file_format=True)
    read = [pydicom.dcmread(path) for path in tmp_path.iterdir()]
    read.sort(key=lambda d: (float(d.FrameReferenceTime), float(d.ImagePositionPatient[2])))
    values = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in read])
    wanted = scan.dynamic.array
    rounding = wanted.max(axis=(2, 3)).reshape(6, 1, 1) / 32767.0 / 2.0
    assert (np.abs(values - wanted.reshape(6, 2, 4)) <= 1.001 * rounding).all()
    assert len({float(d.RescaleSlope) for d in read}) == 6
    times = sorted({(d.AcquisitionTime, d.ActualFrameDuration) for d in read})
    assert times == [("002030.250000", 5000), ("002035.250000", 10000)]


@pytest.mark.parametrize(("maker", "words"), [("siemens", "AC"), ("ge", "AC"), ("philips", "CTAC")])
def test_rest_and_stress_are_series_of_one_study(maker: str, words: str) -> None:
    later = STARTED + timedelta(minutes=12)
    rest = pets(dynamic_scan(), maker=maker, phase="rest")
    stress = pets(dynamic_scan(), maker=maker, phase="stress", started=later, first_series=3, study_started=STARTED)
    both = rest + stress
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        assert len({dataset[keyword].value for dataset in both}) == 1
    assert len({dataset.SOPInstanceUID for dataset in both}) == 12
    assert [dataset.SeriesNumber for dataset in (rest[0], stress[0])] == [3, 5]
    assert rest[0].SeriesInstanceUID != stress[0].SeriesInstanceUID
    assert [d.SeriesDescription for d in (rest[0], stress[0])] == [
        f"PET dynamic rest {words}",
        f"PET dynamic stress {words}",
    ]
    assert (stress[0].StudyTime, stress[0].SeriesTime) == ("002030.250000", "003230.250000")


@pytest.mark.parametrize("examination", [{"units": "GML"}, {"decay_correction": "NONE"}, {"decay_correction": "ADMIN"}])
def test_a_dynamic_series_in_other_units_is_refused(examination: dict) -> None:
    with pytest.raises(ValueError, match="in BQML, decay-corrected to its START"):
        pets(dynamic_scan(), **examination)


def test_a_dynamic_series_of_another_quantity_is_refused() -> None:
    scan = dynamic_scan()
    suv = replace(scan.dynamic, quantity=Quantity.SUVBW)
    with pytest.raises(ValueError, match="writes activity_bqml here, got suvbw"):
        pets(replace(scan, dynamic=suv))


@pytest.mark.parametrize("corrected", [True, False])
def test_dciodvfy_finds_no_fault_in_a_dynamic_series(tmp_path: Path, corrected: bool) -> None:
    scan = dynamic_scan(attenuation_corrected=corrected)
    assert complaints_of(saved(tmp_path, pets(scan, phase="rest", timezone_offset=corrected))) == []


# --- makers ----------------------------------------------------------------------------------------------------------

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
PHILIPS = (0x7053, "Philips PET Private Group")
GE = (0x0009, "GEMS_PETD_01")
CASES: dict[str, dict[str, Any]] = {
    "one bed": {},
    "three beds": {"beds": 3},
    "processed again": {"beds": 3, "post_processed_s": 2400.0},
    "decaying": {"beds": 3, "decay_correction": "NONE"},
}
BRANCHES = {
    ("siemens", "one bed"): "bqml-start-series-time",
    ("siemens", "three beds"): "bqml-start-series-time",
    ("siemens", "processed again"): "bqml-start-back-computed",
    ("siemens", "decaying"): "bqml-none",
    ("ge", "one bed"): "bqml-start-series-time",
    ("ge", "three beds"): "bqml-start-series-time",
    ("ge", "processed again"): "bqml-start-ge-scan-datetime",
    ("ge", "decaying"): "bqml-none",
    ("philips", "one bed"): "cnts-philips-suv",
    ("philips", "three beds"): "cnts-philips-suv",
    ("philips", "processed again"): "cnts-philips-suv",
    ("philips", "decaying"): "cnts-philips-activity-none",
}
VOXEL_ML = 2.0 * 3.0 * 4.0 / 1000.0


def fdg(**changes: object) -> Acquisition:
    """6 slices of 4 × 5 voxels up to 20 g/mL, 350 MBq in 70 kg an hour before; 3 min per bed."""
    suv = np.random.default_rng(8).gamma(0.5, 2.0, (6, 4, 5)).astype(np.float32)
    suv[2, 1, 3] = 20.0
    pet = Volume(suv, AXIAL, Quantity.SUVBW)
    return acquisition(**{"pet": pet, "half_life_s": 6586.2, "uptake_s": 3600.0, "frame_duration_s": 180.0} | changes)


def at(date: str, time: str = "") -> datetime:
    text = date + time
    return datetime.strptime(text, "%Y%m%d%H%M%S.%f" if "." in text else "%Y%m%d%H%M%S")


def by_hand(series: list[pydicom.Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """SUVbw and activity at the injection [Bq/mL], by pydicom and the published formulas (QIBA, PS3.3 C.8.9) alone."""
    first = min(at(ds.AcquisitionDate, ds.AcquisitionTime) for ds in series)
    suv, activity = [], []
    for ds in series:
        drug = ds.RadiopharmaceuticalInformationSequence[0]
        decay, frame_s = np.log(2.0) / float(drug.RadionuclideHalfLife), ds.ActualFrameDuration / 1000.0
        in_frame = decay * frame_s / (1.0 - np.exp(-decay * frame_s))
        acquired, reference = at(ds.AcquisitionDate, ds.AcquisitionTime), at(ds.SeriesDate, ds.SeriesTime)
        x, factor = ds.pixel_array * float(ds.RescaleSlope), 0.0
        if ds.Units == "CNTS":
            factor, per_count = (float(ds.private_block(*PHILIPS)[element].value) for element in (0x00, 0x09))
            suv += [x * factor] if factor else []
            x = x * per_count
        if ds.DecayCorrection == "NONE":
            x, reference = x * in_frame, acquired
        elif reference > first and GE[0] in {element.tag.group for element in ds}:
            reference = at(ds.private_block(*GE)[0x0D].value)
        elif reference > first:
            reference = acquired + timedelta(seconds=np.log(in_frame) / decay - float(ds.FrameReferenceTime) / 1000.0)
        uptake_s = (reference - at(drug.RadiopharmaceuticalStartDateTime)).total_seconds()
        activity.append(x * np.exp(decay * uptake_s))
        suv += [] if factor else [activity[-1] * float(ds.PatientWeight) * 1000.0 / float(drug.RadionuclideTotalDose)]
    return np.stack(suv), np.stack(activity)


@pytest.mark.parametrize(("maker", "case"), BRANCHES)
def test_a_series_of_each_maker_is_read_as_it_was_made(tmp_path: Path, maker: str, case: str) -> None:
    scan = fdg()
    paths = saved(tmp_path, pets(scan, started=NOON, maker=maker, **CASES[case]))
    read = [pydicom.dcmread(path) for path in paths]
    assert complaints_of([paths[0], paths[-1]]) == []
    loaded = volume.load(paths, Quantity.SUVBW, UTC)
    assert loaded.suv_branch == BRANCHES[maker, case]
    wanted = scan.pet.array
    half_a_step = wanted.max(axis=(1, 2), keepdims=True) / 32767.0 / 2.0
    if maker == "philips" and case != "decaying":
        half_a_step = half_a_step.max()
        assert len({ds.RescaleSlope for ds in read}) == 1
    elif maker == "philips":  # one slope in counts; slices of later beds have decayed, so a count is more SUV
        half_a_step = half_a_step.max() * 2.0 ** (360.0 / 6586.2)
    else:
        assert len({ds.RescaleSlope for ds in read}) == 6
    suv, activity = by_hand(read)
    for found in (loaded.static.array, suv):
        assert (np.abs(found - wanted) <= 2e-6 * wanted.max() + half_a_step).all()
    # 350 MBq / 70 000 g = 5000 Bq per g at the injection, and a millilitre of SUV 1 g/mL has that of a gram
    assert activity.sum() * VOXEL_ML == pytest.approx(float(wanted.sum()) * VOXEL_ML * 5000.0, rel=1e-3)


@pytest.mark.parametrize("maker", ["siemens", "ge", "philips"])
@pytest.mark.parametrize("beds", [1, 2])
def test_a_series_without_attenuation_correction_of_each_maker(tmp_path: Path, maker: str, beds: int) -> None:
    scan = fdg(attenuation_corrected=False)
    paths = saved(tmp_path, pets(scan, started=NOON, maker=maker, beds=beds))
    read = [pydicom.dcmread(path) for path in paths]
    assert complaints_of([paths[0], paths[-1]]) == []
    assert {ds.SeriesDescription for ds in read} == {"PET WB NAC"}
    assert not {"ATTN", "SCAT"} & set(read[0].CorrectedImage)
    assert "DECY" in read[0].CorrectedImage
    method = "NONE" if maker == "philips" else None
    assert (read[0].get("AttenuationCorrectionMethod"), read[0].get("ScatterCorrectionMethod")) == (method, method)
    with pytest.raises(QuantityRefused) as refused:
        volume.load(paths, Quantity.SUVBW, UTC)
    assert refused.value.code == "not-attenuation-corrected"
    loaded = volume.load(paths, Quantity.ACTIVITY_BQML, UTC)
    wanted = scan.pet.array * (5000.0 * 2.0 ** (-3600.0 / 6586.2))
    assert np.abs(loaded.static.array - wanted).max() <= wanted.max() * (1.0 / 65534.0 + 2e-6)
    suv, activity = by_hand(read)
    assert suv == pytest.approx(scan.pet.array, abs=20.0 * (1.0 / 65534.0 + 2e-6))
    assert activity.sum() == pytest.approx(float(scan.pet.array.sum()) * 5000.0, rel=1e-3)


@pytest.mark.parametrize("maker", ["siemens", "ge", "philips"])
@pytest.mark.parametrize("corrected", [True, False])
def test_a_dynamic_series_of_each_maker(tmp_path: Path, maker: str, corrected: bool) -> None:
    scan = dynamic_scan(attenuation_corrected=corrected)
    paths = saved(tmp_path, pets(scan, maker=maker, phase="rest"))
    read = [pydicom.dcmread(path) for path in paths]
    assert complaints_of([paths[0], paths[-1]]) == []
    assert is_attenuation_corrected([headers.read(path).header for path in paths]) is corrected
    loaded = volume.load(paths, Quantity.ACTIVITY_BQML, UTC)
    assert loaded.suv_branch == ("cnts-philips-activity" if maker == "philips" else "bqml")
    wanted = scan.dynamic.array
    assert loaded.volume.frame_start_s.tolist() == [0.0, 5.0]
    assert loaded.volume.frame_duration_s.tolist() == [5.0, 10.0]
    tolerance = wanted.max() * (1.0 / 65534.0 + 2e-6)
    assert np.abs(loaded.volume.array - wanted).max() <= tolerance
    # from the injection, 3 s after the start, back to the start there is more: 2^(3/76.38)
    activity = by_hand(read)[1].reshape(wanted.shape) * 2.0 ** (3.0 / 76.38)
    assert np.abs(activity - wanted).max() <= tolerance
    assert activity.sum() == pytest.approx(float(wanted.sum()), rel=1e-3)


def test_each_maker_has_its_own_way_of_writing() -> None:
    siemens, ge, philips = (pets(fdg(), started=NOON, maker=maker, beds=2) for maker in ("siemens", "ge", "philips"))
    assert [(ds[0].Manufacturer, ds[0].Units) for ds in (siemens, ge, philips)] == [
        ("SIMULATED", "BQML"),
        ("SIMULATED GE", "BQML"),
        ("SIMULATED Philips", "CNTS"),
    ]
    assert [ds[0].SeriesType[0] for ds in (siemens, ge, philips)] == ["WHOLE BODY", "STATIC", "WHOLE BODY"]
    assert [ds[0].PixelRepresentation for ds in (siemens, ge, philips)] == [0, 1, 0]
    assert [ds[0].AcquisitionTime for ds in (siemens, ge, philips)] == ["120300.000000", "120300", "120300"]
    # second bed, 180 s: ln(1.0094999) / λ = 89.86 s at Siemens, its start at GE, its middle at Philips
    second = [float(ds[0].FrameReferenceTime) / 1000.0 for ds in (siemens, ge, philips)]
    assert second == pytest.approx([180.0 + 89.858, 180.0, 270.0], abs=0.005)
    # e^(λ·180 s) · λT/(1 − e^(−λT)) = 1.019125 · 1.009502
    assert {round(float(ds[0].DecayFactor), 5) for ds in (siemens, ge, philips)} == {1.02881}
    for series in (siemens, ge, philips):
        assert str(series[0].PatientName).startswith("SIMULATED^")
        assert "seed 11" in series[0].StudyDescription
    assert (pets(maker="ge")[0].SeriesTime, pets(maker="ge")[0].Manufacturer) == ("002030.250000", "SIMULATED GE")
    assert pets(maker="ge", manufacturer="SIMULATED other")[0].Manufacturer == "SIMULATED other"


def test_the_private_block_of_ge_tells_of_the_same_injection() -> None:
    ds = pets(fdg(), started=NOON, maker="ge", post_processed_s=2400.0)[0]
    assert (ds.SeriesTime, ds.AcquisitionTime) == ("124000", "120000")
    block, drug = ds.private_block(*GE), ds.RadiopharmaceuticalInformationSequence[0]
    assert (block[0x0D].value, block[0x3B].value) == ("20260302120000", drug.RadiopharmaceuticalStartDateTime)
    # net activity [MBq] at the injection: measured before, less what was left in the syringe, each decayed to it
    injected = at(block[0x3B].value)
    net_mbq = sum(
        sign * block[activity].value * 2.0 ** ((at(block[when].value) - injected).total_seconds() / block[0x3F].value)
        for sign, activity, when in ((1.0, 0x38, 0x39), (-1.0, 0x3C, 0x3D))
    )
    assert net_mbq * 1e6 == pytest.approx(float(drug.RadionuclideTotalDose), rel=1e-6)
    assert (block[0x3E].value, block[0x40].value) == ("18F", pytest.approx(0.9673))


@pytest.mark.parametrize("maker", ["ge", "philips"])
@pytest.mark.parametrize("decay", ["START", "ADMIN"])
def test_any_maker_can_send_an_suv_instead(tmp_path: Path, maker: str, decay: str) -> None:
    written = pets(fdg(), started=NOON, maker=maker, units="GML", decay_correction=decay)
    loaded = volume.load(saved(tmp_path, written), Quantity.SUVBW, UTC)
    assert loaded.suv_branch == "gml-bw"
    assert PHILIPS[0] not in {element.tag.group for element in written[0]}
    assert np.abs(loaded.static.array - fdg().pet.array).max() <= 20.0 * (1.0 / 65534.0 + 2e-6)


# --- the builder of test studies itself ------------------------------------------------------------------------------


def test_the_builder_leaves_out_removes_and_sets_what_it_is_told(tmp_path: Path) -> None:
    def no_study_date(dataset: Dataset) -> None:
        dataset.StudyDate = ""

    written = make.study(
        tmp_path,
        ct_shape=(4, 16, 16),
        missing=[3, 4],
        omit=["PatientWeight", "RadionuclideTotalDose"],
        change={"RadionuclideHalfLife": "4057.7", "PatientSize": None, "Units": "CNTS"},
        edit=no_study_date,
    )
    assert (len(written.pet), len(written.ct)) == (28, 4)
    read = [pydicom.dcmread(path) for path in written.pet]
    assert [dataset.ImageIndex for dataset in read][2:4] == [3, 6]
    for dataset in read:
        injection = dataset.RadiopharmaceuticalInformationSequence[0]
        assert "PatientWeight" not in dataset
        assert "RadionuclideTotalDose" not in injection
        assert injection.RadionuclideHalfLife == 4057.7
        assert (dataset.PatientSize, dataset.Units, dataset.StudyDate) == (None, "CNTS", "")
    ct = pydicom.dcmread(written.ct[0])
    assert (ct.StudyDate, ct.PatientWeight is not None) == ("", True)


def test_the_builder_says_what_a_perfect_reader_gets(tmp_path: Path) -> None:
    written = make.study(tmp_path, seed=9)
    scan = written.acquisition
    per_suv = scan.dose_bq / (scan.weight_kg * 1000.0) * 2.0 ** (-scan.uptake_s / scan.half_life_s)
    for index, path in enumerate(written.pet):
        dataset = pydicom.dcmread(path)
        suv = (dataset.pixel_array * float(dataset.RescaleSlope)) / per_suv
        assert np.abs(suv - written.suv[index]).max() <= written.suv[index].max() / 65534.0 * 1.001
    assert written.truth.shape == written.suv.shape
    assert written.suv[written.truth > 0].min() > 0.5
