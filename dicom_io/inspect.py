"""What lies in files and folders: the facts of every series, for `tracerd inspect`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from functools import partial
from operator import itemgetter
from pathlib import Path

from dicom_io import frames, quantity, series
from dicom_io.errors import PixelsRefused
from dicom_io.folder import Contents, FoundSeries, collect, cores, files_below, sandbox_for
from dicom_io.forked import has_one_thread, side_by_side
from dicom_io.headers import Header, number
from dicom_io.volume import check_mapped
from engines.contract import Json

INSTANCES_PER_PROCESS = 400
"""For fewer instances, another process to understand them is no gain."""


def inspect(paths: Iterable[Path], timezone: tzinfo = UTC) -> dict[str, Json]:
    """Read every file, group by series, understand each; folders are searched through. Returns as `inspection`.

    Raises
    ------
    FileNotFoundError
        A path that is not there.
    """
    files = files_below(paths)
    with sandbox_for(len(files)) as sandbox:
        return inspection(collect(files, sandbox), timezone)


def inspection(contents: Contents, timezone: tzinfo) -> dict[str, Json]:
    """{"series": [facts …], "unreadable": [{"path", "code", "reason"} …]}.

    Facts are those of `series.understand`; "instances" and "folder" say where they were found; suv.min and suv.max
    are the lowest and highest SUVbw [g/mL] of the pixels, None where there is none, with the reason in problems.
    """
    everything = list(contents.series.values())
    instances = sum(len(one.instances) for one in everything)
    processes = min(cores(), 1 + instances // INSTANCES_PER_PROCESS) if has_one_thread() else 1
    alike = sorted(range(len(everything)), key=lambda index: _effort(everything[index]))
    facts = side_by_side([partial(_facts, everything[index], timezone) for index in alike], processes)
    found = [facts for _, facts in sorted(zip(alike, facts, strict=True), key=itemgetter(0))]
    return {"series": found, "unreadable": list(contents.unreadable)}


def _effort(found: FoundSeries) -> tuple[str, int]:
    """Series that take about the same time are neighbours in the order of this."""
    return str(found.instances[0].survey.header.get("Modality")), len(found.instances)


def _facts(found: FoundSeries, timezone: tzinfo) -> dict[str, Json]:
    facts = series.understand(found.headers, {}, timezone)
    facts |= {"instances": len(found.instances), "folder": str(found.folder)}
    if facts["complete"] is None and not facts["expected"]:
        # Offline nothing more will come: slices without a count are complete if they are without a gap.
        facts["complete"] = facts["kind"] == "other" or facts["affine"] is not None
        if facts["affine"] is not None:
            facts["complete_reason"] = f"no slice is missing in between; {facts['complete_reason']}"
    if found.differing:
        facts["problems"].append(f"copies: {found.differing} instances differ from others with the same UID")
    facts["suv"] |= {"min": None, "max": None}
    if facts["suv"]["status"] == "ok":
        try:
            facts["suv"] |= _extremes(found, facts["suv"], timezone)
        except PixelsRefused as error:
            facts["problems"].append(f"pixels: {error.code}: {error}")
    return facts


def _extremes(found: FoundSeries, suv: Mapping[str, Json], timezone: tzinfo) -> dict[str, float]:
    """Lowest and highest SUVbw [g/mL] of the series.

    Raises
    ------
    PixelsRefused
        As `survey.stored_extremes` of any instance, `volume.check_mapped` of any frame; no-pixels.
    """
    refused = [one.survey.pixels_refused for one in found.instances if one.survey.pixels_refused]
    if refused:
        code, message = refused[0]
        raise PixelsRefused(f"{message}, in {len(refused)} of {len(found.instances)} instances", code=code)
    slices = frames.single_frames(found.headers)
    stored = [extremes for one in found.instances for extremes in one.survey.extremes or ()]
    if len(stored) != len(slices):
        message = f"Pixel Data (7FE0,0010): expected {len(slices)} frames, got {len(stored)}"
        raise PixelsRefused(message, code="no-pixels")
    for header, (low, high) in zip(slices, stored, strict=True):
        check_mapped(low, high, header)
    values = [
        factor * value
        for header, factor, extremes in zip(slices, _factors(slices, suv, timezone), stored, strict=True)
        for value in _rescaled(extremes, header)
    ]
    return {"min": min(values), "max": max(values)}


def _factors(slices: Sequence[Header], suv: Mapping[str, Json], timezone: tzinfo) -> Sequence[float]:
    if suv["factor_min"] == suv["factor_max"]:
        return [suv["factor"]] * len(slices)
    return quantity.suvbw(slices, timezone).factors


def _rescaled(stored: Sequence[int], header: Header) -> list[float]:
    slope, intercept = number(header, "RescaleSlope") or 0.0, number(header, "RescaleIntercept") or 0.0
    return [value * slope + intercept for value in stored]
