"""The forward model of the reference objects against arithmetic done by hand; what the table must hold."""

import subprocess
from collections import Counter
from dataclasses import replace
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_io import reference_scan
from dicom_io.reference_multiframe import enhanced
from dicom_io.reference_objects import LEAN_KG, REFERENCE_OBJECTS, RULES, SURFACE_CM2, Rule
from dicom_io.reference_scan import LEVELS_SUV, STEPS_PER_SUV, TRUE_SUV, Scan, pet_images
from tests.peers import program

BRANCHES = {
    "bqml-start-series-time",
    "bqml-start-ge-scan-datetime",
    "bqml-start-back-computed",
    "bqml-start-earliest-acquisition",
    "bqml-start-decay-correction-datetime",
    "bqml-admin",
    "bqml-none",
    "cnts-philips-suv",
    "cnts-philips-activity-start-series-time",
    "cnts-philips-activity-start-back-computed",
    "cnts-philips-activity-admin",
    "cnts-philips-activity-none",
    "gml-bw",
    "gml-lbm",
    "gml-lbmjames128",
    "gml-lbmjanma",
    "gml-ibw",
    "cm2ml",
}


def test_every_branch_has_an_object_and_every_object_a_name_of_its_own():
    assert {rule.branch for rule in RULES} == BRANCHES
    assert len(RULES) == len(BRANCHES)
    counted = Counter(one.name for one in REFERENCE_OBJECTS)
    assert max(counted.values()) == 1
    assert all(rule.formula and rule.tags and rule.source for rule in RULES)


def test_activity_halves_and_starts_at_the_dose_per_gram():
    scan = Scan()
    assert scan.activity_bqml(0.0) == pytest.approx(4933.333333, rel=1e-9)  # 370e6 Bq / 75 000 g
    assert scan.activity_bqml(6586.2) == pytest.approx(2466.666667, rel=1e-9)
    assert scan.activity_bqml(3600.0) == pytest.approx(3377.5224, rel=1e-7)  # · exp(−0.69314718 · 3600 / 6586.2)


@pytest.mark.parametrize(
    ("half_life_s", "frame_s"), [(6586.2, 180.0), (76.38, 300.0), (122.24, 300.0), (597.9, 1200.0)]
)
def test_the_mean_over_a_frame_is_the_integral_of_decay(half_life_s: float, frame_s: float):
    scan = Scan(agent=reference_scan.FDG._replace(half_life_s=half_life_s), frame_s=frame_s)
    decays = log(2.0) * frame_s / half_life_s
    mean = scan.activity_bqml(120.0) * (1.0 - exp(-decays)) / decays
    assert scan.measured_bqml(120.0) == pytest.approx(mean, rel=1e-12)
    assert scan.activity_bqml(120.0 + scan.mean_reached_s(120.0)) == pytest.approx(mean, rel=1e-12)


def test_units_follow_decay_correction():
    start, admin, none = (Scan(decay_correction=kind) for kind in ("START", "ADMIN", "NONE"))
    assert admin.units_per_suv(0) == pytest.approx(4933.333333, rel=1e-9)
    assert start.units_per_suv(0) == pytest.approx(3377.5224, rel=1e-7)
    assert none.units_per_suv(0) == pytest.approx(3345.7322, rel=1e-7)  # · (1 − e^{−0.018943623}) / 0.018943623
    assert Scan(suv_per_unit=0.0004).units_per_suv(1) == pytest.approx(2500.0)
    assert Scan(bqml_per_count=2.0).units_per_suv(1) == pytest.approx(3377.5224 / 2.0, rel=1e-7)


def test_bodies_of_75_kg_and_180_cm():
    """Numbers worked out with a pocket calculator from the published formulas."""
    expected_kg = {
        ("LBM", "M"): 61.6667,
        ("LBM", "F"): 54.5556,
        ("LBMJAMES128", "M"): 60.2778,
        ("LBMJAMES128", "F"): 54.5556,
        ("LBMJANMA", "M"): 59.5248,
        ("LBMJANMA", "F"): 48.1871,
        ("IBW", "M"): 77.68,
        ("IBW", "F"): 70.98,
    }
    assert pytest.approx(expected_kg, abs=5e-5) == LEAN_KG
    assert pytest.approx(19424.056, abs=5e-3) == SURFACE_CM2


