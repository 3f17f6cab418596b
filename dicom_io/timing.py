"""Slices → time frames or gates: which slice belongs to which frame, when each frame began, how long it lasted. Pure.

Neither instance numbers nor the order of arrival say anything about time (some scanners number a dynamic series
backwards), so frames are told apart by the clocks that PS3.3 C.8.9.4 provides, in this order of trust:

dynamic : Acquisition Date and Time (0008,0022), (0008,0032), the start of the data; Frame Reference Time (0054,1300);
    Temporal Position Index (0020,9128) or Identifier (0020,0100); Image Index (0054,1330)
gated : Trigger Time (0018,1060), from the R wave to the gate; temporal position; Image Index

A clock counts where every slice has it and it differs between the images of every place. The first that counts
decides; a later one that orders the frames otherwise is reported, or, if it is a clock too, refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import expm1, log, prod

import numpy as np
from numpy.typing import NDArray

from dicom_io import geometry, times
from dicom_io.errors import GeometryRefused
from dicom_io.geometry import Grid
from dicom_io.headers import Header, common, items, number

TOLERANCE_S = 0.5
TOLERANCE = 0.01
"""Times agree within 0.5 s or 1 % of the frame, whichever is more: headers round to a second at worst."""
MIDNIGHT_S = 12.0 * 3600.0
"""A pause longer than this inside one date is a midnight that the date did not follow."""
DAY_S = 86400.0
REFERENCE = "Frame Reference Time (0054,1300)"
MEAN_ACTIVITY = "time of mean activity"
SHOWN_MAX = 5
"""Lines of one kind in `problems`; more are counted."""

Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TimeFrame:
    """One frame or gate.

    indices : of the headers given, in the order of z
    start_s : after the start of the first frame; None where unknown, and for gates
    duration_s : Actual Frame Duration (0018,1242); None where absent or differing between slices
    trigger_ms : Trigger Time (0018,1060) of a gate
    """

    indices: tuple[int, ...]
    start_s: float | None
    duration_s: float | None
    trigger_ms: float | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The frames of a series in the order of time.

    grid : the one that all frames fill; its order is that of the first frame
    problems : what is odd about the times, in words
    """

    frames: tuple[TimeFrame, ...]
    grid: Grid
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Clock:
    """What may tell the images of one place apart.

    values : one per header, None where one of them has none
    is_time : seconds; else only an order
    """

    name: str
    values: Seconds | None
    is_time: bool = False

    def of(self, indices: NDArray[np.int64]) -> Seconds:
        """Values of these headers, in the shape of the indices."""
        return np.full(indices.shape, np.nan) if self.values is None else np.asarray(self.values[indices])

    def counts(self, places: Sequence[Sequence[int]]) -> bool:
        """Whether it differs between all images of each place."""
        return self.values is not None and all(len(np.unique(self.values[place])) == len(place) for place in places)


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Slices sorted into frames.

    clocks : in the order of trust; `clock` is the one that decided
    table : int (frames, places), the header at each place of each frame
    """

    headers: Sequence[Header]
    clocks: Sequence[_Clock]
    clock: _Clock
    table: NDArray[np.int64]

    def by_frame(self, values: Seconds) -> Seconds:
        """float64 (frames, places)"""
        return np.asarray(values[self.table])


def split(headers: Sequence[Header], kind: str) -> Timeline:
    """Frames of one series of single-frame headers, given in any order.

    kind : static (one frame), dynamic or gated

    Raises
    ------
    GeometryRefused
        As `geometry.grid`; uneven-frames (a slice of a frame is missing, sent twice, or lies on another grid),
        frame-order (nothing tells the frames apart, or two clocks order them differently), frame-times (slices of one
        frame were acquired before and after those of another, so no time is that of the frame).
    """
    places = geometry.places(headers) if kind in {"dynamic", "gated"} else None
    if places is None:
        grid = geometry.grid(headers)  # refuses where a slice has no place
        return Timeline((TimeFrame(grid.order, 0.0, _common(_durations_s(headers)), None),), grid, ())
    geometry.check_one_kind(headers)
    clocks = _clocks(headers, kind)
    _check_even(places, clocks, headers)
    clock, table = _ordered(places, clocks)
    grid, table = _on_one_grid(headers, table)
    found = _Sorted(headers, clocks, clock, table)
    problems = _order_problems(found) + _count_problems(found, kind)
    frames = _gates(found) if kind == "gated" else _time_frames(found, problems)
    return Timeline(frames, grid, tuple(problems))


def missing_slices(headers: Sequence[Header], kind: str) -> list[tuple[int, int]]:
    """(frame, z), both from 0, of the slices that some frames have and others lack; none where nobody can tell."""
    places = geometry.places(headers)
    return [] if places is None else _missing(places, _clocks(headers, kind))


def acquired_s(headers: Sequence[Header]) -> Seconds | None:
    """When each slice was acquired [s after the earliest]; None where one does not say.

    A scan across midnight whose Acquisition Date stays the same goes on the next day: no scan pauses for 12 hours.
    """
    moments = [moment for moment in map(times.acquired, headers) if moment is not None]
    if len(moments) != len(headers) or len({moment.tzinfo is None for moment in moments}) > 1:
        return None
    first = min(moments)
    since = np.array([(moment - first).total_seconds() for moment in moments])
    steps = np.diff(distinct := np.unique(since))
    if len({moment.date() for moment in moments}) == 1 and len(steps) and steps.max() > MIDNIGHT_S:
        since[since <= distinct[steps.argmax()]] += DAY_S
    return np.asarray(since - since.min())


def bed_positions(headers: Sequence[Header]) -> int | None:
    """Number of bed positions of a static series: runs of slices, along z, that were acquired at one time.

    None where no time is known, where times interleave along z, and for a bed that moves while it measures, so that
    nearly every slice has a time of its own. Frame Reference Time decides where Acquisition Time is the same
    everywhere (some scanners repeat the start of the scan on every slice).
    """
    along = geometry.distances_mm(headers)
    clocks = (acquired_s(headers), _numbers(headers, "FrameReferenceTime"))
    known = [clock for clock in clocks if clock is not None]
    if along is None or not known:
        return None
    telling = next((clock for clock in known if len(np.unique(clock)) > 1), known[0])
    ordered = telling[np.argsort(along, kind="stable")]
    beds = 1 + int(np.count_nonzero(np.diff(ordered)))
    moving = beds > 1 and len(headers) < 2 * beds
    return None if moving or beds != len(np.unique(telling)) else beds


def mean_activity_s(duration_s: float, decay_per_s: float | None) -> float:
    """When, after the start of a frame, the activity is its mean over the frame [s]: ln(λT/(1 − e^−λT))/λ.

    PS3.3 C.8.9.4.1.5, example 2; half the duration where nothing decays or the half-life is not known.
    """
    if not decay_per_s or (decays := decay_per_s * duration_s) < 1e-6:
        return duration_s / 2.0
    return log(decays / -expm1(-decays)) / decay_per_s


def _clocks(headers: Sequence[Header], kind: str) -> list[_Clock]:
    """In the order of trust."""
    orders = [
        _Clock("Temporal Position Index (0020,9128)", _numbers(headers, "TemporalPositionIndex")),
        _Clock("Temporal Position Identifier (0020,0100)", _numbers(headers, "TemporalPositionIdentifier")),
        _Clock("Image Index (0054,1330)", _numbers(headers, "ImageIndex")),
    ]
    if kind == "gated":
        return [_Clock("Trigger Time (0018,1060)", _numbers(headers, "TriggerTime")), *orders]
    reference_ms = _numbers(headers, "FrameReferenceTime")
    reference_s = None if reference_ms is None else reference_ms / 1000.0
    acquired = _Clock("Acquisition Time (0008,0032)", acquired_s(headers), is_time=True)
    return [acquired, _Clock(REFERENCE, reference_s, is_time=True), *orders]


def _check_even(places: Sequence[Sequence[int]], clocks: Sequence[_Clock], headers: Sequence[Header]) -> None:
    """Every frame must have one slice at every place."""
    counts = [len(place) for place in places]
    if min(counts) == max(counts):
        return
    lacking = _missing(places, clocks)
    if lacking:
        along = geometry.distances_mm(headers)
        frame, z = lacking[0]
        at = "" if along is None else f" ({along[places[z][0]]:.1f} mm along the normal)"
        message = (
            f"slices: expected {len(places)} in each of {max(counts)} frames, frame {frame + 1} has none at place "
            f"{z + 1}{at}; {len(lacking)} missing in all"
        )
    else:
        message = f"slices: expected the same number of frames at each place, got {min(counts)} to {max(counts)}"
    raise GeometryRefused(message, code="uneven-frames")


def _missing(places: Sequence[Sequence[int]], clocks: Sequence[_Clock]) -> list[tuple[int, int]]:
    """Frames by the first clock that has exactly one value per frame; the places at which each of them has no slice."""
    frames = max(len(place) for place in places)
    for clock in clocks:
        if clock.values is None or not clock.counts(places):
            continue
        values = np.unique(clock.values)
        if len(values) == frames:
            there = [set(clock.values[place]) for place in places]
            return [(k, z) for k, value in enumerate(values) for z in range(len(places)) if value not in there[z]]
    return []


def _ordered(places: Sequence[Sequence[int]], clocks: Sequence[_Clock]) -> tuple[_Clock, NDArray[np.int64]]:
    """The deciding clock, and int (frames, places): the header at each place of each frame."""
    counting = [clock for clock in clocks if clock.counts(places)]
    if len(places[0]) == 1 and not counting:
        counting = [_Clock("nothing", np.zeros(len(places)))]  # one frame needs no order
    if not counting:
        names = ", ".join(clock.name for clock in clocks)
        message = f"slices: expected frames to differ in one of {names}; none does at every place"
        raise GeometryRefused(message, code="frame-order")
    clock = counting[0]
    table = _ranked(places, clock)
    values = clock.of(table)
    if clock.is_time and (values[:-1].max(axis=1) >= values[1:].min(axis=1)).any():
        message = f"{clock.name}: expected one frame after the other, slices of different frames interleave"
        raise GeometryRefused(message, code="frame-times")
    for other in counting[1:]:
        if other.is_time and not np.array_equal(_ranked(places, other), table):
            message = f"slices: expected one order of frames, {clock.name} and {other.name} say two"
            raise GeometryRefused(message, code="frame-order")
    return clock, table


def _ranked(places: Sequence[Sequence[int]], clock: _Clock) -> NDArray[np.int64]:
    return np.array([np.asarray(place)[np.argsort(clock.of(np.asarray(place)))] for place in places]).T


def _on_one_grid(headers: Sequence[Header], table: NDArray[np.int64]) -> tuple[Grid, NDArray[np.int64]]:
    """The grid that every frame fills, and the table with its columns in the order of z."""
    grids = [geometry.grid([headers[index] for index in row]) for row in table]
    first = grids[0]
    for count, grid in enumerate(grids[1:], start=2):
        apart_mm = float(np.abs(grid.affine - first.affine).max())
        if apart_mm > geometry.POSITION_TOLERANCE_MM:
            message = f"slices: expected one grid for all frames, that of frame {count} is {apart_mm:.2f} mm off"
            raise GeometryRefused(message, code="uneven-frames")
    table = np.array([row[list(grid.order)] for row, grid in zip(table, grids, strict=True)])
    return replace(first, order=tuple(int(index) for index in table[0])), table


def _order_problems(found: _Sorted) -> list[str]:
    """Better clocks that could not decide, and orders that do not follow the one that did."""
    decided = found.clocks.index(found.clock) if found.clock in found.clocks else len(found.clocks)
    problems = [
        f"timing: {better.name} does not tell the frames apart, {found.clock.name} does"
        for better in found.clocks[:decided]
        if better.values is not None
    ]
    for other in found.clocks[decided + 1 :]:
        if other.values is None or other.is_time:
            continue
        steps = np.diff(other.of(found.table), axis=0)
        if (steps <= 0).any():
            word = "runs against" if (steps < 0).all() else "does not follow"
            problems.append(f"timing: {other.name} {word} {found.clock.name}, which decides")
    return problems


def _count_problems(found: _Sorted, kind: str) -> list[str]:
    """The counts of the series against the frames there are."""
    keywords = ("NumberOfRRIntervals", "NumberOfTimeSlots") if kind == "gated" else ("NumberOfTimeSlices",)
    counts = [common(found.headers, keyword) for keyword in keywords]
    if not all(isinstance(count, int) for count in counts) or prod(counts) == len(found.table):
        return []
    what = "gates" if kind == "gated" else "frames"
    return [f"timing: {' × '.join(keywords)} says {prod(counts)} {what}, there are {len(found.table)}"]


def _gates(found: _Sorted) -> tuple[TimeFrame, ...]:
    durations = _frame_durations(found)
    triggers = _numbers(found.headers, "TriggerTime")
    triggers_ms = [None] * len(durations) if triggers is None else [_common(row) for row in found.by_frame(triggers)]
    return tuple(
        TimeFrame(tuple(row.tolist()), None, duration_s, trigger_ms)
        for row, duration_s, trigger_ms in zip(found.table, durations, triggers_ms, strict=True)
    )


def _time_frames(found: _Sorted, problems: list[str]) -> tuple[TimeFrame, ...]:
    durations = _frame_durations(found)
    unknown = [str(count) for count, duration_s in enumerate(durations, start=1) if duration_s is None]
    if unknown:
        shown = ", ".join(unknown[:SHOWN_MAX]) + (" …" if len(unknown) > SHOWN_MAX else "")
        problems.append(f"timing: Actual Frame Duration (0018,1242) absent or not one value in frames {shown}")
    starts = _starts(found, durations, problems)
    problems += _joints(starts, durations)
    return tuple(
        TimeFrame(tuple(row.tolist()), start_s, duration_s, None)
        for row, start_s, duration_s in zip(found.table, starts, durations, strict=True)
    )


def _frame_durations(found: _Sorted) -> list[float | None]:
    durations_s = _durations_s(found.headers)
    return [None] * len(found.table) if durations_s is None else [_common(row) for row in found.by_frame(durations_s)]


def _starts(found: _Sorted, durations: Sequence[float | None], problems: list[str]) -> Sequence[float | None]:
    """Start of each frame after that of the first [s]; None for all where the slices of a frame have no one start."""
    unknown = [None] * len(durations)
    if not found.clock.is_time:
        problems += [f"timing: no time tells the frames apart, {found.clock.name} does"] * (len(durations) > 1)
        return [0.0] if len(durations) == 1 else unknown
    values = found.clock.of(found.table)
    spreads = np.ptp(values, axis=1)
    if any(spread > _tolerance_s(duration_s) for spread, duration_s in zip(spreads, durations, strict=True)):
        problems.append(
            f"timing: slices of one frame lie up to {spreads.max():.1f} s apart, so frames have no one start"
        )
        return unknown
    known = np.array([np.nan if duration_s is None else duration_s for duration_s in durations])
    decay_per_s = _decay_per_s(found.headers[0])
    if found.clock.name != REFERENCE:
        starts = values.min(axis=1)  # as `acquired_s` has it, after the earliest slice of all
        problems += _contradictions(found, starts, known, decay_per_s)
        return list(map(float, starts))
    if np.isnan(known).any():
        return unknown
    said, starts = _from_reference(values.min(axis=1), known, decay_per_s)
    if said != MEAN_ACTIVITY:
        problems.append(
            f"timing: Frame Reference Time (0054,1300) is the {said} of each frame, not its {MEAN_ACTIVITY}"
        )
    return list(map(float, starts))


def _from_reference(reference_s: Seconds, duration_s: Seconds, decay_per_s: float | None) -> tuple[str, Seconds]:
    """What Frame Reference Time is the time of, and the starts of the frames that follow from it.

    The standard makes it the time of mean activity; some scanners write the middle, the start or the end. Only one of
    them joins frames of different length without gaps or overlaps; where none does, the standard's is taken.
    """
    readings = _readings(reference_s, duration_s, decay_per_s)
    for said, starts in readings:
        if not _joints(list(starts), list(duration_s)):
            return said, starts
    return readings[0]


def _readings(reference_s: Seconds, duration_s: Seconds, decay_per_s: float | None) -> list[tuple[str, Seconds]]:
    """Starts after that of the first frame [s], by what Frame Reference Time may be the time of."""
    mean_s = np.array([mean_activity_s(float(each), decay_per_s) for each in duration_s])
    offsets = {MEAN_ACTIVITY: mean_s, "middle": duration_s / 2.0, "start": np.zeros_like(duration_s), "end": duration_s}
    return [(said, (reference_s - offset) - (reference_s - offset)[0]) for said, offset in offsets.items()]


def _contradictions(found: _Sorted, starts_s: Seconds, duration_s: Seconds, decay_per_s: float | None) -> list[str]:
    """Where Frame Reference Time, however it is read, starts a frame at another time than its acquisition."""
    reference = next(clock for clock in found.clocks if clock.name == REFERENCE)
    if reference.values is None or np.ptp(reference.values) == 0.0 or np.isnan(duration_s).any():
        return []
    readings = _readings(np.median(reference.of(found.table), axis=1), duration_s, decay_per_s)
    tolerances = np.array([_tolerance_s(float(each)) for each in duration_s])
    apart = [np.abs(starts - starts_s) - tolerances for _, starts in readings]
    if any((each <= 0.0).all() for each in apart):
        return []
    frame = int(np.argmax(apart[0] > 0.0))
    said_s = readings[0][1][frame]
    at = f"{starts_s[frame]:.1f} s by {found.clock.name}, {said_s:.1f} s by {REFERENCE}"
    return [f"timing: frame {frame + 1} starts at {at}"]


def _joints(starts: Sequence[float | None], durations: Sequence[float | None]) -> list[str]:
    """Gaps and overlaps between frames that follow each other."""
    lines = []
    for count, (start, duration_s, after) in enumerate(zip(starts, durations, starts[1:], strict=False), start=1):
        if start is None or duration_s is None or after is None:
            continue
        gap_s = after - (start + duration_s)
        if gap_s > _tolerance_s(duration_s):
            lines.append(f"timing: gap of {gap_s:.1f} s between frames {count} and {count + 1}")
        elif gap_s < -_tolerance_s(duration_s):
            lines.append(f"timing: frames {count} and {count + 1} overlap by {-gap_s:.1f} s")
    more = len(lines) - SHOWN_MAX
    return [*lines[:SHOWN_MAX], f"timing: {more} more gaps or overlaps"] if more > 0 else lines


def _tolerance_s(duration_s: float | None) -> float:
    return TOLERANCE_S if duration_s is None else max(TOLERANCE_S, TOLERANCE * duration_s)


def _common(values: Seconds | None) -> float | None:
    """The one value there is, to the tolerance: the middle one, whatever the order."""
    if values is None or np.ptp(values) > TOLERANCE * np.abs(values).max():
        return None
    return float(np.median(values))


def _durations_s(headers: Sequence[Header]) -> Seconds | None:
    found = _numbers(headers, "ActualFrameDuration")
    return None if found is None or found.min() <= 0.0 else found / 1000.0


def _decay_per_s(header: Header) -> float | None:
    given = items(header, "RadiopharmaceuticalInformationSequence")
    half_life_s = number(given[0], "RadionuclideHalfLife") if given else None
    return log(2.0) / half_life_s if half_life_s is not None and half_life_s > 0.0 else None


def _numbers(headers: Sequence[Header], keyword: str) -> Seconds | None:
    """One number of every header, None where one of them has none."""
    found = [number(header, keyword) for header in headers]
    return None if None in found else np.array(found, dtype=np.float64)
