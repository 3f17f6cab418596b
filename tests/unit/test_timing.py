"""Frames and gates: every order of slices, every clock, gaps, overlaps, midnight, missing slices, beds."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from itertools import permutations
from math import exp, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_io import timing
from dicom_io.errors import GeometryRefused
from dicom_io.timing import acquired_s, bed_positions, mean_activity_s, missing_slices, split

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


@settings(max_examples=30)
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


ORDERS = {
    "TemporalPositionIndex": "Temporal Position Index (0020,9128)",
    "TemporalPositionIdentifier": "Temporal Position Identifier (0020,0100)",
    "ImageIndex": "Image Index (0054,1330)",
}


@pytest.mark.parametrize(("keyword", "name"), ORDERS.items())
@pytest.mark.parametrize(
    ("positions", "word"),
    [([1, 2, 3, 4, 5], None), ([5, 4, 3, 2, 1], "runs against"), ([1] * 5, "does not follow")],
    ids=["follows", "backwards", "one for all"],
)
@pytest.mark.parametrize("decides", ["Acquisition Time (0008,0032)", "Frame Reference Time (0054,1300)"])
def test_every_order_is_compared_with_the_clock_that_decides(
    keyword: str, name: str, positions: list[int], word: str | None, decides: str
) -> None:
    slices = without(dynamic(), "ImageIndex", *(["AcquisitionTime"] if decides.startswith("Frame") else []))
    for index, header in enumerate(slices):
        header[keyword] = positions[index // 3]
    said = () if word is None else (f"timing: {name} {word} {decides}, which decides",)
    assert split(slices, "dynamic").problems == said


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


def test_a_clock_must_tell_the_frames_apart_at_every_place() -> None:
    """Acquisition Time is a frame's own at the first place only."""
    slices = [header if index % 3 == 0 else {**header, **clock(0.0)} for index, header in enumerate(dynamic())]
    found = split(slices, "dynamic")
    assert [frame.start_s for frame in found.frames] == pytest.approx([start for start, _ in SCHEDULE_S], abs=0.001)
    assert len(found.problems) == 1


