"""Facts of a series: kind, completeness, layout, coverage, and what is unknown stays unknown."""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_io import description, headers
from dicom_io.series import Completeness, completeness, covers, understand
from tests import make

Header = dict[str, Any]
_NAMES = """
    series_uid modality sop_class_uid kind tracer radionuclide tracer_confidence tracer_evidence attenuation_corrected
    units suv frame_of_reference_uid shape spacing_mm affine orientation z_range_mm slices frames complete expected
    complete_reason weight_kg height_m sex dose_bq uptake_min frame_duration_s manufacturer station model protocol
    series_description study_description body_part image_type slice_thickness_mm patient_age_y calling_ae called_ae
    produced_by problems tracer_conflicts decay_corrected scatter_corrected randoms_corrected beds whole_body primary
    relative_counts frame_times
"""
SPEC = set(_NAMES.split())
"""Every fact a rule, a page or the pipeline may ask for."""


STARTS_S = (0, 10, 30, 60, 100, 150)
"""Of frames of 10, 20, 30 … s, one after the other."""


def pt(*series_type: str, count: int = 1, frames: int = 1, **changes: Any) -> list[Header]:
    """PET headers: `count` places 3 mm apart, each `frames` times."""
    return [
        {
            "Modality": "PT",
            "SeriesType": list(series_type) or None,
            "SOPInstanceUID": f"1.2.{frame}.{index}",
            "SeriesInstanceUID": "1.2.3",
            "FrameOfReferenceUID": "1.2.4",
            "Rows": 4,
            "Columns": 5,
            "PixelSpacing": [2.0, 2.0],
            "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            "ImagePositionPatient": [0.0, 0.0, 3.0 * index],
            "ActualFrameDuration": 10_000 * (frame + 1),
            "AcquisitionDate": "20260302",
            "AcquisitionTime": f"09{STARTS_S[frame] // 60:02d}{STARTS_S[frame] % 60:02d}",
            **changes,
        }
        for frame in range(frames)
        for index in range(count)
    ]


def facts_of(found: list[Header]) -> Header:
    return understand(found, {}, UTC)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> make.Study:
    return make.study(tmp_path_factory.mktemp("study"), pet_shape=(6, 12, 10), ct_shape=(12, 24, 20))


@pytest.fixture(scope="module")
def three_slices(study: make.Study) -> list[Path]:
    return study.pet[:3]


def read(paths: list[Path]) -> list[Header]:
    return [headers.read(path).header for path in paths]


# The whole of it


def test_facts_of_a_pet(study: make.Study) -> None:
    facts = understand(read(study.pet), {"calling_ae": "PETCT1", "called_ae": "TRACERD"}, UTC)
    scan = study.acquisition
    assert set(facts) == SPEC
    assert facts["problems"] == []
    assert (facts["beds"], facts["whole_body"], facts["primary"]) == (1, False, True)
    assert (facts["decay_corrected"], facts["scatter_corrected"], facts["randoms_corrected"]) == (True, True, True)
    assert (facts["tracer_conflicts"], facts["frame_times"]) == ([], None)
    assert (facts["modality"], facts["kind"], facts["units"]) == ("PT", "static", "BQML")
    assert (facts["tracer"], facts["radionuclide"], facts["tracer_confidence"]) == ("FDG", "F-18", "coded and agreeing")
    assert facts["attenuation_corrected"] is True
    assert facts["shape"] == [6, 12, 10]
    assert (facts["slices"], facts["frames"]) == (6, 1)
    assert facts["spacing_mm"] == pytest.approx(
        [(study.affine[:3, axis] ** 2).sum() ** 0.5 for axis in range(3)], rel=1e-4
    )
    assert (facts["complete"], facts["expected"]) == (True, 6)
    assert facts["complete_reason"] == "6 of 6 slices"
    assert facts["weight_kg"] == pytest.approx(scan.weight_kg, rel=1e-6)
    assert facts["height_m"] == pytest.approx(scan.height_m, rel=1e-6)
    assert facts["dose_bq"] == pytest.approx(scan.dose_bq, rel=1e-6)
    assert facts["uptake_min"] == pytest.approx(scan.uptake_s / 60.0, abs=0.001)
    assert facts["frame_duration_s"] == pytest.approx(scan.frame_duration_s)
    assert (facts["calling_ae"], facts["called_ae"]) == ("PETCT1", "TRACERD")
    assert (facts["station"], facts["model"]) == ("SIMPETCT1", "Simulated PET/CT")
    assert facts["frame_of_reference_uid"] == study.frame_of_reference_uid
    assert facts["suv"]["status"] == "ok"
    assert facts["suv"]["reference"] == "BQML, START, series time"
    # Bq/mL at the start of the series back to the injection, per gram and becquerel.
    expected = scan.weight_kg * 1000.0 / scan.dose_bq * 2.0 ** (scan.uptake_s / scan.half_life_s)
    assert facts["suv"]["factor"] == pytest.approx(expected, rel=1e-6)
    assert facts["suv"] == {
        "status": "ok",
        "type": "BW",
        "factor": facts["suv"]["factor"],
        "factor_min": facts["suv"]["factor"],
        "factor_max": facts["suv"]["factor"],
        "reference": "BQML, START, series time",
        "branch": "bqml-start-series-time",
        "warnings": [],
        "reason": None,
    }
    assert facts["produced_by"] is None


