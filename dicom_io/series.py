"""The headers of one series → the facts that rules, people and the pipeline go by. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from math import acos, degrees, prod
from statistics import median_low

import numpy as np

from dicom_io import corrections, description, geometry, kinds, quantity, timing
from dicom_io.errors import GeometryRefused, QuantityRefused
from dicom_io.frames import single_frames
from dicom_io.headers import Header, common, items, text
from dicom_io.tracer import Tracer, resolve
from engines.contract import Json

PARALLEL_COSINE = 0.999
"""Slice normals closer than 2.6° count as parallel."""
ROUNDING_MM = 0.01
COUNTS: Mapping[str, Mapping[str, str]] = {
    "static": {"NumberOfSlices": "slices"},
    "dynamic": {"NumberOfSlices": "slices", "NumberOfTimeSlices": "frames"},
    "gated": {"NumberOfSlices": "slices", "NumberOfRRIntervals": "R-R intervals", "NumberOfTimeSlots": "gates"},
}
"""Attributes whose product is the number of instances, by kind (PS3.3 C.8.9.1), and what they count."""
DESCRIBING = ("SeriesDescription", "ProtocolName")
"""Texts that may contradict a tracer."""
SHOWN_MAX = 5
"""Missing slices that a reason names."""


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether all instances of a series are there.

    whole : None where the series has no count, or one that cannot be right
    expected : number of instances by the counts, None without
    reason : for the people of the archive, such as "38 of 47 slices"
    """

    whole: bool | None
    expected: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """Whether the slices of one series reach over all slices of another.

    fraction : share of the other's extent along its normal, from its first to its last slice, that is reached; 0 where
        nothing is known of it
    """

    covered: bool
    reason: str
    fraction: float = 0.0


def understand(headers: Sequence[Header], association: Mapping[str, Json], timezone: tzinfo) -> dict[str, Json]:
    """SeriesFacts of one series: what it is, what its numbers mean, where it lies, whether it is whole.

    headers : `Reading.header` of its instances, in any order, at least one
    association : calling_ae and called_ae of the sender
    timezone : of the site, for times that must be compared with others that carry an offset from UTC

    Nothing is guessed: what the headers do not say, or contradict, is None, with the reason in `problems`: a line
    each, which begins with a stable word ("tracer: …", "timing: …", "missing-slice: …").
    """
    problems: list[str] = sorted({problem for header in headers for problem in header.get("Problems", ())})
    slices = single_frames(headers)
    is_pet = common(slices, "Modality") == "PT"
    kind = kinds.kind_of(slices, problems)
    layout = _layout(slices, kind, problems)
    whole = completeness(headers)
    tracer = _tracer(slices) if is_pet else Tracer(None, None, "none", ())
    problems += _tracer_problems(tracer) if is_pet else []
    return {
        **description.series_description(slices),
        "kind": kind,
        "whole_body": kinds.is_whole_body(slices) if is_pet else None,
        "beds": timing.bed_positions(slices) if is_pet and kind == "static" else None,
        "primary": kinds.is_primary(slices),
        "tracer": tracer.tracer,
        "radionuclide": tracer.radionuclide,
        "tracer_confidence": tracer.confidence,
        "tracer_evidence": list(tracer.evidence),
        "tracer_conflicts": list(tracer.conflicts),
        **_corrections(slices, problems, is_pet=is_pet),
        "units": common(slices, "Units"),
        "suv": _suv(slices, timezone, problems, is_pet=is_pet),
        **layout,
        "slices": layout["shape"][-3] if layout["shape"] else len(slices),
        "complete": whole.whole,
        "expected": whole.expected,
        "complete_reason": whole.reason,
        **description.examination(slices, timezone, kind, is_pet=is_pet),
        "calling_ae": association.get("calling_ae"),
        "called_ae": association.get("called_ae"),
        "produced_by": description.produced_by(slices),
        "problems": problems,
    }