def by_reference(schedule: list[tuple[float, float]], half_life_s: float | None) -> list[Header]:
    """Frame Reference Time, the time of mean activity, is the only clock."""
    slices = without(dynamic(schedule), "AcquisitionTime", "AcquisitionDate")
    known = half_life_s is not None and half_life_s > 0.0
    for index, header in enumerate(slices):
        start_s, duration_s = schedule[index // 3]
        mean_s = mean_time_s(duration_s, log(2.0) / half_life_s) if known else duration_s / 2.0
        header["FrameReferenceTime"] = 1000.0 * (start_s + mean_s)
        header["RadiopharmaceuticalInformationSequence"] = [{"RadionuclideHalfLife": half_life_s}]
    return slices


@pytest.mark.parametrize("half_life_s", [None, 0.0, -1221.8, 1.0, 76.38])
def test_the_half_life_tells_how_early_in_a_frame_the_mean_is_reached(half_life_s: float | None) -> None:
    """Half-way where none is known; of 300 s of Rb-82 after 118 s."""
    found = split(by_reference(SCHEDULE_S, half_life_s), "dynamic")
    assert [frame.start_s for frame in found.frames] == pytest.approx([start for start, _ in SCHEDULE_S], abs=0.001)
    assert found.problems == ()


def test_where_no_reading_of_frame_reference_time_joins_the_frames_the_standards_is_taken() -> None:
    found = split(by_reference([(0.0, 10.0), (10.0, 300.0), (400.0, 600.0)], 1221.8), "dynamic")
    assert [frame.start_s for frame in found.frames] == pytest.approx([0.0, 10.0, 400.0], abs=0.001)
    assert found.problems == ("timing: gap of 90.0 s between frames 2 and 3",)


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


@pytest.mark.parametrize(("frames", "told"), [(1, 0), (2, 1)])
def test_one_frame_needs_no_time_that_tells_it_apart(frames: int, told: int) -> None:
    slices = without(dynamic(SCHEDULE_S[:frames]), "AcquisitionTime", "FrameReferenceTime")
    assert len(split(slices, "dynamic").problems) == told


def test_slices_of_a_frame_may_differ_by_less_than_the_tolerance() -> None:
    slices = dynamic()
    for index, header in enumerate(slices):
        start_s = SCHEDULE_S[index // 3][0]
        header |= clock(start_s + (0.0, 0.2, 0.4)[index % 3] * (index >= 3))
    assert times_of(split(slices, "dynamic")) == SCHEDULE_S


@pytest.mark.parametrize(("apart_s", "one_start"), [(0.5, True), (0.51, False)])
def test_slices_of_every_frame_must_begin_together(apart_s: float, one_start: bool) -> None:
    """To half a second, here those of the second frame."""
    slices = dynamic()
    slices[5] |= clock(10.0 + apart_s)
    found = split(slices, "dynamic")
    assert [frame.start_s for frame in found.frames] == (
        [start for start, _ in SCHEDULE_S] if one_start else [None] * 5
    )
    assert len(found.problems) == (not one_start)


def test_image_index_is_the_last_clock() -> None:
    slices = without(dynamic(), "AcquisitionTime", "FrameReferenceTime")
    found = split(slices[::-1], "dynamic")
    assert [frame.indices for frame in found.frames] == [tuple(14 - i for i in row) for row in expected_indices(5, 3)]
    assert {frame.start_s for frame in found.frames} == {None}


def test_frames_that_nothing_tells_apart_are_refused() -> None:
    slices = without(dynamic(), "AcquisitionTime", "FrameReferenceTime", "ImageIndex")
    refused = refusal(slices)
    assert refused.code == "frame-order"
    assert str(refused) == (
        "slices: expected frames to differ in one of Acquisition Time (0008,0032), Frame Reference Time (0054,1300), "
        f"{', '.join(ORDERS.values())}; none does at every place"
    )


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


@pytest.mark.parametrize(
    ("later_s", "told"),
    [
        ((0.0, 0.5, 0.0, 0.0, 0.0), None),
        ((0.0, 0.5, 0.51, 0.0, 0.0), "frame 3 starts at 20.0 s by Acquisition Time (0008,0032), 20.5 s"),
        ((0.0, -0.51, 0.0, 0.0, 0.0), "frame 2 starts at 10.0 s by Acquisition Time (0008,0032), 9.5 s"),
        ((0.0, 0.0, 0.0, 0.0, 3.0), None),
        ((0.0, 0.0, 0.0, 0.0, 3.01), "frame 5 starts at 110.0 s by Acquisition Time (0008,0032), 113.0 s"),
    ],
)
def test_frame_reference_times_agree_to_the_tolerance(later_s: tuple[float, ...], told: str | None) -> None:
    """Without a half-life it is the middle of the frame; 1 % of the last frame are 3 s."""
    slices = without(dynamic(), "RadiopharmaceuticalInformationSequence")
    for index, header in enumerate(slices):
        start_s, duration_s = SCHEDULE_S[index // 3]
        header["FrameReferenceTime"] = 1000.0 * (start_s + duration_s / 2.0 + later_s[index // 3])
    said = () if told is None else (f"timing: {told} by Frame Reference Time (0054,1300)",)
    assert split(slices, "dynamic").problems == said


def test_of_two_frames_that_contradict_the_first_by_the_standards_reading_is_named() -> None:
    """The middle of 10 min of C-11 is 8.5 s after its time of mean activity, more than 1 % of it."""
    schedule = [(0.0, 10.0), (10.0, 300.0), (310.0, 600.0), (910.0, 60.0)]
    slices = dynamic(schedule)
    for index, header in enumerate(slices):
        start_s, duration_s = schedule[index // 3]
        header["FrameReferenceTime"] = 1000.0 * (start_s + duration_s / 2.0 + (20.0 if index >= 9 else 0.0))
    (problem,) = split(slices, "dynamic").problems
    assert problem == (
        "timing: frame 3 starts at 310.0 s by Acquisition Time (0008,0032), 318.5 s by Frame Reference Time (0054,1300)"
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
        (0.5, 10.0, False),
        (0.51, 10.0, True),
        (-0.5, 10.0, False),
        (-0.51, 10.0, True),
        (5.5, 600.0, False),
        (6.5, 600.0, True),
    ],
)
def test_times_agree_within_half_a_second_or_one_per_cent(gap_s: float, duration_s: float, reported: bool) -> None:
    schedule = [(0.0, duration_s), (duration_s + gap_s, duration_s)]
    assert bool(split(dynamic(schedule), "dynamic").problems) is reported


@pytest.mark.parametrize(("gaps", "more"), [(5, 0), (6, 1), (9, 4)])
def test_of_many_gaps_five_are_told_and_the_rest_counted(gaps: int, more: int) -> None:
    problems = split(dynamic([(20.0 * count, 10.0) for count in range(gaps + 1)]), "dynamic").problems
    said = [f"timing: gap of 10.0 s between frames {count} and {count + 1}" for count in range(1, 6)]
    assert list(problems) == said + [f"timing: {more} more gaps or overlaps"] * (more > 0)


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


@pytest.mark.parametrize(
    ("later", "seconds"),
    [
        ("175900", [0.0, 43140.0]),
        ("180000", [0.0, 43200.0]),
        ("180100", [43140.0, 0.0]),  # 06:00 of the next day, 11 h 59 min after 18:01
    ],
)
def test_a_pause_of_more_than_twelve_hours_on_one_date_is_midnight(later: str, seconds: list[float]) -> None:
    slices = [{"AcquisitionDate": "20260302", "AcquisitionTime": time} for time in ("060000", later)]
    found = acquired_s(slices)
    assert found is not None
    assert found.tolist() == seconds


def test_times_with_and_without_an_offset_from_utc_are_not_compared() -> None:
    local = {"AcquisitionDateTime": "20260302093000"}
    zoned = {"AcquisitionDateTime": "20260302093000+0100"}
    assert acquired_s([local, zoned]) is None
    assert acquired_s([local, {}]) is None
    later = {"AcquisitionDateTime": "20260302083100+0000"}
    found = acquired_s([zoned, later])
    assert found is not None
    assert found.tolist() == [0.0, 60.0]


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


def test_the_time_of_a_bed_names_no_missing_frame() -> None:
    """Two beds, two passes, one Acquisition Time for each bed: two values for two frames, and not one for each."""
    slices = without(dynamic([(0.0, 60.0), (60.0, 60.0)], places=4), "FrameReferenceTime", "ImageIndex")
    for index, header in enumerate(slices):
        header |= clock(60.0 * (index % 4 // 2)) | {"TemporalPositionIdentifier": 1 + index // 4}
    del slices[4 + 2]
    assert missing_slices(slices, "dynamic") == [(1, 2)]


def test_a_slice_sent_twice_under_two_uids_is_refused() -> None:
    slices = dynamic()
    assert refusal([*slices, slices[4]]).code == "uneven-frames"


def test_a_place_that_all_frames_lack_is_a_gap_of_the_grid() -> None:
    assert refusal([header for header in dynamic(places=5) if header["ImagePositionPatient"][2] != 6.0]).code == (
        "missing-slice"
    )


def shifted(mm: float) -> list[Header]:
    """The third frame lies aside."""
    slices = dynamic()
    for header in slices[6:9]:
        header["ImagePositionPatient"] = [mm, 0.0, header["ImagePositionPatient"][2]]
    return slices


@pytest.mark.parametrize("mm", [5.0, 0.19])
def test_a_frame_that_is_shifted_sideways_is_refused(mm: float) -> None:
    refused = refusal(shifted(mm))
    assert (refused.code, str(refused)) == (
        "uneven-frames",
        f"slices: expected one grid for all frames, that of frame 3 is {mm:.2f} mm off",
    )


def test_a_frame_may_lie_aside_by_the_tolerance_of_positions() -> None:
    assert times_of(split(shifted(0.18), "dynamic")) == SCHEDULE_S


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Rows": 8}, "mixed-size"),
        ({"FrameOfReferenceUID": "1.2.5"}, "mixed-frame-of-reference"),
        ({"NumberOfFrames": 2}, "multi-frame"),
    ],
)
def test_a_frame_of_other_images_is_refused(changes: Header, code: str) -> None:
    slices = dynamic()
    assert refusal([*slices[:12], *({**header, **changes} for header in slices[12:])]).code == code


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


@pytest.mark.parametrize(
    ("count", "shown"), [(2, "1, 2"), (5, "1, 2, 3, 4, 5"), (6, "1, 2, 3, 4, 5 …")], ids=["two", "five", "six"]
)
def test_of_many_frames_without_a_duration_five_are_named(count: int, shown: str) -> None:
    slices = without(dynamic([(10.0 * frame, 10.0) for frame in range(count)]), "ActualFrameDuration")
    found = split(slices, "dynamic")
    assert times_of(found) == [(10.0 * frame, None) for frame in range(count)]
    assert found.problems == (f"timing: Actual Frame Duration (0018,1242) absent or not one value in frames {shown}",)


def test_passes_over_several_beds_are_frames_without_one_start() -> None:
    slices = dynamic([(0.0, 60.0), (300.0, 60.0)], places=4)
    for index, header in enumerate(slices):
        header |= clock((0.0, 300.0)[index // 4] + (0.0, 70.0)[index % 4 // 2])
    found = split(slices, "dynamic")
    assert [frame.indices for frame in found.frames] == expected_indices(2, 4)
    assert times_of(found) == [(None, 60.0), (None, 60.0)]
    assert found.problems == ("timing: slices of one frame lie up to 70.0 s apart, so frames have no one start",)


@pytest.mark.parametrize("frame", [0, 1], ids=["at once", "later"])
@pytest.mark.parametrize("later_s", [60.0, 120.0], ids=["as the next frame begins", "after it began"])
def test_frames_of_one_bed_after_those_of_another_are_refused(frame: int, later_s: float) -> None:
    """In one of two frames the second bed is measured when the first bed's next frame has begun."""
    slices = dynamic([(60.0 * count, 60.0) for count in range(3)], places=4)
    for header in slices[4 * frame + 2 : 4 * frame + 4]:
        header |= clock(60.0 * frame + later_s)
    for header in slices[4 * frame + 6 : 4 * frame + 8]:
        header |= clock(60.0 * (frame + 1) + later_s)
    if frame == 0:
        for header in slices[8:]:
            header |= clock(600.0)
    assert refusal(slices).code == "frame-times"


def test_one_frame_of_a_dynamic_series() -> None:
    bare = without(dynamic(SCHEDULE_S[:1]), "AcquisitionTime", "FrameReferenceTime", "ImageIndex")
    found = split(bare, "dynamic")
    assert (times_of(found), found.problems) == ([(0.0, 10.0)], ())


@pytest.mark.parametrize("left_out", [(), ("AcquisitionTime", "FrameReferenceTime", "ImageIndex")])
def test_one_slice_is_a_frame(left_out: tuple[str, ...]) -> None:
    found = split(without(dynamic(SCHEDULE_S[:1], places=1, SpacingBetweenSlices=3.0), *left_out), "dynamic")
    assert (times_of(found), found.problems) == ([(0.0, 10.0)], ())


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
    assert found.problems == (
        "timing: Trigger Time (0018,1060) does not tell the frames apart, Image Index (0054,1330) does",
    )


def test_gates_of_two_beats_are_told_apart_by_temporal_position() -> None:
    slices = gated(slots=2, intervals=2)
    for index, header in enumerate(slices):
        header["TemporalPositionIndex"] = 1 + index // 3
    assert split(slices, "gated").problems == (
        "timing: Trigger Time (0018,1060) does not tell the frames apart, Temporal Position Index (0020,9128) does",
    )


def test_a_gate_before_the_trigger() -> None:
    slices = [{**header, "TriggerTime": header["TriggerTime"] - 200.0} for header in gated(slots=4)]
    assert [frame.trigger_ms for frame in split(slices, "gated").frames] == [-200.0, -100.0, 0.0, 100.0]


def test_respiratory_gates_without_trigger_times() -> None:
    found = split(without(gated(slots=4), "TriggerTime"), "gated")
    assert [frame.trigger_ms for frame in found.frames] == [None] * 4
    assert [frame.indices for frame in found.frames] == expected_indices(4, 3)


def test_wrong_number_of_gates_is_reported() -> None:
    assert split([{**header, "NumberOfTimeSlots": 6} for header in gated()], "gated").problems == (
        "timing: NumberOfRRIntervals × NumberOfTimeSlots says 6 gates, there are 8",
    )


def test_half_of_a_count_of_gates_is_none() -> None:
    slices = [{**header, "NumberOfTimeSlots": 6} for header in without(gated(), "NumberOfRRIntervals")]
    assert split(slices, "gated").problems == ()


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


@pytest.mark.parametrize(
    ("frame_ms", "duration_s"),
    [
        ((90_000, 90_000, 90_000), 90.0),
        ((90_000, 90_400, 90_800), 90.4),  # within 1 %: the middle one
        ((90_000, 90_000, 91_000), None),
        ((1, 1, 1), 0.001),
        ((0, 0, 0), None),
        ((-1, -1, -1), None),
        ((90_000, 0, 90_000), None),
        ((90_000, None, 90_000), None),
    ],
)
def test_duration_of_a_static_series_in_any_order_of_arrival(frame_ms: tuple[Any, ...], duration_s: Any) -> None:
    slices = [slice_at(z, ActualFrameDuration=each) for z, each in enumerate(frame_ms)]
    for order in permutations(slices):
        assert split(order, "static").frames[0].duration_s == duration_s


def test_one_slice_is_a_static_series() -> None:
    found = split([slice_at(0, ActualFrameDuration=90_000, SpacingBetweenSlices=3.0)], "static")
    assert times_of(found) == [(0.0, 90.0)]


def test_a_static_series_with_two_images_of_a_place_is_refused() -> None:
    assert refusal(dynamic(SCHEDULE_S[:2]), "static").code == "duplicate-position"


def beds(times_s: list[float], **changes: Any) -> list[Header]:
    return [slice_at(z, **clock(at), **changes) for z, at in enumerate(times_s)]


@pytest.mark.parametrize(
    ("times_s", "count"),
    [
        ([0.0], 1),
        ([0.0] * 10, 1),
        ([480.0] * 4 + [360.0] * 3 + [240.0] * 3 + [120.0] * 3 + [0.0] * 4, 5),
        ([0.0, 0.0, 120.0, 120.0, 0.0, 0.0, 120.0, 120.0], None),
        ([float(z) for z in range(8)], None),
        ([0.0, 0.0, 120.0, 120.0], 2),
        ([0.0, 0.0, 120.0], None),
    ],
    ids=[
        "one slice",
        "one",
        "five from the feet up",
        "interleaved",
        "moving bed",
        "two of two slices",
        "too few slices",
    ],
)
def test_bed_positions(times_s: list[float], count: int | None) -> None:
    slices = beds(times_s)
    assert bed_positions(slices) == count
    assert bed_positions(slices[::-1]) == count


def test_beds_by_frame_reference_time_where_the_acquisition_time_is_the_same() -> None:
    slices = [{**header, "FrameReferenceTime": 1000.0 * (z // 3)} for z, header in enumerate(beds([0.0] * 9))]
    assert bed_positions(slices) == 3


def test_beds_by_acquisition_time_go_before_those_by_frame_reference_time() -> None:
    times_s = [0.0] * 6 + [120.0] * 6
    slices = [{**header, "FrameReferenceTime": 1000.0 * (z // 4)} for z, header in enumerate(beds(times_s))]
    assert bed_positions(slices) == 2


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