def test_facts_of_a_ct(study: make.Study) -> None:
    facts = facts_of(read(study.ct))
    assert set(facts) == SPEC
    assert facts["problems"] == []
    assert (facts["modality"], facts["kind"]) == ("CT", "static")
    assert (facts["tracer"], facts["attenuation_corrected"], facts["uptake_min"]) == (None, None, None)
    assert (facts["complete"], facts["expected"], facts["tracer_confidence"]) == (None, None, "none")
    assert facts["suv"] == {
        "status": "refused",
        "type": None,
        "factor": None,
        "factor_min": None,
        "factor_max": None,
        "reference": None,
        "branch": None,
        "warnings": [],
        "reason": "not a PET series",
    }


def test_facts_of_a_single_slice(study: make.Study) -> None:
    facts = facts_of(read(study.pet[:1]))
    assert (facts["tracer"], facts["suv"]["status"], facts["beds"]) == ("FDG", "ok", 1)


def test_what_the_reader_noticed_is_told_once() -> None:
    found = pt("STATIC", count=3, Problems=["seen", "also seen"])
    assert facts_of(found)["problems"][:2] == ["also seen", "seen"]
    assert facts_of(found)["problems"].count("seen") == 1


def test_a_doubt_about_the_suv_is_among_the_problems(study: make.Study) -> None:
    facts = facts_of([{**header, "GEScanDateTime": "20200101000000"} for header in read(study.pet)])
    assert facts["suv"]["status"] == "ok"
    assert facts["problems"] == [f"suv: {facts['suv']['warnings'][0]}"]
    assert "GE scan date and time" in facts["problems"][0]


def test_facts_are_json_and_do_not_depend_on_the_order_of_arrival(study: make.Study) -> None:
    found = read(study.pet)
    facts = facts_of(found)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    first = facts_of([found[3], *found[:3], *found[4:]])
    assert {key: value for key, value in first.items() if value != facts[key]} == {}


def test_a_slice_that_is_missing_shows_in_both_facts(study: make.Study) -> None:
    found = read(study.pet)
    facts = facts_of(found[:2] + found[3:])
    assert (facts["complete"], facts["complete_reason"]) == (False, "5 of 6 slices")
    assert facts["shape"] is None
    assert facts["affine"] is None
    assert (facts["frames"], facts["slices"]) == (1, 5)
    assert facts["problems"][0].startswith("missing-slice: ")


def test_a_refused_suv_tells_why(tmp_path: Path) -> None:
    found = read(make.study(tmp_path, pet_shape=(3, 8, 8), omit=["PatientWeight"]).pet)
    facts = facts_of(found)
    assert facts["suv"]["status"] == "refused"
    assert facts["suv"]["factor"] is None
    assert facts["suv"]["reason"].startswith("no-weight: Patient's Weight (0010,1030)")
    assert facts["weight_kg"] is None
    assert len(facts["problems"]) == 1


def test_a_series_without_attenuation_correction(tmp_path: Path) -> None:
    found = read(make.study(tmp_path, pet_shape=(3, 8, 8), acquisition={"attenuation_corrected": False}).pet)
    facts = facts_of(found)
    assert facts["attenuation_corrected"] is False
    assert facts["suv"]["reason"].startswith("not-attenuation-corrected: ")


def test_factors_that_differ_between_beds(tmp_path: Path) -> None:
    found = read(make.study(tmp_path, pet_shape=(6, 8, 8), examination={"decay_correction": "NONE", "beds": 2}).pet)
    suv = facts_of(found)["suv"]
    assert suv["factor_min"] < suv["factor_max"]
    assert suv["factor"] in {suv["factor_min"], suv["factor_max"]}


# Kind