def completeness(headers: Sequence[Header]) -> Completeness:
    """Compare the instances with the counts of a PET series; multi-frame objects are whole, or parts of a whole.

    A STATIC or WHOLE BODY series has Number of Slices places, whatever its other counts say: real static series carry
    Number of Time Slices 6. One header is enough to learn what is expected.
    """
    multi_frame = sum("Frames" in header for header in headers)
    if multi_frame == len(headers):
        return _completeness_of_multi_frames(headers)
    kind = kinds.kind_of(headers, []) if common(headers, "Modality") == "PT" else None
    if multi_frame or kind is None or kind not in COUNTS:
        return Completeness(None, None, "this kind of series has no count")
    names = COUNTS[kind]
    counts = []
    for keyword in names:
        count = common(headers, keyword)
        if not isinstance(count, int) or count < 1:
            return Completeness(None, None, f"{keyword} is absent, or differs between instances")
        counts.append(count)
    expected = prod(counts)
    arrived = _arrived(headers, static=kind == "static")
    product = " × ".join(f"{count} {name}" for count, name in zip(counts, names.values(), strict=True))
    formula = f" ({product})" if len(counts) > 1 else ""
    if arrived > expected:
        reason = f"{arrived} slices, more than the {expected} that {' × '.join(names)} says{formula}"
        return Completeness(None, expected, reason)
    lacking = "" if kind == "static" else _lacking(headers, kind)
    return Completeness(arrived == expected, expected, f"{arrived} of {expected} slices{formula}{lacking}")


def covers(facts: Mapping[str, Json], other: Mapping[str, Json]) -> Coverage:
    """Whether one series (a CT) reaches over all slices of another (a PET), to half a slice, without a gap of its own.

    Both are facts of `understand`; a series whose slices form no regular grid covers nothing.
    """
    if not facts.get("affine") or not other.get("affine"):
        return Coverage(covered=False, reason="no regular grid, or a gap between slices")
    if facts["frame_of_reference_uid"] is None or facts["frame_of_reference_uid"] != other["frame_of_reference_uid"]:
        return Coverage(covered=False, reason="another frame of reference")
    cosine = _cosine_of_normals(facts["orientation"], other["orientation"])
    if abs(cosine) < PARALLEL_COSINE:
        angle_deg = degrees(acos(abs(cosine)))
        return Coverage(covered=False, reason=f"slices are not parallel, {angle_deg:.1f}° apart")
    low, high = facts["z_range_mm"] if cosine > 0 else [-edge for edge in reversed(facts["z_range_mm"])]
    wanted_low, wanted_high = other["z_range_mm"]
    slack = ROUNDING_MM + other["spacing_mm"][0] / 2.0
    short_mm = max(low - wanted_low, wanted_high - high)
    if short_mm <= slack:
        return Coverage(covered=True, reason=f"reaches from {low:.1f} to {high:.1f} mm", fraction=1.0)
    reached_mm = max(0.0, min(high + slack, wanted_high) - max(low - slack, wanted_low))
    fraction = reached_mm / (wanted_high - wanted_low) if wanted_high > wanted_low else 0.0
    side = "begins" if low - wanted_low == short_mm else "ends"
    too = "late" if side == "begins" else "early"
    return Coverage(
        covered=False, reason=f"{side} {short_mm:.1f} mm too {too}, covers {fraction:.0%}", fraction=fraction
    )


def _layout(headers: Sequence[Header], kind: str | None, problems: list[str]) -> dict[str, Json]:
    """Grid of the slices; for dynamic and gated series of one frame, with the number of frames before it."""
    facts: dict[str, Json] = {
        "frame_of_reference_uid": common(headers, "FrameOfReferenceUID"),
        "shape": None,
        "spacing_mm": None,
        "affine": None,
        "orientation": None,
        "z_range_mm": None,
        "frames": 1,
        "frame_times": None,
    }
    try:
        timeline = timing.split(headers, kind or "static")
    except GeometryRefused as refused:
        if kind != "other":  # a report or a segmentation need not be a stack of slices
            problems.append(f"{refused.code}: {refused}")
        return facts
    problems += timeline.problems
    grid, frames = timeline.grid, timeline.frames
    return facts | {
        "shape": [len(frames), *grid.shape] if kind in {"dynamic", "gated"} else list(grid.shape),
        "spacing_mm": list(grid.spacing_mm),
        "affine": grid.affine.tolist(),
        "orientation": list(grid.orientation),
        "z_range_mm": list(grid.z_range_mm),
        "frames": len(frames),
        "frame_times": [[frame.start_s, frame.duration_s] for frame in frames] if kind == "dynamic" else None,
    }


