"""What was injected, how much, when, and how it decays (Radiopharmaceutical Information Sequence, PS3.3 C.8.9.2).

Radionuclide Total Dose (0018,1074) is by the standard the activity at Radiopharmaceutical Start Time, not at the time
of calibration. Whether the residual in the syringe was subtracted is up to the site and no attribute says it; it is not
subtracted here.

What scanners and de-identification do to these values, and what is made of it:

- Dose in MBq where Bq is due: below 1e5 it cannot be Bq. It is read as MBq only where that gives a usual activity per
  body weight, since 10 may be MBq of a mouse or mCi of a man. Activities in kBq, GBq and mCi are refused.
- Only Start Time (0018,1072), no date: the injection was at the last such time of day before the acquisition. For F-18
  and all that decays faster no other day is possible; for Cu-64, Zr-89 and the like one is, and the series is refused.
- Start DateTime (0018,1078) whole days off: refused, with the shift and with what the uptake would be on the day that
  fits. That day is not taken for granted: yesterday's entry left in the console looks the same, and its time of day
  would be as wrong as its date. That Start Time names the same time of day proves nothing, both come from one entry.
- Start DateTime and Start Time at different times of day: refused, unless an offset from UTC explains it.
- Up to a minute after the start of the scan: dynamic scans are started before the injection, and clocks are read to the
  minute. It is computed as it stands and reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from math import exp, expm1, log

from dicom_io import radionuclides, times, tracer
from dicom_io.attributes import positive, shared, shown, single, within
from dicom_io.errors import QuantityRefused
from dicom_io.headers import Header, items, number
from engines.contract import Json

DOSE_RANGE_BQ = (1e6, 2e10)
"""Injected activity a header may claim: below lies a unit mistaken, above lies a therapy."""
MEGABECQUEREL_BELOW = 1e5
"""Doses below are in MBq: real series show both units, nobody injects 0.1 MBq."""
DOSE_PER_KG_MIN_BQ = 5e4
"""Zr-89 at 37 MBq is ten times this; 1.5 GBq of Rb-82 written in kBq is less."""
GUESSED_DOSE_PER_KG_MIN_BQ = 5e5
"""Where MBq is only a guess: 10 mCi read as 10 MBq would be 0.14 MBq/kg."""
LONGEST_UPTAKE_HALF_LIVES = 10.0
"""After ten half-lives a thousandth is left: an injection dated a day off, not an examination."""
LONGEST_DECAY_HALF_LIVES = 30.0
"""From the injection to any frame: a billionth is left."""
LONGEST_FRAME_S = 86400.0
CLOCK_TOLERANCE_S = 60.0
AMBIGUOUS_SUV_MAX = 0.01
"""Relative; an hour that a clock shows twice is 46 % for F-18 and 0.9 % for Zr-89."""
DAY_S = 86400.0
_SEQUENCE = "RadiopharmaceuticalInformationSequence"
_INJECTION = "injection, Radiopharmaceutical Start DateTime (0018,1078) or Time (0018,1072)"


@dataclass(frozen=True, slots=True)
class Injection:
    """When activity was injected, and how it decays.

    first : start of the earliest acquisition of the series
    zone : of the times that carry no offset from UTC
    warnings : what was decided about the times that a reader might decide otherwise
    """

    half_life_s: float
    injected: datetime
    first: datetime
    zone: tzinfo
    warnings: tuple[str, ...] = ()

    @property
    def decay_per_s(self) -> float:
        """λ = ln 2 / T½."""
        return log(2.0) / self.half_life_s

    def growth(self, seconds: float) -> float:
        """e^{λt}: how much more there was so long ago."""
        return exp(self.decay_per_s * seconds)

    def frame_growth(self, frame_s: float) -> float:
        """λT/(1 − e^{−λT}): activity at the start of a frame over the mean during it (PS3.3 C.8.9.4.1.5)."""
        decays = self.decay_per_s * frame_s
        return decays / -expm1(-decays)

    def average_s(self, frame_s: float) -> float:
        """T_ave: when after the start of a frame the mean activity is reached (PS3.3 C.8.9.4.1.5, example 2)."""
        return log(self.frame_growth(frame_s)) / self.decay_per_s

    def growth_until(self, at: datetime) -> float:
        """e^{λ(at − injection)}.

        Raises
        ------
        QuantityRefused
            negative-decay-time, uptake-time, ambiguous-time.
        """
        possible = times.possible_seconds_between(self.injected, at, self.zone)
        likely = [seconds for seconds in possible if seconds >= -CLOCK_TOLERANCE_S]
        if not likely:
            message = f"decay reference: expected after the injection, got {-max(possible):.0f} s before it"
            raise QuantityRefused(message, code="negative-decay-time")
        if likely[-1] > LONGEST_DECAY_HALF_LIVES * self.half_life_s:
            message = (
                f"decay reference: expected at most {LONGEST_DECAY_HALF_LIVES:g} half-lives after the injection, got "
                f"{likely[-1] / 60.0:.0f} min at a half-life of {self.half_life_s / 60.0:.1f} min"
            )
            raise QuantityRefused(message, code="uptake-time")
        if self.growth(likely[-1] - likely[0]) - 1.0 > AMBIGUOUS_SUV_MAX:
            message = (
                "injection and decay reference: a local time falls in the hour when clocks change, got an interval of "
                f"{' or '.join(f'{seconds / 60.0:.0f}' for seconds in likely)} min; expected Timezone Offset From UTC "
                "(0008,0201)"
            )
            raise QuantityRefused(message, code="ambiguous-time")
        return self.growth(likely[0])


def injection_of(headers: Sequence[Header], site: tzinfo) -> Injection:
    """The injection of a series, checked against its acquisitions.

    headers : single-frame headers of one PET series, at least one
    site : zone of times that carry no offset from UTC and whose object states none

    Raises
    ------
    QuantityRefused
        As `half_life_s_of`, `acquisitions`, and no-injection-time, injection-time, injection-date,
        uptake-time, negative-decay-time, time-zone.
    """
    half_life_s = half_life_s_of(headers)
    first = min(acquisitions(headers))
    zone, stated = _zone(headers, site)
    injected = _injected(headers, first, zone, half_life_s)
    warnings = [] if stated else _offset_warnings(injected, first, zone)
    uptake_s = times.seconds_between(injected, first, zone)
    _check_uptake(uptake_s, half_life_s)
    if uptake_s < 0.0:
        warnings.append(f"the injection lies {-uptake_s:.0f} s after the start of the scan")
    return Injection(half_life_s, injected, first, zone, tuple(warnings))


def dose_bq_of(headers: Sequence[Header]) -> float:
    """Injected activity [Bq]; numbers below 1e5 are MBq.

    Raises
    ------
    QuantityRefused
        no-dose, dose, radiopharmaceuticals, mixed-header.
    """
    dose_bq = _total_dose(headers) * (1e6 if _is_in_megabecquerel(headers) else 1.0)
    return within(dose_bq, DOSE_RANGE_BQ, "Radionuclide Total Dose (0018,1074) [Bq]", "dose")


def check_dose_per_weight(headers: Sequence[Header], weight_kg: float) -> None:
    """Activity per body weight that somebody injects: finds doses in kBq and mCi.

    Raises
    ------
    QuantityRefused
        dose, and those of `dose_bq_of`.
    """
    low = GUESSED_DOSE_PER_KG_MIN_BQ if _is_in_megabecquerel(headers) else DOSE_PER_KG_MIN_BQ
    per_kg = dose_bq_of(headers) / weight_kg
    if per_kg < low:
        message = (
            f"Radionuclide Total Dose (0018,1074): expected at least {low:g} Bq per kg of body weight, got {per_kg:g}; "
            "is it in kBq or mCi?"
        )
        raise QuantityRefused(message, code="dose")


def half_life_s_of(headers: Sequence[Header]) -> float:
    """Half-life [s] as sent; that of the radionuclide code (0054,0300) where none was sent.

    It must be that of the code; without a code, of a PET radionuclide that the text and other codes do not contradict.

    Raises
    ------
    QuantityRefused
        half-life, radiopharmaceuticals, mixed-header.
    """
    sent = administered(headers, "RadionuclideHalfLife")
    item = _item(headers[0])
    coded = radionuclides.coded_radionuclide(item)
    if sent is None and coded is not None:
        return radionuclides.RADIONUCLIDES[coded].half_life_s
    half_life = positive(sent, "Radionuclide Half Life (0018,1075)", "half-life")
    known = radionuclides.radionuclides_of_half_life(half_life)
    against = [conflict for conflict in tracer.resolve([item]).conflicts if "half-life" in conflict]
    if not known or (coded is not None and coded not in known) or (coded is None and against):
        message = (
            f"Radionuclide Half Life (0018,1075): expected that of {coded or 'the radionuclide injected'} in seconds, "
            f"got {half_life:g}{''.join(f'; {conflict}' for conflict in against)}"
        )
        raise QuantityRefused(message, code="half-life")
    return half_life


def uptake_s(headers: Sequence[Header], site: tzinfo) -> float:
    """From injection to the earliest acquisition [s]; below zero where a dynamic scan was started before it.

    Raises
    ------
    QuantityRefused
        As `injection_of`.
    """
    given = injection_of(headers, site)
    return times.seconds_between(given.injected, given.first, given.zone)


def acquisitions(headers: Sequence[Header]) -> list[datetime]:
    """Start of the acquisition of every slice, all with an offset from UTC or all without.

    Raises
    ------
    QuantityRefused
        no-acquisition-time.
    """
    found = [times.acquired(header) for header in headers]
    acquired = [at for at in found if at is not None]
    if len(acquired) != len(headers) or len({at.tzinfo is None for at in acquired}) != 1:
        message = (
            "Acquisition Date and Time (0008,0022), (0008,0032) or DateTime (0008,002A): expected on every slice, "
            f"got {len(acquired)} of {len(headers)}"
        )
        raise QuantityRefused(message, code="no-acquisition-time")
    return acquired


def frame_s(header: Header) -> float:
    """Actual Frame Duration (0018,1242) [s].

    Raises
    ------
    QuantityRefused
        no-frame-duration.
    """
    frame_ms = number(header, "ActualFrameDuration")
    if frame_ms is None or not 0.0 < frame_ms <= LONGEST_FRAME_S * 1000.0:
        message = f"Actual Frame Duration (0018,1242): expected ms of at most a day, got {shown(frame_ms)}"
        raise QuantityRefused(message, code="no-frame-duration")
    return frame_ms / 1000.0


def administered(headers: Sequence[Header], keyword: str) -> Json:
    """The value of one attribute of the radiopharmaceutical that all instances share, None where none has one.

    Raises
    ------
    QuantityRefused
        radiopharmaceuticals, mixed-header.
    """
    return single((_item(header).get(keyword) for header in headers), keyword)


def _item(header: Header) -> Header:
    found = items(header, _SEQUENCE)
    if len(found) > 1:
        message = f"Radiopharmaceutical Information Sequence (0054,0016): expected one item, got {len(found)}"
        raise QuantityRefused(message, code="radiopharmaceuticals")
    return found[0] if found else {}


def _total_dose(headers: Sequence[Header]) -> float:
    dose = administered(headers, "RadionuclideTotalDose")
    return positive(dose, "Radionuclide Total Dose (0018,1074)", "no-dose")


def _is_in_megabecquerel(headers: Sequence[Header]) -> bool:
    return _total_dose(headers) < MEGABECQUEREL_BELOW


def _start(headers: Sequence[Header]) -> tuple[datetime | None, str | None]:
    """Start DateTime, None where it is absent or only a date; Start Time as sent."""
    combined = administered(headers, "RadiopharmaceuticalStartDateTime")
    time = administered(headers, "RadiopharmaceuticalStartTime")
    return times.date_time(combined if isinstance(combined, str) else None), time if isinstance(time, str) else None


def _zone(headers: Sequence[Header], site: tzinfo) -> tuple[tzinfo, bool]:
    """The zone of the local times, and whether the header states it.

    It states it by Timezone Offset From UTC (0008,0201), or by writing one time of day twice: in Start DateTime with an
    offset and in Start Time without.
    """
    offset = shared(headers, "TimezoneOffsetFromUTC")
    own = times.utc_offset(offset if isinstance(offset, str) else None)
    if own is not None:
        return own, True
    combined, time = _start(headers)
    if combined is not None and combined.tzinfo is not None and time is not None:
        if _apart_s(combined.replace(tzinfo=None), time) <= CLOCK_TOLERANCE_S:
            return combined.tzinfo, True
        return site, True  # `_injected` refuses unless the site's clock shows Start Time
    return site, False


def _injected(headers: Sequence[Header], first: datetime, zone: tzinfo, half_life_s: float) -> datetime:
    """Time of injection; where only a time of day was sent, the last such time before the first acquisition."""
    combined, time = _start(headers)
    if combined is not None:
        if time is not None and _apart_s(times.on_local_clock(combined, zone), time) > CLOCK_TOLERANCE_S:
            message = "injection: Start DateTime (0018,1078) and Start Time (0018,1072) name different times of day"
            raise QuantityRefused(message, code="injection-time")
        return combined
    seen = times.on_local_clock(first, zone)
    injected = times.moment(f"{seen:%Y%m%d}", time)
    if injected is None:
        raise QuantityRefused(f"{_INJECTION}: expected one to the minute, got none", code="no-injection-time")
    if (injected - seen).total_seconds() > CLOCK_TOLERANCE_S:
        injected -= timedelta(days=1)
    if (seen - injected).total_seconds() + DAY_S <= LONGEST_UPTAKE_HALF_LIVES * half_life_s:
        message = (
            "injection: expected Start DateTime (0018,1078), got only Start Time (0018,1072), which at a half-life of "
            f"{half_life_s / 3600.0:.1f} h may be of this day or of one before"
        )
        raise QuantityRefused(message, code="injection-date")
    return injected


def _apart_s(at: datetime, time: str) -> float:
    """How far two times of day lie apart on the face of a clock; 0 where the second cannot be read."""
    clock = times.moment(f"{at:%Y%m%d}", time)
    apart = (at - clock).total_seconds() % DAY_S if clock else 0.0
    return min(apart, DAY_S - apart)


def _offset_warnings(injected: datetime, first: datetime, zone: tzinfo) -> list[str]:
    """Refuses times of two clocks whose difference is not known; tells where the site's zone was relied on.

    +0000 is written by systems that keep UTC inside; any other offset is that of the scanner's own clock, and then the
    site's zone must agree with it.
    """
    if (injected.tzinfo is None) == (first.tzinfo is None):
        return []
    aware = injected if injected.tzinfo else first
    offset, expected = aware.utcoffset(), aware.astimezone(zone).utcoffset()
    if offset and offset != expected:
        message = (
            f"times: some carry an offset from UTC of {offset.total_seconds() / 3600.0:+g} h and others none, expected "
            f"Timezone Offset From UTC (0008,0201), or a site at this offset; the site's is {expected} h"
        )
        raise QuantityRefused(message, code="time-zone")
    return [f"times without an offset from UTC were read in the site's zone, {zone}"]


def _check_uptake(uptake: float, half_life_s: float) -> None:
    """From a minute before the scan (see above) to ten half-lives; a whole number of days too much is named as such."""
    longest = LONGEST_UPTAKE_HALF_LIVES * half_life_s
    if -CLOCK_TOLERANCE_S <= uptake <= longest:
        return
    on_the_day = (uptake + CLOCK_TOLERANCE_S) % DAY_S - CLOCK_TOLERANCE_S
    days = round((uptake - on_the_day) / DAY_S)
    if on_the_day <= longest and days:
        message = (
            f"{_INJECTION}: expected within {longest / 3600.0:.1f} h before the acquisition, got a date "
            f"{abs(days)} day(s) too {'early' if days > 0 else 'late'} for the last such time of day, by which uptake "
            f"would be {max(on_the_day, 0.0) / 60.0:.0f} min"
        )
        raise QuantityRefused(message, code="injection-date")
    if uptake < 0.0:
        message = f"{_INJECTION}: expected before the acquisition, got {-uptake:.0f} s after it"
        raise QuantityRefused(message, code="negative-decay-time")
    message = (
        f"{_INJECTION}: expected at most {LONGEST_UPTAKE_HALF_LIVES:g} half-lives before the acquisition, got "
        f"{uptake / 60.0:.0f} min at a half-life of {half_life_s / 60.0:.1f} min"
    )
    raise QuantityRefused(message, code="uptake-time")