@pytest.mark.parametrize(
    ("series_type", "kind"),
    [
        (("STATIC", "IMAGE"), "static"),
        (("WHOLE BODY", "IMAGE"), "static"),
        (("DYNAMIC", "IMAGE"), "dynamic"),
        (("GATED", "IMAGE"), "gated"),
        (("STATIC", "REPROJECTION"), "other"),
        (("STATIC",), "static"),
        (("NEW THING", "IMAGE"), "other"),
        ((), None),
    ],
)
def test_kind(series_type: tuple[str, ...], kind: str | None) -> None:
    assert facts_of(pt(*series_type, count=2))["kind"] == kind


def test_slices_of_several_kinds_are_unknown() -> None:
    facts = facts_of(pt("STATIC", count=2) + pt("DYNAMIC", count=2))
    assert facts["kind"] is None
    assert facts["problems"][0] == "timing: Series Type (0054,1000) differs between instances"


@pytest.mark.parametrize("last", ["128", "130", "128.1"])
def test_storage_classes_of_pet_slices(last: str) -> None:
    assert facts_of(pt("STATIC", count=2, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{last}"))["kind"] == "static"
    assert facts_of(pt(count=2, Modality="CT", SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{last}"))["kind"] == "other"


@pytest.mark.parametrize("last", ["2", "2.1", "2.2"])
def test_storage_classes_of_ct_slices(last: str) -> None:
    assert facts_of(pt(count=2, Modality="CT", SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{last}"))["kind"] == "static"
    assert facts_of(pt("STATIC", count=2, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{last}"))["kind"] == "other"


def test_one_screenshot_makes_a_series_no_stack_of_slices() -> None:
    found = pt("STATIC", count=3, ImageType=["ORIGINAL", "PRIMARY"])
    found[1]["ImageType"] = ["DERIVED", "SECONDARY", "SCREENSHOT"]
    assert facts_of(found)["kind"] == "other"


def test_a_scout_is_no_ct_volume() -> None:
    ct = [{"Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1"}]
    facts = facts_of(ct)
    assert (facts["kind"], facts["problems"]) == ("other", [])


def test_a_report_has_no_layout_and_no_problems() -> None:
    facts = facts_of([{"Modality": "SR", "SOPInstanceUID": "1", "SeriesInstanceUID": "1"}])
    assert (facts["kind"], facts["shape"], facts["problems"]) == ("other", None, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"ImageType": ["DERIVED", "SECONDARY", "MIP"]},
        {"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREENSHOT"]},
        {"ImageType": ["DERIVED", "SECONDARY", "REPROJECTION"]},
        {"ImageType": ["DERIVED", "SECONDARY", "volren"]},
        {"ImageType": ["ORIGINAL", "PRIMARY"], "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        {"ImageType": ["ORIGINAL", "PRIMARY"], "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"},
    ],
    ids=str,
)
def test_images_that_are_no_slices(changes: Header) -> None:
    facts = facts_of(pt("STATIC", "IMAGE", count=2, **changes))
    assert (facts["kind"], facts["primary"], facts["beds"], facts["complete"]) == ("other", False, None, None)


@pytest.mark.parametrize(
    ("image_type", "primary"),
    [
        (["ORIGINAL", "PRIMARY"], True),
        (["DERIVED", "PRIMARY"], True),
        (["ORIGINAL", "PRIMARY", "AXIAL"], True),
        (["DERIVED", "SECONDARY"], False),
        (["DERIVED", "SECONDARY", "REFORMATTED"], False),
        (["STATIC"], None),
        (None, None),
    ],
)
def test_primary(image_type: list[str] | None, primary: bool | None) -> None:
    facts = facts_of(pt("STATIC", count=2, ImageType=image_type))
    assert (facts["primary"], facts["kind"]) == (primary, "static")


def test_a_series_of_primary_and_secondary_images_is_not_primary() -> None:
    found = pt("STATIC", count=2, ImageType=["ORIGINAL", "PRIMARY"])
    found[1]["ImageType"] = ["DERIVED", "SECONDARY"]
    assert facts_of(found)["primary"] is False


@pytest.mark.parametrize(("word", "whole_body"), [("WHOLE BODY", True), ("STATIC", False), (None, None)])
def test_whole_body(word: str | None, whole_body: bool | None) -> None:
    assert facts_of(pt(*filter(None, [word]), count=2))["whole_body"] is whole_body


@pytest.mark.parametrize("series_type", [[], "WHOLE BODY", None])
def test_a_series_type_without_values_says_nothing_of_the_whole_body(series_type: Any) -> None:
    assert facts_of(pt(count=2, SeriesType=series_type))["whole_body"] is None


def test_a_whole_body_of_five_beds(tmp_path: Path) -> None:
    found = read(make.study(tmp_path, pet_shape=(15, 8, 8), examination={"beds": 5}).pet)
    facts = facts_of([{**header, "SeriesType": ["WHOLE BODY", "IMAGE"]} for header in found])
    assert (facts["kind"], facts["whole_body"], facts["beds"], facts["frames"]) == ("static", True, 5, 1)
    assert facts["problems"] == []


def test_frames_without_a_series_type_are_told_by_time() -> None:
    facts = facts_of(pt(count=3, frames=4))
    assert (facts["kind"], facts["frames"]) == ("dynamic", 4)
    assert facts["problems"][0] == (
        "timing: Series Type (0054,1000) is absent; 4 images of each place, one after the other: taken as dynamic"
    )


@pytest.mark.parametrize(
    "changes", [{"AcquisitionTime": "0930"}, {"AcquisitionTime": None}, {"TriggerTime": 100.0}], ids=str
)
def test_frames_without_a_series_type_that_no_time_tells_apart_stay_unknown(changes: Header) -> None:
    facts = facts_of(pt(count=3, frames=4, **changes))
    assert (facts["kind"], facts["frame_times"]) == (None, None)
    assert facts["problems"][0] == "timing: Series Type (0054,1000) is absent"


def test_one_trigger_time_is_enough_to_doubt_that_a_series_is_dynamic() -> None:
    found = pt(count=3, frames=4)
    found[7]["TriggerTime"] = 100.0
    assert facts_of(found)["kind"] is None


def test_a_second_image_of_one_place_contradicts_a_static_series() -> None:
    found = pt("STATIC", count=3)
    facts = facts_of([*found, {**found[1], "SOPInstanceUID": "1.2.99"}])
    assert facts["problems"][0] == "timing: Series Type (0054,1000) says static, there are 2 images of one place"


def test_images_without_a_place_contradict_no_series_type() -> None:
    (problem,) = facts_of(pt("STATIC", count=2, ImagePositionPatient=None))["problems"][:1]
    assert problem.startswith("no-position: ")


@pytest.mark.parametrize("word", ["DYNAMIC", "GATED"])
def test_one_image_of_each_place_contradicts_the_series_type(word: str) -> None:
    facts = facts_of(pt(word, count=3))
    assert (facts["kind"], facts["shape"]) == (word.lower(), [1, 3, 4, 5])
    assert f"timing: Series Type (0054,1000) says {word.lower()}, there is one image of each place" in facts["problems"]


# Completeness


@pytest.mark.parametrize(
    ("found", "whole", "expected"),
    [
        (pt("STATIC", count=3, NumberOfSlices=3), True, 3),
        (pt("STATIC", count=3, NumberOfSlices=3, NumberOfTimeSlices=6), True, 3),
        (pt("STATIC", count=2, NumberOfSlices=3), False, 3),
        (pt("WHOLE BODY", count=3, NumberOfSlices=3, NumberOfRRIntervals=2), True, 3),
        (pt("DYNAMIC", count=3, frames=4, NumberOfSlices=3, NumberOfTimeSlices=4), True, 12),
        (pt("DYNAMIC", count=3, frames=3, NumberOfSlices=3, NumberOfTimeSlices=4), False, 12),
        (pt("GATED", count=2, frames=6, NumberOfSlices=2, NumberOfRRIntervals=1, NumberOfTimeSlots=6), True, 12),
        (pt("GATED", count=2, frames=6, NumberOfSlices=2, NumberOfRRIntervals=2, NumberOfTimeSlots=6), False, 24),
        (pt("DYNAMIC", count=3, frames=4, NumberOfSlices=3), None, None),
        (pt("STATIC", count=3), None, None),
        (pt("STATIC", count=3, NumberOfSlices=0), None, None),
        (pt("STATIC", count=3, NumberOfSlices="3"), None, None),
        (pt("STATIC", count=4, NumberOfSlices=3), None, 3),
        (pt(count=3, NumberOfSlices=3), None, None),
        ([{"Modality": "CT", "NumberOfSlices": 3}], None, None),
    ],
)
def test_completeness(found: list[Header], whole: bool | None, expected: int | None) -> None:
    answer = completeness(found)
    assert (answer.whole, answer.expected) == (whole, expected)
    assert answer.reason


def test_one_header_tells_what_to_expect() -> None:
    found = pt("DYNAMIC", count=1, NumberOfSlices=47, NumberOfTimeSlices=24)
    assert completeness(found) == Completeness(False, 1128, "1 of 1128 slices (47 slices × 24 frames)")


def test_a_slice_under_two_uids_is_one_slice() -> None:
    found = pt("STATIC", count=3, NumberOfSlices=4)
    again = {**found[1], "SOPInstanceUID": "1.2.99"}
    for time in ("090000", "090100"):  # a minute later it would make a second frame, had the series frames
        assert completeness([*found, {**again, "AcquisitionTime": time}]) == Completeness(False, 4, "3 of 4 slices")


def test_counts_that_differ_between_slices_are_no_counts() -> None:
    found = pt("STATIC", count=3, NumberOfSlices=3)
    found[1]["NumberOfSlices"] = 4
    assert completeness(found).whole is None


def test_a_reason_for_the_people_of_the_archive() -> None:
    found = pt("DYNAMIC", count=3, frames=4, NumberOfSlices=3, NumberOfTimeSlices=4)
    assert completeness(found).reason == "12 of 12 slices (3 slices × 4 frames)"
    del found[7], found[2]
    assert completeness(found).reason == (
        "10 of 12 slices (3 slices × 4 frames); missing: slice 3 of frame 1, slice 2 of frame 3"
    )
    assert completeness(pt("STATIC", count=38, NumberOfSlices=47)).reason == "38 of 47 slices"
    assert completeness(pt("STATIC", count=4, NumberOfSlices=3)).reason == (
        "4 slices, more than the 3 that NumberOfSlices says"
    )


@pytest.mark.parametrize(("arrived", "end"), [(31, "slice 9 of frame 4"), (30, " and 1 more"), (29, " and 2 more")])
def test_of_many_missing_slices_five_are_named(arrived: int, end: str) -> None:
    found = pt("DYNAMIC", count=9, frames=4, NumberOfSlices=9, NumberOfTimeSlices=4)
    reason = completeness(found[:arrived]).reason
    assert reason.endswith(end)
    assert reason.count("of frame 4") == 5


def test_a_slice_that_a_gate_lacks_is_named() -> None:
    found = pt("GATED", count=2, frames=6, NumberOfSlices=2, NumberOfRRIntervals=1, NumberOfTimeSlots=6)
    for index, header in enumerate(found):
        header["TriggerTime"] = 100.0 * (index // 2)
    assert completeness(found[:-1]).reason == (
        "11 of 12 slices (2 slices × 1 R-R intervals × 6 gates); missing: slice 2 of gate 6"
    )


def test_single_slices_beside_multi_frame_objects_are_not_counted() -> None:
    found = [multi_frame("1.1"), *pt("STATIC", count=1, NumberOfSlices=3)]
    assert completeness(found) == Completeness(None, None, "this kind of series has no count")


def multi_frame(uid: str, **changes: Any) -> Header:
    return {"Modality": "PT", "SeriesType": ["STATIC", "IMAGE"], "SOPInstanceUID": uid, "Frames": [{}, {}], **changes}


def part(number: int, total: int | None = 3) -> Header:
    return multi_frame(
        f"1.{number}", ConcatenationUID="2.1", InConcatenationNumber=number, InConcatenationTotalNumber=total
    )


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        ([multi_frame("1.1")], Completeness(True, 1, "1 of 1 multi-frame objects")),
        ([multi_frame("1.1"), multi_frame("1.2")], Completeness(True, 2, "2 of 2 multi-frame objects")),
        ([part(2)], Completeness(False, 3, "1 of 3 multi-frame objects")),
        ([part(2), part(1), part(3)], Completeness(True, 3, "3 of 3 multi-frame objects")),
        ([part(2), part(2), part(3)], Completeness(False, 3, "2 of 3 multi-frame objects")),
        ([part(1, None), part(2, 2)], Completeness(True, 2, "2 of 2 multi-frame objects")),
        ([part(1), part(2, 1)], Completeness(None, 1, "2 multi-frame objects, more than the 1 that they count")),
        ([part(1, None)], Completeness(None, None, "InConcatenationTotalNumber is absent from a concatenation")),
    ],
    ids=["one", "two", "a part", "all parts", "a part twice", "count on one part", "wrong count", "no count"],
)
def test_completeness_of_multi_frame_objects(found: list[Header], answer: Completeness) -> None:
    assert completeness(found) == answer


# Layout


def test_dynamic_and_gated_series_have_frames() -> None:
    found = pt("DYNAMIC", count=3, frames=4, NumberOfSlices=3, NumberOfTimeSlices=4)
    facts = facts_of(found)
    assert (facts["shape"], facts["frames"], facts["slices"]) == ([4, 3, 4, 5], 4, 3)
    assert facts["spacing_mm"] == [3.0, 2.0, 2.0]
    assert facts["frame_duration_s"] == 25.0  # middle of 10, 20, 30 and 40 s
    assert facts["frame_times"] == [[0.0, 10.0], [10.0, 20.0], [30.0, 30.0], [60.0, 40.0]]
    assert facts["relative_counts"] is None


def test_what_is_odd_about_the_times_is_among_the_problems() -> None:
    found = pt("DYNAMIC", count=3, frames=4)
    assert facts_of(found[:6] + found[9:])["problems"][0] == "timing: gap of 30.0 s between frames 2 and 3"


def test_a_dynamic_series_with_a_hole_has_no_layout() -> None:
    found = pt("DYNAMIC", count=3, frames=4)
    facts = facts_of(found[:-1])
    assert facts["shape"] is None
    assert facts["problems"][0] == (
        "uneven-frames: slices: expected 3 in each of 4 frames, frame 4 has none at place 3 (6.0 mm along the normal); "
        "1 missing in all"
    )


def test_a_static_series_with_two_frames_is_not_taken_for_a_volume() -> None:
    problems = facts_of(pt("STATIC", count=3, frames=2))["problems"]
    assert problems[0] == "timing: Series Type (0054,1000) says static, there are 2 images of one place"
    assert problems[1].startswith("duplicate-position: ")


# Coverage


def region(low: float, high: float, **changes: Any) -> Header:
    return {
        "affine": [[1]],
        "frame_of_reference_uid": "1.2",
        "orientation": [1.0, 0, 0, 0, 1.0, 0],
        "z_range_mm": [low, high],
        "spacing_mm": [3.0, 1.0, 1.0],
        **changes,
    }


@pytest.mark.parametrize(
    ("ct", "covered", "reason", "fraction"),
    [
        (region(0.0, 90.0), True, "reaches from 0.0 to 90.0 mm", 1.0),
        (region(-50.0, 200.0), True, "reaches from -50.0 to 200.0 mm", 1.0),
        (region(1.5, 88.5), True, "reaches from 1.5 to 88.5 mm", 1.0),  # half a PET slice short at each end
        (region(1.51, 90.0), True, "reaches from 1.5 to 90.0 mm", 1.0),  # and what coordinates are rounded to
        (region(1.6, 90.0), False, "begins 1.6 mm too late, covers 100%", 0.999),
        (region(0.0, 60.0), False, "ends 30.0 mm too early, covers 68%", 61.51 / 90.0),
        (region(30.0, 60.0), False, "begins 30.0 mm too late, covers 37%", 33.02 / 90.0),
        (region(200.0, 300.0), False, "begins 200.0 mm too late, covers 0%", 0.0),
        (region(0.0, 90.0, frame_of_reference_uid="1.3"), False, "another frame of reference", 0.0),
        (region(0.0, 90.0, frame_of_reference_uid=None), False, "another frame of reference", 0.0),
        (region(0.0, 90.0, affine=None), False, "no regular grid, or a gap between slices", 0.0),
        (region(0.0, 90.0, orientation=[0, 1.0, 0, 0, 0, 1.0]), False, "slices are not parallel, 90.0° apart", 0.0),
        (region(0.0, 90.0, orientation=[1.0, 0, 0, 0, 0.96592583, 0.25881905]), False,
         "slices are not parallel, 15.0° apart", 0.0),
        (region(0.0, 90.0, orientation=[1.0, 0, 0, 0, -0.96592583, 0.25881905]), False,
         "slices are not parallel, 15.0° apart", 0.0),
        (region(0.0, 90.0, orientation=[1.0, 0, 0, 0, 0.999, 0.04471]), True, "reaches from 0.0 to 90.0 mm", 1.0),
        (region(0.0, 90.0, orientation=[1.0, 0, 0, 0, 0.9989, 0.04689]), False,
         "slices are not parallel, 2.7° apart", 0.0),
        (region(-95.0, 5.0, orientation=[1.0, 0, 0, 0, -1.0, 0]), True, "reaches from -5.0 to 95.0 mm", 1.0),
        (region(0.0, 90.0, orientation=[1.0, 0, 0, 0, -1.0, 0]), False, "ends 90.0 mm too early, covers 2%", 1.51 / 90),
    ],
)  # fmt: skip
def test_coverage(ct: Header, covered: bool, reason: str, fraction: float) -> None:
    answer = covers(ct, region(0.0, 90.0))
    assert (answer.covered, answer.reason) == (covered, reason)
    assert answer.fraction == pytest.approx(fraction, abs=1e-9)


@pytest.mark.parametrize(
    ("ct", "reason", "fraction"),
    [
        (region(-70.0, 0.0), "begins 30.0 mm too late, covers 68%", 61.51 / 90.0),
        (region(-100.0, -40.0), "ends 30.0 mm too early, covers 68%", 61.51 / 90.0),
    ],
)
def test_coverage_far_from_the_origin(ct: Header, reason: str, fraction: float) -> None:
    answer = covers(ct, region(-100.0, -10.0))
    assert (answer.covered, answer.reason) == (False, reason)
    assert answer.fraction == pytest.approx(fraction, abs=1e-9)


def test_a_single_slice_is_covered_or_not() -> None:
    slice_at_40 = region(40.0, 40.0)
    assert covers(region(0.0, 90.0), slice_at_40).covered
    missed = covers(region(60.0, 90.0), slice_at_40)
    assert (missed.covered, missed.fraction) == (False, 0.0)


def test_of_several_cts_the_fraction_tells_which_reaches_furthest() -> None:
    cts = [region(0.0, 30.0), region(0.0, 80.0), region(-20.0, 40.0)]
    assert max(cts, key=lambda ct: covers(ct, region(0.0, 90.0)).fraction) is cts[1]


def test_the_ct_of_a_study_covers_its_pet_and_half_of_it_does_not(study: make.Study) -> None:
    pet, ct = facts_of(read(study.pet)), facts_of(read(study.ct))
    assert covers(ct, pet).covered
    assert not covers(facts_of(read(study.ct)[: len(study.ct) // 2]), pet).covered


# Single facts


@pytest.mark.parametrize(
    ("changes", "age"),
    [
        ({"PatientAge": "059Y"}, 59.0),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "026W"}, 0.5),
        ({"PatientAge": "100D"}, 0.27),
        ({"PatientBirthDate": "20251122", "StudyDate": "20260302"}, 0.27),
        ({"PatientBirthDate": "20260302", "SeriesDate": "20260302", "StudyDate": "20270101"}, 0.0),
        ({"PatientBirthDate": "20260302"}, None),
        ({"PatientBirthDate": "19600302", "SeriesDate": "20260302"}, 66.0),
        ({"PatientBirthDate": "20270302", "SeriesDate": "20260302"}, None),
        ({"PatientAge": "old"}, None),
    ],
)
def test_age(changes: Header, age: float | None) -> None:
    assert facts_of(pt("STATIC", count=2, **changes))["patient_age_y"] == age


INJECTION = {
    "RadionuclideTotalDose": 350e6,
    "RadionuclideHalfLife": 6586.2,
    "RadiopharmaceuticalStartDateTime": "20260302080000",
}


@pytest.mark.parametrize(
    ("injection", "weight_kg", "relative"),
    [
        # 350 MBq · 1.5 min / 75 kg = 7 MBq·min/kg, and F-18 at 60 min: the reference itself.
        ({}, 75.0, 1.0),
        # 35 MBq, a tenth of it.
        ({"RadionuclideTotalDose": 35e6}, 75.0, 0.1),
        # twice the weight
        ({}, 150.0, 0.5),
        # two half-lives of F-18 earlier (219.54 min) a quarter would be left of what is left at 60 min
        ({"RadiopharmaceuticalStartDateTime": "20260302042027.6"}, 75.0, 0.25),
        # Ga-68: 2^(-3600/4057.7) = 0.54066, F-18: 2^(-3600/6586.2) = 0.68462; 0.54066/0.68462 = 0.78972
        ({"RadionuclideHalfLife": 4057.7}, 75.0, 0.7897),
        ({"RadionuclideTotalDose": None}, 75.0, None),
        ({"RadionuclideHalfLife": None}, 75.0, None),
        ({"RadiopharmaceuticalStartDateTime": None}, 75.0, None),
        ({}, None, None),
    ],
    ids=["reference", "tenth", "heavy", "late", "Ga-68", "no dose", "no half-life", "no injection", "no weight"],
)
def test_relative_counts(injection: Header, weight_kg: float | None, relative: float | None) -> None:
    given = [{**INJECTION, **injection}]
    found = pt(
        "WHOLE BODY",
        count=2,
        ActualFrameDuration=90_000,
        PatientWeight=weight_kg,
        RadiopharmaceuticalInformationSequence=given,
    )
    assert facts_of(found)["relative_counts"] == relative


def test_relative_counts_need_a_duration_and_a_static_series() -> None:
    given = {"PatientWeight": 75.0, "RadiopharmaceuticalInformationSequence": [INJECTION]}
    assert facts_of(pt("STATIC", count=2, **given))["relative_counts"] is not None
    assert facts_of(pt("STATIC", count=2, ActualFrameDuration=None, **given))["relative_counts"] is None
    assert facts_of(pt("DYNAMIC", count=2, **given))["relative_counts"] is None


def test_what_the_sender_calls_things() -> None:
    said = {
        "SeriesInstanceUID": "1.2.3",
        "Modality": "PT",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128",
        "Manufacturer": "SIEMENS",
        "StationName": "CT1",
        "ManufacturerModelName": "Vision",
        "ProtocolName": "WB",
        "SeriesDescription": "PET AC",
        "StudyDescription": "PET/CT",
        "BodyPartExamined": "CHEST",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "SliceThickness": 3.0,
    }
    assert list(description.series_description([said]).values()) == list(said.values())
    assert description.series_description([{**said, "ImageType": None}])["image_type"] == []


@pytest.mark.parametrize(
    ("durations_ms", "seconds"), [((1, 0), 0.001), ((None, 90_000), 90.0), ((0, -1), None), ((10, 30), 0.02)]
)
def test_frame_duration_is_the_middle_of_those_that_are_one(durations_ms: tuple[Any, Any], seconds: Any) -> None:
    found = [
        {**header, "ActualFrameDuration": ms} for header, ms in zip(pt("STATIC", count=2), durations_ms, strict=True)
    ]
    assert facts_of(found)["frame_duration_s"] == seconds


def test_uptake_is_told_to_a_thousandth_of_a_minute() -> None:
    given = [{**INJECTION, "RadiopharmaceuticalStartDateTime": "20260302085950"}]
    facts = facts_of(pt("STATIC", count=2, PatientSex="F", RadiopharmaceuticalInformationSequence=given))
    assert (facts["uptake_min"], facts["sex"]) == (0.167, "F")


def test_our_own_series_is_recognised() -> None:
    equipment = {
        "Manufacturer": "tracerd",
        "ManufacturerModelName": "lowcount_denoising",
        "PurposeOfReferenceCodeSequence": [{"CodeValue": "109102", "CodingSchemeDesignator": "DCM"}],
    }
    more = [{"CodeValue": "109101", "CodingSchemeDesignator": "DCM"}, *equipment["PurposeOfReferenceCodeSequence"]]
    several = {**equipment, "PurposeOfReferenceCodeSequence": more}
    assert facts_of(pt("STATIC", count=2, ContributingEquipmentSequence=[several]))["produced_by"] is not None
    scanner = {**equipment, "Manufacturer": "SIEMENS"}
    assert facts_of(pt("STATIC", count=2, ContributingEquipmentSequence=[scanner, equipment]))["produced_by"] == (
        "lowcount_denoising"
    )
    assert facts_of(pt("STATIC", count=2, ContributingEquipmentSequence=[scanner]))["produced_by"] is None


def test_what_the_writers_call_themselves_is_what_we_look_for() -> None:
    from dicom_io.write import header

    assert description.MANUFACTURER == header.MANUFACTURER
    assert description.PROCESSING_EQUIPMENT == header.PROCESSING_EQUIPMENT


ODD = st.one_of(
    st.none(), st.text(max_size=5), st.integers(-5, 10**6), st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers(0, 5), max_size=3),
    st.just([{"CodeValue": "1"}]), st.just([{}]), st.just([None]), st.just("1e400"),
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(headers.HEADER_KEYWORDS), ODD, max_size=6), every=st.booleans())
def test_understanding_never_fails_whatever_a_header_holds(
    three_slices: list[Path], changes: dict[str, Any], *, every: bool
) -> None:
    found = read(three_slices)
    for header in found if every else found[1:2]:
        header.update(changes)
    facts = facts_of(found)
    assert set(facts) == SPEC
    completeness(found)
    json.dumps(facts, allow_nan=False)


def test_changing_a_slice_in_the_file_reaches_the_facts(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        if dataset.Modality == "PT":
            dataset.SeriesDescription = "PET PSMA"

    facts = facts_of(read(make.study(tmp_path, pet_shape=(3, 8, 8), edit=edit).pet))
    assert (facts["tracer"], facts["tracer_confidence"]) == (None, "conflict")
    assert facts["tracer_conflicts"]
    assert facts["problems"] == [f"tracer: {conflict}" for conflict in facts["tracer_conflicts"]]


@pytest.mark.parametrize("keyword", ["SeriesDescription", "ProtocolName"])
def test_the_texts_that_may_contradict_a_tracer(study: make.Study, keyword: str) -> None:
    facts = facts_of([{**header, keyword: "PET PSMA"} for header in read(study.pet)])
    assert (facts["tracer"], facts["tracer_confidence"]) == (None, "conflict")


def test_a_description_that_denies_the_attenuation_correction(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        if dataset.Modality == "PT":
            dataset.SeriesDescription = "WB_NAC"

    facts = facts_of(read(make.study(tmp_path, pet_shape=(3, 8, 8), edit=edit).pet))
    assert facts["attenuation_corrected"] is None
    assert facts["problems"][0] == (
        "attenuation: series description says not attenuation-corrected, the header's attributes say corrected"
    )
    assert facts["suv"]["status"] == "refused"