def _arrived(headers: Sequence[Header], *, static: bool) -> int:
    """Distinct instances; of a static series distinct places, since a slice sent twice under two UIDs is one slice."""
    places = geometry.places(headers) if static else None
    return len(places) if places is not None else len({str(header.get("SOPInstanceUID")) for header in headers})


def _lacking(headers: Sequence[Header], kind: str) -> str:
    """Which slices of which frames are missing, as far as the others tell."""
    missing = timing.missing_slices(headers, kind)
    if not missing:
        return ""
    word = "gate" if kind == "gated" else "frame"
    shown = ", ".join(f"slice {z + 1} of {word} {frame + 1}" for frame, z in missing[:SHOWN_MAX])
    return f"; missing: {shown}" + (f" and {len(missing) - SHOWN_MAX} more" if len(missing) > SHOWN_MAX else "")


def _completeness_of_multi_frames(headers: Sequence[Header]) -> Completeness:
    """A multi-frame object is whole by itself; the parts of a concatenation count each other (PS3.3 C.7.6.16.2.2.4)."""
    parts: dict[str, set[Json]] = {}
    totals: dict[str, Json] = {}
    alone = set()
    for header in headers:
        concatenation = text(header, "ConcatenationUID")
        if concatenation is None:
            alone.add(header.get("SOPInstanceUID"))
        else:
            parts.setdefault(concatenation, set()).add(header.get("InConcatenationNumber"))
            totals[concatenation] = header.get("InConcatenationTotalNumber") or totals.get(concatenation)
    known = [total for total in totals.values() if isinstance(total, int) and total >= 1]
    if len(known) != len(totals):
        return Completeness(None, None, "InConcatenationTotalNumber is absent from a concatenation")
    expected = len(alone) + sum(known)
    arrived = len(alone) + sum(map(len, parts.values()))
    if arrived > expected:
        return Completeness(None, expected, f"{arrived} multi-frame objects, more than the {expected} that they count")
    return Completeness(arrived == expected, expected, f"{arrived} of {expected} multi-frame objects")


def _tracer(headers: Sequence[Header]) -> Tracer:
    radiopharmaceuticals: list[Header] = []
    for header in headers:
        for item in items(header, "RadiopharmaceuticalInformationSequence"):
            if item not in radiopharmaceuticals:
                radiopharmaceuticals.append(item)
    return resolve(radiopharmaceuticals, [text(headers[0], keyword) or "" for keyword in DESCRIBING])


def _tracer_problems(tracer: Tracer) -> list[str]:
    if tracer.conflicts:
        return [f"tracer: {conflict}" for conflict in tracer.conflicts]
    return ["tracer: unknown, see tracer_evidence"] if tracer.tracer is None else []


def _corrections(headers: Sequence[Header], problems: list[str], *, is_pet: bool) -> dict[str, Json]:
    found = corrections.corrections_of(headers) if is_pet else None
    problems += found.conflicts if found else ()
    return {f"{name}_corrected": getattr(found, name, None) for name in corrections.CORRECTIONS}


def _suv(headers: Sequence[Header], timezone: tzinfo, problems: list[str], *, is_pet: bool) -> dict[str, Json]:
    """How to get SUVbw from rescaled values; `factor` is the middle one where slices have several."""
    refused: dict[str, Json] = {
        "status": "refused",
        "type": None,
        "factor": None,
        "factor_min": None,
        "factor_max": None,
        "reference": None,
        "branch": None,
        "warnings": [],
    }
    if not is_pet:
        return refused | {"reason": "not a PET series"}
    try:
        found = quantity.suvbw(headers, timezone)
    except QuantityRefused as error:
        problems.append(f"suv: {error.code}: {error}")
        return refused | {"reason": f"{error.code}: {error}"}
    problems += [f"suv: {warning}" for warning in found.warnings]
    return {
        "status": "ok",
        "type": "BW",
        "factor": median_low(found.factors),
        "factor_min": min(found.factors),
        "factor_max": max(found.factors),
        "reference": found.reference,
        "branch": found.branch,
        "warnings": list(found.warnings),
        "reason": None,
    }


def _cosine_of_normals(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two orientations as Image Orientation (Patient): six direction cosines each."""
    return float(np.cross(one[:3], one[3:]) @ np.cross(other[:3], other[3:]))
