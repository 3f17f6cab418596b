"""DICOM dates and times, and the intervals between them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from dicom_io.times import (
    acquired,
    date_time,
    moment,
    on_local_clock,
    possible_seconds_between,
    seconds_between,
    series_started,
    utc_offset,
)

BERLIN = ZoneInfo("Europe/Berlin")
TOKYO = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("20260302", "114946.2", datetime(2026, 3, 2, 11, 49, 46, 200000)),
        ("20260302", "114946.123456", datetime(2026, 3, 2, 11, 49, 46, 123456)),
        ("20260302", "114946", datetime(2026, 3, 2, 11, 49, 46)),
        ("20260302", "1149", datetime(2026, 3, 2, 11, 49)),
        ("2026.03.02", "11:49:46", datetime(2026, 3, 2, 11, 49, 46)),
        ("10000101", "0000", datetime(1000, 1, 1)),
        ("09991231", "0000", None),  # some years earlier there is no calendar
        ("89991231", "0000", datetime(8999, 12, 31)),
        ("90000101", "0000", None),
        ("20260302", "11", None),
        ("20260302", "1149.5", None),
        ("20260302", "250000", None),
        ("20260302", "116000", None),
        ("20260230", "114946", None),
        ("20260302", "", None),
        ("20260302", None, None),
        (None, "114946", None),
        ("２０２６0302", "114946", None),
    ],
)
def test_date_and_time(date: str | None, time: str | None, expected: datetime | None) -> None:
    assert moment(date, time) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20260302100000", datetime(2026, 3, 2, 10)),
        ("202603021000", datetime(2026, 3, 2, 10)),
        ("20260302100000.25", datetime(2026, 3, 2, 10, 0, 0, 250000)),
        ("20260302100000.25+0130", datetime(2026, 3, 2, 8, 30, 0, 250000, tzinfo=UTC)),
        ("20260302100000-0500", datetime(2026, 3, 2, 15, tzinfo=UTC)),
        ("20260302", None),
        ("20260302100000+", None),
        ("20260302100000+9900", None),
        ("next Monday", None),
        ("", None),
        (None, None),
    ],
)
def test_date_time(value: str | None, expected: datetime | None) -> None:
    assert date_time(value) == expected


@pytest.mark.parametrize(
    ("value", "minutes"),
    [
        ("+0100", 60),
        ("-0330", -210),
        ("+0000", 0),
        ("+1400", 840),
        ("+1500", None),
        ("+0159", 119),
        ("0100", None),
        ("+0160", None),
        (None, None),
    ],
)
def test_utc_offset(value: str | None, minutes: int | None) -> None:
    assert utc_offset(value) == (None if minutes is None else timezone(timedelta(minutes=minutes)))


def test_acquisition_falls_back_on_the_series_date_and_on_the_date_time() -> None:
    assert acquired({"AcquisitionDate": "20260303", "AcquisitionTime": "0010"}) == datetime(2026, 3, 3, 0, 10)
    assert acquired({"SeriesDate": "20260303", "AcquisitionTime": "0010"}) == datetime(2026, 3, 3, 0, 10)
    assert acquired({"AcquisitionDateTime": "20260303001000"}) == datetime(2026, 3, 3, 0, 10)
    assert acquired({"AcquisitionDate": "20260303"}) is None


def test_a_frame_of_a_multi_frame_object_has_a_date_and_time_of_its_own() -> None:
    both = {"AcquisitionDate": "20260303", "AcquisitionTime": "0010", "AcquisitionDateTime": "20260303002000"}
    assert acquired(both) == datetime(2026, 3, 3, 0, 10)
    assert acquired({**both, "FrameNumber": 1}) == datetime(2026, 3, 3, 0, 20)
    assert acquired({**both, "FrameNumber": 1, "AcquisitionDateTime": None}) == datetime(2026, 3, 3, 0, 10)


def test_series_start() -> None:
    assert series_started({"SeriesDate": "20260303", "SeriesTime": "001000"}) == datetime(2026, 3, 3, 0, 10)
    assert series_started({"SeriesDate": "20260303"}) is None


def test_intervals() -> None:
    ten, eleven = datetime(2026, 3, 2, 10), datetime(2026, 3, 2, 11)
    assert seconds_between(ten, eleven, UTC) == 3600.0
    assert seconds_between(eleven, ten, UTC) == -3600.0
    assert seconds_between(ten.replace(tzinfo=UTC), eleven, UTC) == 3600.0
    # 10:00 UTC is 11:00 in Berlin in March.
    assert seconds_between(ten.replace(tzinfo=UTC), eleven, BERLIN) == 0.0
    assert seconds_between(ten, eleven.replace(tzinfo=UTC), BERLIN) == 7200.0
    # 11:00 in Tokyo is 02:00 UTC.
    assert seconds_between(ten.replace(tzinfo=UTC), eleven.replace(tzinfo=TOKYO), BERLIN) == -8 * 3600.0


@pytest.mark.parametrize(
    ("earlier", "later", "minutes"),
    [
        # On 29 March 2026 Berlin's clocks went from 02:00 to 03:00.
        ("20260329013000", "20260329033000", [60]),
        ("20260328230000", "20260329100000", [600]),
        ("20260329030000", "20260329040000", [60]),
        ("20260329013000", "20260329015959", [29 + 59 / 60]),
        # 02:30 was skipped: a clock that was not put forward shows it an hour after 01:30, one put forward never.
        ("20260329013000", "20260329023000", [0, 60]),
        # On 25 October 2026 they went from 03:00 back to 02:00.
        ("20261025013000", "20261025033000", [180]),
        ("20261025013000", "20261025023000", [60, 120]),
        ("20261025023000", "20261025033000", [60, 120]),
        ("20261025021000", "20261025025000", [-20, 40, 100]),
        ("20261025030000", "20261025040000", [60]),
        # An offset says which.
        ("20261025023000+0200", "20261025033000", [120]),
        ("20261025023000+0100", "20261025033000", [60]),
    ],
)
def test_intervals_when_clocks_change(earlier: str, later: str, minutes: list[float]) -> None:
    start, end = date_time(earlier), date_time(later)
    assert start is not None
    assert end is not None
    assert possible_seconds_between(start, end, BERLIN) == pytest.approx([60.0 * value for value in minutes])
    assert seconds_between(start, end, BERLIN) in possible_seconds_between(start, end, BERLIN)


def test_of_an_hour_shown_twice_the_first_is_taken() -> None:
    half_past_two, half_past_three = datetime(2026, 10, 25, 2, 30), datetime(2026, 10, 25, 3, 30)
    assert seconds_between(half_past_two, half_past_three, BERLIN) == 7200.0
    assert seconds_between(half_past_two, half_past_two, BERLIN) == 0.0


def test_what_a_clock_shows() -> None:
    assert on_local_clock(datetime(2026, 7, 2, 10, tzinfo=UTC), BERLIN) == datetime(2026, 7, 2, 12)
    assert on_local_clock(datetime(2026, 7, 2, 10), BERLIN) == datetime(2026, 7, 2, 10)
    assert on_local_clock(datetime(2026, 7, 2, 10, tzinfo=UTC), BERLIN).tzinfo is None


def test_a_clock_does_not_show_which_of_two_equal_hours_it_is() -> None:
    second = on_local_clock(datetime(2026, 10, 25, 1, 30, tzinfo=UTC), BERLIN)
    assert (second, second.fold) == (datetime(2026, 10, 25, 2, 30), 0)
