"""The moment to which a series with Decay Correction START was decay-corrected, and what in the header contradicts it.

All images of a series shall be decay-corrected to the same time (PS3.3 C.8.9.1.1.5), but which it is must be inferred
unless Decay Correction DateTime (0018,9701) of enhanced objects says it. Order of trust, the first that holds:

1. Decay Correction DateTime (0018,9701).
2. Series Date and Time, unless after an acquisition or before the injection (QIBA's vendor-neutral pseudo-code). That
   order stands also where another source contradicts it: Frame Reference Time is the less reliable one in real headers,
   and GE's scan time differs from Series Time in a quarter of all GE series. A contradiction of more than 5 % in SUV
   becomes a warning.
3. GE's scan date and time (0009,xx0d) "GEMS_PETD_01", where Series Time was rewritten by post-processing.
4. The earliest acquisition, where Frame Reference Time is 0 on all slices and so counts from nothing (QIBA).
5. Acquisition time + T_ave − Frame Reference Time (C.8.9.4.1.5). All slices must lead to the same moment; where they do
   not, Frame Reference Time counts from the start of each bed, and the common reference is unknown: refused.

A Series Time that lies more than half an hour (or a half-life, if shorter) before the first acquisition is what
de-identification leaves as often as what a scanner writes (late frames of a list-mode acquisition). It is believed only
if GE's scan time, Frame Reference Time or Decay Factor confirms it, and refused otherwise: either choice would be a
guess, worth 17 % and more for F-18.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log

from dicom_io import times
from dicom_io.administration import (
    CLOCK_TOLERANCE_S,
    LONGEST_FRAME_S,
    LONGEST_UPTAKE_HALF_LIVES,
    Injection,
    acquisitions,
    frame_s,
)
from dicom_io.attributes import shared
from dicom_io.errors import QuantityRefused
from dicom_io.headers import Header, number, text

CONTRADICTION_MAX = 0.05
"""Relative, in SUV: by how much what a header says twice may differ before it is told."""
LONGEST_LEAD_S = 1800.0
"""Of Series Time before the first acquisition, unconfirmed."""
LONGEST_S = 10 * 365.25 * 86400.0
"""Ten years: what a calendar bears."""
_GE_SCAN = "GE scan date and time (0009,xx0d)"
_FRAME_REFERENCE = "Frame Reference Time (0054,1300)"
_DECAY_FACTOR = "Decay Factor (0054,1321)"


@dataclass(frozen=True, slots=True)
class Reference:
    """The decay reference of a series.

    at : of each instance; the same for all but for rounding
    said : where it was found, in words
    branch : the same as a short stable name
    """

    at: tuple[datetime, ...]
    said: str
    branch: str
    warnings: tuple[str, ...] = ()


def reference_of(headers: Sequence[Header], given: Injection) -> Reference:
    """The decay reference of every instance, in the order of trust above.

    Raises
    ------
    QuantityRefused
        no-reference-time, series-time, no-frame-duration, no-acquisition-time, mixed-header.
    """
    found = _explicit(headers) or _series_time(headers, given) or _ge_scan(headers) or _by_frames(headers, given)
    earliest, latest = min(found.at), max(found.at)
    if _suv_change(earliest, latest, given) > CONTRADICTION_MAX:
        apart_s = times.seconds_between(earliest, latest, given.zone)
        message = (
            f"decay reference: expected the same for all slices by {found.said}, got {apart_s / 60.0:.0f} min apart"
        )
        raise QuantityRefused(message, code="no-reference-time")
    return Reference(found.at, found.said, found.branch, tuple(_contradictions(headers, given, found)))


def _explicit(headers: Sequence[Header]) -> Reference | None:
    said = shared(headers, "DecayCorrectionDateTime")
    if said is None:
        return None
    at = times.date_time(said if isinstance(said, str) else None)
    if at is None:
        message = "Decay Correction DateTime (0018,9701): expected a date and time to the minute, got something else"
        raise QuantityRefused(message, code="no-reference-time")
    words = "Decay Correction DateTime (0018,9701)"
    return Reference((at,) * len(headers), words, "decay-correction-datetime")


def _series_time(headers: Sequence[Header], given: Injection) -> Reference | None:
    starts = {times.series_started(header) for header in headers}
    start = starts.pop() if len(starts) == 1 else None
    if start is None:
        return None
    lead_s, longest_s = times.seconds_between(start, given.first, given.zone), min(LONGEST_LEAD_S, given.half_life_s)
    uptake_s = times.seconds_between(given.injected, start, given.zone)
    with_the_injection = lead_s <= CLOCK_TOLERANCE_S and uptake_s >= -CLOCK_TOLERANCE_S
    if lead_s < 0.0 or (uptake_s < 0.0 and not with_the_injection):
        return None
    others = _sources_beside_series_time(headers, given)
    confirmed = any(abs(_suv_change(start, at, given)) <= CONTRADICTION_MAX for at in others.values())
    implausible = lead_s > longest_s and given.growth(lead_s) - 1.0 > CONTRADICTION_MAX
    if implausible and not confirmed:
        against = f"against it: {', '.join(others)}" if others else "nothing else in the header tells"
        message = (
            f"Series Time (0008,0031): expected at most {longest_s / 60.0:.0f} min before the first acquisition, or "
            f"confirmed, got {lead_s / 60.0:.0f} min before it; {against}"
        )
        raise QuantityRefused(message, code="series-time")
    return Reference((start,) * len(headers), "series time", "series-time")


def _ge_scan(headers: Sequence[Header]) -> Reference | None:
    scans = tuple(at for at in map(_ge_scan_date_time, headers) if at is not None)
    if len(scans) != len(headers):
        return None
    return Reference(scans, _GE_SCAN, "ge-scan-datetime")


def _by_frames(headers: Sequence[Header], given: Injection) -> Reference:
    """From Frame Reference Time, or where that is 0 throughout from the earliest acquisition."""
    if all(number(header, "FrameReferenceTime") == 0.0 for header in headers):
        return Reference((given.first,) * len(headers), "earliest acquisition time", "earliest-acquisition")
    computed = tuple(at for at in (_back_computed(header, given) for header in headers) if at is not None)
    if len(computed) != len(headers):
        message = (
            "decay reference: expected Series Time not after the acquisitions, GE (0009,xx0d) "
            "or Frame Reference Time (0054,1300) on every slice"
        )
        raise QuantityRefused(message, code="no-reference-time")
    return Reference(computed, "acquisition time less Frame Reference Time", "back-computed")


def _contradictions(headers: Sequence[Header], given: Injection, found: Reference) -> Iterator[str]:
    """Sources by which SUV would differ by more than 5 %, a line each."""
    for name, at in _sources_beside_series_time(headers, given).items():
        change = _suv_change(found.at[0], at, given)
        if name != _DECAY_FACTOR and abs(change) > CONTRADICTION_MAX:
            yield f"decay reference: by {name} instead of {found.said} SUV would be {change:+.0%}"
    factors = [(_decay_factor(header), header) for header in headers]
    compared = [(factor, _decay_since(found.at[0], header, given)) for factor, header in factors if factor]
    factor, expected = max(compared, key=lambda pair: abs(pair[1] / pair[0] - 1.0), default=(1.0, 1.0))
    if abs(expected / factor - 1.0) > CONTRADICTION_MAX:
        yield f"{_DECAY_FACTOR} is {factor:g}, by {found.said} it would be {expected:.4g}"


def _sources_beside_series_time(headers: Sequence[Header], given: Injection) -> dict[str, datetime]:
    """Where else the header tells the decay reference, by the slice acquired first.

    Only that slice: scanners that count Frame Reference Time from the start of each bed agree with others in the first.
    """
    header = min(headers, key=_acquired_and_counted)
    sources = {_GE_SCAN: _ge_scan_date_time(header), _DECAY_FACTOR: _by_decay_factor(header, given)}
    if number(header, "FrameReferenceTime") and _has_frame(header):
        sources[_FRAME_REFERENCE] = _back_computed(header, given)
    return {name: at for name, at in sources.items() if at is not None}


def _acquired_and_counted(header: Header) -> tuple[datetime, float]:
    return acquisitions([header])[0], number(header, "FrameReferenceTime") or 0.0


def _ge_scan_date_time(header: Header) -> datetime | None:
    return times.date_time(text(header, "GEScanDateTime"))


def _back_computed(header: Header, given: Injection) -> datetime | None:
    """Start of the frame + T_ave − Frame Reference Time; None where that is absent or cannot be counted from."""
    frame_reference_ms = number(header, "FrameReferenceTime")
    if frame_reference_ms is None or not 0.0 <= frame_reference_ms <= _longest_s(given) * 1000.0:
        return None
    after_s = given.average_s(frame_s(header)) - frame_reference_ms / 1000.0
    return acquisitions([header])[0] + timedelta(seconds=after_s)


def _by_decay_factor(header: Header, given: Injection) -> datetime | None:
    """The reference from which Decay Factor is the decay until the frame and during it."""
    factor = _decay_factor(header)
    if factor is None:
        return None
    before_s = _clipped(log(factor / given.frame_growth(frame_s(header))) / given.decay_per_s, given)
    return acquisitions([header])[0] - timedelta(seconds=before_s)


def _decay_since(reference: datetime, header: Header, given: Injection) -> float:
    """e^{λ(acquisition − reference)} · λT/(1 − e^{−λT}), what Decay Factor should be (PS3.3 C.8.9.4.1)."""
    since_s = times.seconds_between(reference, acquisitions([header])[0], given.zone)
    return given.growth(_clipped(since_s, given)) * given.frame_growth(frame_s(header))


def _decay_factor(header: Header) -> float | None:
    """Decay Factor, None where it or the frame it is of makes no sense."""
    factor = number(header, "DecayFactor")
    return factor if factor is not None and factor > 0.0 and _has_frame(header) else None


def _has_frame(header: Header) -> bool:
    frame_ms = number(header, "ActualFrameDuration")
    return frame_ms is not None and 0.0 < frame_ms <= LONGEST_FRAME_S * 1000.0


def _suv_change(found: datetime, other: datetime, given: Injection) -> float:
    """SUV by the other reference over SUV by the one found, less 1; far apart it is just large."""
    return given.growth(_clipped(times.seconds_between(found, other, given.zone), given)) - 1.0


def _clipped(seconds: float, given: Injection) -> float:
    longest_s = _longest_s(given)
    return max(-longest_s, min(seconds, longest_s))


def _longest_s(given: Injection) -> float:
    """Ten half-lives, which for the sources of a phantom is beyond any calendar."""
    return min(LONGEST_UPTAKE_HALF_LIVES * given.half_life_s, LONGEST_S)