def test_slices_hold_whole_steps_of_their_own_slope_and_the_header_tells_the_same_story():
    last, first = pet_images(Scan(acquired_s=(3780.0, 3600.0)), "test")
    assert [one.ImagePositionPatient[2] for one in (last, first)] == [14, 10]
    for z, one in enumerate((first, last)):
        stored = np.frombuffer(one.PixelData, "<u2").reshape(4, 4)
        assert set(np.unique(stored)) == {0, STEPS_PER_SUV[z] // 5, STEPS_PER_SUV[z], STEPS_PER_SUV[z] * 4}
        assert stored * float(one.RescaleSlope) / 3377.5224 == pytest.approx(TRUE_SUV[z], rel=1e-7)
    assert (first.SeriesTime, first.AcquisitionTime, last.AcquisitionTime) == (
        "093000.000000",
        "093300.000000",
        "093000.000000",
    )
    # 180 s into the series, and the mean of a frame of 180 s lies 89.858 s after its start: ln(1.009502) / 1.0524e-4
    assert float(first.FrameReferenceTime) == pytest.approx(180000.0 + 89858.0, abs=1.0)
    assert float(first.DecayFactor) == pytest.approx(1.0288076, rel=1e-7)  # 1.0095017 · e^{0.018943623}
    assert float(last.DecayFactor) == pytest.approx(1.0095017, rel=1e-7)


def test_levels_are_those_of_the_published_objects_and_zero():
    assert list(LEVELS_SUV) == [0.0, 0.2, 1.0, 4.0]
    assert TRUE_SUV.shape == (2, 4, 4)
    assert not np.array_equal(TRUE_SUV[0], TRUE_SUV[1])
    assert all(Counter(slice_.ravel()) == dict.fromkeys(LEVELS_SUV, 4) for slice_ in TRUE_SUV)


def test_local_time_follows_the_clocks():
    night = Scan(injected=Scan().injected.replace(month=3, day=29, hour=1, minute=30))
    assert night.at(3600.0).strftime("%H:%M %z") == "03:30 +0200"
    assert Scan().at(3600.0).strftime("%H:%M %z") == "09:30 +0100"


def test_a_scan_writes_in_its_own_way():
    scan = Scan(
        differs={"PatientSize": None, "RadionuclideTotalDose": "370"},
        differs_in_last={"RescaleSlope": "0"},
        private={reference_scan.SOMEBODY_ELSE: "7", reference_scan.PHILIPS_SUV: "0.5"},
        injections=2,
    )
    last, first = pet_images(scan, "test")
    assert "PatientSize" not in first
    assert (last.RescaleSlope, len(first.RadiopharmaceuticalInformationSequence)) == (0, 2)
    assert first.RescaleSlope > 0
    assert first.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose == 370
    assert (first[0x70530011].value, first[0x70531100].value) == ("Philips PET Private Group", 0.5)


def test_an_object_is_the_same_every_time_and_no_two_share_a_uid():
    one = REFERENCE_OBJECTS[0]
    assert one.data_sets() == one.data_sets()
    uids = [dataset.SOPInstanceUID for one in REFERENCE_OBJECTS for dataset in one.data_sets()]
    assert len(set(uids)) == len(uids)


@pytest.mark.parametrize("information_object", ["PETImage", "EnhancedPETImage"])
def test_they_are_dicom_in_the_eyes_of_dciodvfy(information_object: str, tmp_path: Path):
    """Objects of the self-test carry what decides an SUV; of the rest of their modules much is left out on purpose."""
    multiframe = information_object == "EnhancedPETImage"
    dataset = enhanced(Scan(), "test") if multiframe else pet_images(Scan(), "test")[0]
    path = tmp_path / "object.dcm"
    dataset.save_as(path, enforce_file_format=True)
    done = subprocess.run([program("dciodvfy"), str(path)], capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    assert information_object in lines
    errors = [line for line in lines if line.startswith("Error")]
    assert [line for line in errors if "Missing attribute" not in line and "Empty attribute" not in line] == []
    assert dcmread(path).PatientWeight == 75


def test_refusals_and_suvs_are_told_apart():
    refused = [one for one in REFERENCE_OBJECTS if not isinstance(one.expected, Rule)]
    assert len(refused) > 25
    assert all(one.name == f"refused, {one.shows}" for one in refused)
    usual = REFERENCE_OBJECTS[0]
    assert replace(usual, expected="no-weight").expected != usual.expected
