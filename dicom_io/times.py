"""DICOM dates and times (PS3.5 section 6.2) → datetimes, and intervals between them.

A scanner writes local time, mostly without saying of which zone; such times are kept naive. An interval is measured in
UTC: Timezone Offset From UTC (0008,0201) holds for all times of its object that carry no offset of their own (PS3.3
C.12.1.1.1), and where it is absent the clock is taken to follow the zone of the site, daylight saving time included.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache

from dicom_io.headers import Header, text

DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})", re.ASCII)
TIME = re.compile(r"(\d{2}):?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?", re.ASCII)
OFFSET = re.compile(r"([+-])(\d{2})(\d{2})", re.ASCII)


@lru_cache(maxsize=4096)
def moment(date: str | None, time: str | None) -> datetime | None:
    """A DA and a TM as naive local time; None where one is absent, malformed or coarser than a minute."""
    day = DATE.fullmatch(date or "")
    clock = TIME.fullmatch(time or "")
    if day is None or clock is None:
        return None
    if not 1000 <= int(day[1]) < 9000:  # nothing that is counted from here must leave the calendar
        return None
    hour, minute, second, fraction = clock.groups()
    numbers = (*day.groups(), hour, minute, second or "0", (fraction or "").ljust(6, "0"))
    try:
        return datetime(*map(int, numbers))  # type: ignore[arg-type] # noqa: DTZ001 # seven ints; local on purpose
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def date_time(value: str | None) -> datetime | None:
    """A DT; aware where it carries an offset, naive local time where not, None as in `moment`."""
    body, sign, digits = re.fullmatch(r"([^+-]*)([+-]?)(.*)", value or "", re.DOTALL).groups()  # type: ignore[union-attr] # matches any text
    local = moment(body[:8], body[8:])
    if local is None or not sign:
        return local
    zone = utc_offset(sign + digits)
    return local.replace(tzinfo=zone) if zone else None


def utc_offset(value: str | None) -> timezone | None:
    """Timezone Offset From UTC (0008,0201), "+0100"."""
    match = OFFSET.fullmatch(value or "")
    if match is None or int(match[2]) > 14 or int(match[3]) > 59:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-offset if match[1] == "-" else offset)


def acquired(header: Header) -> datetime | None:
    """When the data of an instance began to be acquired; the series' date serves where only a time was sent.

    Acquisition DateTime (0008,002A) goes first in a frame of a multi-frame object, where it is the frame's own.
    """
    date = text(header, "AcquisitionDate") or text(header, "SeriesDate")
    separate = moment(date, text(header, "AcquisitionTime"))
    combined = date_time(text(header, "AcquisitionDateTime"))
    return combined or separate if "FrameNumber" in header else separate or combined


def series_started(header: Header) -> datetime | None:
    """Series Date and Time (0008,0021), (0008,0031)."""
    return moment(text(header, "SeriesDate"), text(header, "SeriesTime"))


def on_local_clock(at: datetime, zone: tzinfo) -> datetime:
    """What a clock of the zone shows at this moment, naive; a naive time is one already."""
    return at if at.tzinfo is None else at.astimezone(zone).replace(tzinfo=None, fold=0)


def seconds_between(earlier: datetime, later: datetime, zone: tzinfo) -> float:
    """Seconds that pass from one moment to the other; naive ones are local times of the zone.

    Of two moments that a clock shows twice (the hour that daylight saving time repeats) the first is taken.
    """
    return (_utc(later, zone, fold=0) - _utc(earlier, zone, fold=0)).total_seconds()


def possible_seconds_between(earlier: datetime, later: datetime, zone: tzinfo) -> tuple[float, ...]:
    """Every interval [s] the two may mean, shortest first: several where a local time does not name one moment.

    Such are the times in the hour that is repeated when daylight saving time ends, and those in the hour that is
    skipped when it begins, which only a clock shows that was not put forward.
    """
    pairs = ((_utc(earlier, zone, fold), _utc(later, zone, other)) for fold in (0, 1) for other in (0, 1))
    return tuple(sorted({(end - start).total_seconds() for start, end in pairs}))


def _utc(at: datetime, zone: tzinfo, fold: int) -> datetime:
    return (at if at.tzinfo else at.replace(tzinfo=zone, fold=fold)).astimezone(UTC)
