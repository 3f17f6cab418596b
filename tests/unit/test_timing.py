"""Frames and gates: every order of slices, every clock, gaps, overlaps, midnight, missing slices, beds."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from math import exp, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_io import timing
from dicom_io.errors import GeometryRefused
from dicom_io.timing import bed_positions, mean_activity_s, missing_slices, split

Header = dict[str, Any]
STARTED = datetime(2026, 3, 2, 9, 30)
DECAY_PER_S = log(2.0) / 1221.8  # C-11
SCHEDULE_S = [(0.0, 10.0), (10.0, 10.0), (20.0, 30.0), (50.0, 60.0), (110.0, 300.0)]
"""Start and duration of frames that follow each other, as of a dynamic C-11 scan."""


def slice_at(z: int, **changes: Any) -> Header:
    return {
        "Modality": "PT",
        "FrameOfReferenceUID": "1.2.4",
        "Rows": 4,
        "Columns": 5,
        "PixelSpacing": [2.0, 2.0],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "ImagePositionPatient": [0.0, 0.0, 3.0 * z],
        **changes,
    }


def clock(seconds: float) -> Header:
    at = STARTED + timedelta(seconds=seconds)
    return {"AcquisitionDate": f"{at:%Y%m%d}", "AcquisitionTime": f"{at:%H%M%S.%f}"}


def mean_time_s(duration_s: float, decay_per_s: float = DECAY_PER_S) -> float:
    """Mean of e^−λt over the frame is reached at this t, found without the closed formula: midpoint sum, bisection."""
    mean = np.exp(-decay_per_s * duration_s * (np.arange(20000) + 0.5) / 20000).mean()
    low, high = 0.0, duration_s
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if exp(-decay_per_s * middle) > mean else (low, middle)
    return low


def dynamic(schedule: list[tuple[float, float]] = SCHEDULE_S, places: int = 3, **changes: Any) -> list[Header]:
    """Frame-major, z-minor; acquisition times, and Frame Reference Times as the standard has them."""
    return [
        slice_at(
            z,
            **clock(start_s),
            ActualFrameDuration=round(duration_s * 1000.0),
            FrameReferenceTime=1000.0 * (start_s + mean_time_s(duration_s)),
            ImageIndex=frame * places + z + 1,
            NumberOfSlices=places,
            NumberOfTimeSlices=len(schedule),
            RadiopharmaceuticalInformationSequence=[{"RadionuclideHalfLife": 1221.8}],
            **changes,
        )
        for frame, (start_s, duration_s) in enumerate(schedule)
        for z in range(places)
    ]


def without(found: list[Header], *keywords: str) -> list[Header]:
    return [{keyword: value for keyword, value in header.items() if keyword not in keywords} for header in found]


def times_of(found: timing.Timeline) -> list[tuple[float | None, float | None]]:
    return [(frame.start_s, frame.duration_s) for frame in found.frames]


def expected_indices(frames: int, places: int) -> list[tuple[int, ...]]:
    return [tuple(range(frame * places, (frame + 1) * places)) for frame in range(frames)]


def refusal(found: list[Header], kind: str = "dynamic") -> GeometryRefused:
    with pytest.raises(GeometryRefused) as caught:
        split(found, kind)
    return caught.value


# Dynamic


def test_frames_of_a_dynamic_series() -> None:
    found = split(dynamic(), "dynamic")
    assert times_of(found) == SCHEDULE_S
    assert [frame.indices for frame in found.frames] == expected_indices(5, 3)
    assert (found.grid.shape, found.grid.order) == ((3, 4, 5), (0, 1, 2))
    assert found.problems == ()


@given(seed=st.integers(0, 10**6))
def test_the_order_of_the_headers_means_nothing(seed: int) -> None:
    slices = dynamic()
    order = list(range(len(slices)))
    random.Random(seed).shuffle(order)
    found = split([slices[index] for index in order], "dynamic")
    assert times_of(found) == SCHEDULE_S
    assert [tuple(order[index] for index in frame.indices) for frame in found.frames] == expected_indices(5, 3)
    assert found.grid.order == found.frames[0].indices
    assert found.problems == ()


def test_instance_and_image_numbers_that_run_backwards_do_not_turn_time() -> None:
    slices = dynamic()
    for index, header in enumerate(slices):
        header["InstanceNumber"] = header["ImageIndex"] = len(slices) - index
    found = split(slices, "dynamic")
    assert times_of(found) == SCHEDULE_S
    assert [frame.indices for frame in found.frames] == expected_indices(5, 3)
    assert found.problems == (
        "timing: Image Index (0054,1330) runs against Acquisition Time (0008,0032), which decides",
    )


def test_an_index_in_disorder_is_reported() -> None:
    slices = dynamic()
    for header in slices[:3]:
        header["ImageIndex"] += 6
    assert split(slices, "dynamic").problems == (
        "timing: Image Index (0054,1330) does not follow Acquisition Time (0008,0032), which decides",
    )


@pytest.mark.parametrize("meant", ["mean", "middle", "start", "end"])
def test_frame_reference_time_alone_gives_the_starts_whatever_it_is_the_time_of(meant: str) -> None:
    offset = {"mean": mean_time_s, "middle": lambda d: d / 2.0, "start": lambda d: 0.0, "end": lambda d: d}[meant]
    slices = without(dynamic(), "AcquisitionTime", "AcquisitionDate")
    for index, header in enumerate(slices):
        start_s, duration_s = SCHEDULE_S[index // 3]
        header["FrameReferenceTime"] = 1000.0 * (700.0 + start_s + offset(duration_s))
    found = split(slices, "dynamic")
    # The middle of a 5 min frame is 2.1 s after its time of mean activity: λT²/24 with C-11's λ = ln2/1221.8 s.
    assert [frame.start_s for frame in found.frames] == pytest.approx([start for start, _ in SCHEDULE_S], abs=0.001)
    said = [] if meant == "mean" else [
        f"timing: Frame Reference Time (0054,1300) is the {meant} of each frame, not its time of mean activity"
    ]  # fmt: skip
    assert list(found.problems) == said


def test_one_acquisition_time_for_all_frames_leaves_it_to_frame_reference_time() -> None:
    slices = [{**header, **clock(0.0)} for header in dynamic()]
    found = split(slices, "dynamic")
    assert [frame.start_s for frame in found.frames] == pytest.approx([start for start, _ in SCHEDULE_S], abs=0.001)
    assert found.problems == (
        "timing: Acquisition Time (0008,0032) does not tell the frames apart, Frame Reference Time (0054,1300) does",
    )


@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        ("TemporalPositionIndex", "Temporal Position Index (0020,9128)"),
        ("TemporalPositionIdentifier", "Temporal Position Identifier (0020,0100)"),
    ],
)
def test_temporal_positions_alone_give_an_order_and_no_times(keyword: str, name: str) -> None:
    slices = without(dynamic(), "AcquisitionTime", "FrameReferenceTime", "ImageIndex")
    for index, header in enumerate(slices):
        header[keyword] = 5 - index // 3
    found = split(slices, "dynamic")
    assert times_of(found) == [(None, duration_s) for _, duration_s in reversed(SCHEDULE_S)]
    assert [frame.indices for frame in found.frames] == expected_indices(5, 3)[::-1]
    assert found.problems == (f"timing: no time tells the frames apart, {name} does",)


def test_slices_of_a_frame_may_differ_by_less_than_the_tolerance() -> None:
    slices = dynamic()
    for index, header in enumerate(slices):
        start_s = SCHEDULE_S[index // 3][0]
        header |= clock(start_s + (0.0, 0.2, 0.4)[index % 3] * (index >= 3))
    assert times_of(split(slices, "dynamic")) == SCHEDULE_S


def test_image_index_is_the_last_clock() -> None:
    slices = without(dynamic(), "AcquisitionTime", "FrameReferenceTime")
    found = split(slices[::-1], "dynamic")
    assert [frame.indices for frame in found.frames] == [tuple(14 - i for i in row) for row in expected_indices(5, 3)]
    assert {frame.start_s for frame in found.frames} == {None}


def test_frames_that_nothing_tells_apart_are_refused() -> None:
    slices = without(dynamic(), "AcquisitionTime", "FrameReferenceTime", "ImageIndex")
    refused = refusal(slices)
    assert refused.code == "frame-order"
    assert "Acquisition Time (0008,0032)" in str(refused)


def test_two_clocks_with_two_orders_are_refused() -> None:
    slices = dynamic()
    for header, other in zip(slices, slices[::-1], strict=True):
        header["Reversed"] = other["FrameReferenceTime"]
    refused = refusal([{**header, "FrameReferenceTime": header["Reversed"]} for header in slices])
    assert refused.code == "frame-order"
    assert "Acquisition Time (0008,0032) and Frame Reference Time (0054,1300) say two" in str(refused)


def test_frame_reference_times_that_contradict_the_acquisition_are_reported() -> None:
    slices = dynamic()
    for header in slices[9:]:
        header["FrameReferenceTime"] += 20_000.0
    assert split(slices, "dynamic").problems == (
        "timing: frame 4 starts at 50.0 s by Acquisition Time (0008,0032), 70.0 s by Frame Reference Time (0054,1300)",
    )


def test_frame_reference_times_that_are_all_nought_say_nothing() -> None:
    assert split([{**header, "FrameReferenceTime": 0.0} for header in dynamic()], "dynamic").problems == ()


def test_a_gap_is_reported() -> None:
    found = split(dynamic([(0.0, 10.0), (10.0, 10.0), (25.0, 30.0)]), "dynamic")
    assert times_of(found) == [(0.0, 10.0), (10.0, 10.0), (25.0, 30.0)]
    assert found.problems == ("timing: gap of 5.0 s between frames 2 and 3",)


def test_an_overlap_is_reported() -> None:
    found = split(dynamic([(0.0, 10.0), (6.0, 10.0), (16.0, 30.0)]), "dynamic")
    assert found.problems == ("timing: frames 1 and 2 overlap by 4.0 s",)


@pytest.mark.parametrize(
    ("gap_s", "duration_s", "reported"),
    [
        (0.4, 10.0, False),
        (0.6, 10.0, True),
        (-0.4, 10.0, False),
        (-0.6, 10.0, True),
        (5.5, 600.0, False),
        (6.5, 600.0, True),
    ],
)
def test_times_agree_within_half_a_second_or_one_per_cent(gap_s: float, duration_s: float, reported: bool) -> None:
    schedule = [(0.0, duration_s), (duration_s + gap_s, duration_s)]
    assert bool(split(dynamic(schedule), "dynamic").problems) is reported


def test_many_gaps_are_counted() -> None:
    problems = split(dynamic([(20.0 * count, 10.0) for count in range(10)]), "dynamic").problems
    assert len(problems) == 6
    assert problems[-1] == "timing: 4 more gaps or overlaps"


@pytest.mark.parametrize("date", ["follows", "stays", "absent"])
def test_a_scan_across_midnight(date: str) -> None:
    slices = dynamic()
    for index, header in enumerate(slices):
        at = datetime(2026, 3, 2, 23, 59, 35) + timedelta(seconds=SCHEDULE_S[index // 3][0])
        header |= {"AcquisitionTime": f"{at:%H%M%S}", "SeriesDate": "20260302"}
        header["AcquisitionDate"] = {"follows": f"{at:%Y%m%d}", "stays": "20260302", "absent": None}[date]
    found = split(slices, "dynamic")
    assert times_of(found) == SCHEDULE_S
    assert found.problems == ()


def test_two_scans_of_one_series_on_two_days_stay_two_days_apart() -> None:
    found = split(dynamic([(0.0, 600.0), (86400.0, 600.0)]), "dynamic")
    assert times_of(found) == [(0.0, 600.0), (86400.0, 600.0)]
    assert found.problems == ("timing: gap of 85800.0 s between frames 1 and 2",)


def test_a_missing_slice_is_named() -> None:
    slices = dynamic()
    del slices[2 * 3 + 1]
    refused = refusal(slices)
    assert refused.code == "uneven-frames"
    assert str(refused) == (
        "slices: expected 3 in each of 5 frames, frame 3 has none at place 2 (3.0 mm along the normal); "
        "1 missing in all"
    )
    assert missing_slices(slices, "dynamic") == [(2, 1)]


def test_a_missing_slice_is_counted_where_no_clock_names_it() -> None:
    slices = without(dynamic(), "AcquisitionTime", "FrameReferenceTime", "ImageIndex")
    assert str(refusal(slices[:-1])) == "slices: expected the same number of frames at each place, got 4 to 5"
    assert missing_slices(slices[:-1], "dynamic") == []


def test_a_slice_sent_twice_under_two_uids_is_refused() -> None:
    slices = dynamic()
    assert refusal([*slices, slices[4]]).code == "uneven-frames"


def test_a_place_that_all_frames_lack_is_a_gap_of_the_grid() -> None:
    assert refusal([header for header in dynamic(places=5) if header["ImagePositionPatient"][2] != 6.0]).code == (
        "missing-slice"
    )


def test_a_frame_that_is_shifted_sideways_is_refused() -> None:
    slices = dynamic()
    for header in slices[6:9]:
        header["ImagePositionPatient"] = [5.0, 0.0, header["ImagePositionPatient"][2]]
    refused = refusal(slices)
    assert (refused.code, str(refused)) == (
        "uneven-frames",
        "slices: expected one grid for all frames, that of frame 3 is 5.00 mm off",
    )


def test_wrong_number_of_time_slices_is_reported() -> None:
    assert split([{**header, "NumberOfTimeSlices": 6} for header in dynamic()], "dynamic").problems == (
        "timing: NumberOfTimeSlices says 6 frames, there are 5",
    )


def test_a_frame_whose_slices_last_differently_has_no_duration() -> None:
    slices = dynamic()
    slices[4]["ActualFrameDuration"] = 12_000
    found = split(slices, "dynamic")
    assert [frame.duration_s for frame in found.frames] == [10.0, None, 30.0, 60.0, 300.0]
    assert found.problems == ("timing: Actual Frame Duration (0018,1242) absent or not one value in frames 2",)


def test_passes_over_several_beds_are_frames_without_one_start() -> None:
    slices = dynamic([(0.0, 60.0), (300.0, 60.0)], places=4)
    for index, header in enumerate(slices):
        header |= clock((0.0, 300.0)[index // 4] + (0.0, 70.0)[index % 4 // 2])
    found = split(slices, "dynamic")
    assert [frame.indices for frame in found.frames] == expected_indices(2, 4)
    assert times_of(found) == [(None, 60.0), (None, 60.0)]
    assert found.problems == ("timing: slices of one frame lie up to 70.0 s apart, so frames have no one start",)


def test_frames_of_one_bed_after_those_of_another_are_refused() -> None:
    slices = dynamic([(0.0, 60.0), (60.0, 60.0)], places=4)
    for index, header in enumerate(slices):
        header |= clock(60.0 * (index // 4) + (0.0, 120.0)[index % 4 // 2])
    assert refusal(slices).code == "frame-times"


def test_one_frame_of_a_dynamic_series() -> None:
    bare = without(dynamic(SCHEDULE_S[:1]), "AcquisitionTime", "FrameReferenceTime", "ImageIndex")
    assert times_of(split(bare, "dynamic")) == [(0.0, 10.0)]


def test_slices_without_a_place_are_refused() -> None:
    assert refusal(without(dynamic(), "ImagePositionPatient")).code == "no-position"


# Gated


def gated(slots: int = 8, places: int = 3, intervals: int = 1) -> list[Header]:
    """Eight gates of a beat of 800 ms, unless said otherwise."""
    return [
        slice_at(
            z,
            TriggerTime=100.0 * slot,
            ImageIndex=(interval * slots + slot) * places + z + 1,
            ActualFrameDuration=600_000,
            NumberOfSlices=places,
            NumberOfTimeSlots=slots,
            NumberOfRRIntervals=intervals,
        )
        for interval in range(intervals)
        for slot in range(slots)
        for z in range(places)
    ]


def test_eight_gates() -> None:
    slices = gated()
    found = split(slices[::-1], "gated")
    assert [frame.trigger_ms for frame in found.frames] == [0.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0]
    assert times_of(found) == [(None, 600.0)] * 8
    assert [tuple(23 - index for index in frame.indices) for frame in found.frames] == expected_indices(8, 3)
    assert found.problems == ()


def test_gates_of_two_beats_are_told_apart_by_image_index() -> None:
    found = split(gated(slots=2, intervals=2), "gated")
    assert [frame.trigger_ms for frame in found.frames] == [0.0, 100.0, 0.0, 100.0]
    assert [frame.indices for frame in found.frames] == expected_indices(4, 3)
    assert found.problems[0] == (
        "timing: Trigger Time (0018,1060) does not tell the frames apart, Image Index (0054,1330) does"
    )


def test_respiratory_gates_without_trigger_times() -> None:
    found = split(without(gated(slots=4), "TriggerTime"), "gated")
    assert [frame.trigger_ms for frame in found.frames] == [None] * 4
    assert [frame.indices for frame in found.frames] == expected_indices(4, 3)


def test_wrong_number_of_gates_is_reported() -> None:
    assert split([{**header, "NumberOfTimeSlots": 6} for header in gated()], "gated").problems == (
        "timing: NumberOfRRIntervals × NumberOfTimeSlots says 6 gates, there are 8",
    )


def test_a_gate_that_lacks_a_slice_is_named() -> None:
    slices = gated()
    del slices[5 * 3]
    assert "frame 6 has none at place 1 (0.0 mm" in str(refusal(slices, "gated"))


# Static


def test_a_static_series_is_one_frame() -> None:
    slices = [slice_at(z, ActualFrameDuration=90_000, NumberOfTimeSlices=6) for z in (2, 0, 1)]
    found = split(slices, "static")
    assert times_of(found) == [(0.0, 90.0)]
    assert found.frames[0].indices == found.grid.order == (1, 2, 0)
    assert found.problems == ()


def test_beds_of_different_length_have_no_one_duration() -> None:
    slices = [slice_at(z, ActualFrameDuration=90_000 + 30_000 * (z > 1)) for z in range(4)]
    assert times_of(split(slices, "static")) == [(0.0, None)]


def test_a_static_series_with_two_images_of_a_place_is_refused() -> None:
    assert refusal(dynamic(SCHEDULE_S[:2]), "static").code == "duplicate-position"


def beds(times_s: list[float], **changes: Any) -> list[Header]:
    return [slice_at(z, **clock(at), **changes) for z, at in enumerate(times_s)]


@pytest.mark.parametrize(
    ("times_s", "count"),
    [
        ([0.0] * 10, 1),
        ([480.0] * 4 + [360.0] * 3 + [240.0] * 3 + [120.0] * 3 + [0.0] * 4, 5),
        ([0.0, 0.0, 120.0, 120.0, 0.0, 0.0, 120.0, 120.0], None),
        ([float(z) for z in range(8)], None),
        ([0.0, 0.0, 120.0, 120.0], 2),
        ([0.0, 0.0, 120.0], None),
    ],
    ids=["one", "five from the feet up", "interleaved", "moving bed", "two of two slices", "too few slices"],
)
def test_bed_positions(times_s: list[float], count: int | None) -> None:
    slices = beds(times_s)
    assert bed_positions(slices) == count
    assert bed_positions(slices[::-1]) == count


def test_beds_by_frame_reference_time_where_the_acquisition_time_is_the_same() -> None:
    slices = [{**header, "FrameReferenceTime": 1000.0 * (z // 3)} for z, header in enumerate(beds([0.0] * 9))]
    assert bed_positions(slices) == 3


def test_beds_of_slices_without_times_or_places_are_unknown() -> None:
    assert bed_positions(without(beds([0.0] * 4), "AcquisitionTime")) is None
    assert bed_positions(without(beds([0.0] * 4), "ImagePositionPatient")) is None


# Time of mean activity


@pytest.mark.parametrize("duration_s", [5.0, 60.0, 600.0, 3600.0])
def test_time_of_mean_activity(duration_s: float) -> None:
    assert mean_activity_s(duration_s, DECAY_PER_S) == pytest.approx(mean_time_s(duration_s), rel=1e-6)


def test_time_of_mean_activity_without_decay_is_the_middle() -> None:
    assert mean_activity_s(60.0, None) == 30.0
    assert mean_activity_s(60.0, 0.0) == 30.0
    # 1 s of Zr-89 (282240 s): λT/24 = 1e-7 of the duration before the middle.
    assert mean_activity_s(1.0, log(2.0) / 282240.0) == pytest.approx(0.5, abs=1e-6)
