"""What `tracerd inspect` found, as text: each series at a glance, then the files that could not be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from daemon.show import console, table
from daemon.terminal import plain
from dicom_io.errors import QuantityRefused

Facts = Mapping[str, Any]

_HINTS = {
    "no-weight no-height weight height no-sex": "Enter it at the scanner or the PACS and send the series again.",
    "no-dose dose": "Enter the injected activity at the scanner or the PACS and send the series again.",
    "no-injection-time injection-time injection-date uptake-time negative-decay-time ambiguous-time time-zone": (
        "Correct the time of injection, or --timezone, the zone of the scanner's clock."
    ),
    "units not-mapped suv-type slope intercept": (
        "Send the original reconstruction: a derived, converted or anonymised copy may have lost what its numbers mean."
    ),
    "no-philips-factor": "Send it again with its private attributes: something on the way removed those of Philips.",
    "no-reference-time no-acquisition-time no-frame-duration series-time": (
        "Send the original reconstruction: something on the way removed or changed its times."
    ),
    "not-attenuation-corrected not-decay-corrected": "Send the corrected reconstruction of the same scan.",
    "mixed-header radiopharmaceuticals half-life": "Ask whether several scans ended in one series.",
}
HINTS = {code: hint for codes, hint in _HINTS.items() for code in codes.split()}
"""Code of a refused SUV → what a person can do about it."""
SHOWN_FILES = 5
"""Files that are unreadable for one reason are named up to here, then counted."""
GOOD, DOUBTFUL, BAD = "green", "yellow", "bold red"


def show_inspection(inspection: Facts) -> None:
    """Every series, then the unreadable files by reason."""
    out = console()
    for facts in inspection["series"]:
        out.print(Text(_title(facts), style="bold"))
        drawn = table(("", ""), [])
        for label, words, style in _rows(facts):
            drawn.add_row(f"  {label}", Text(words, style=style))
        out.print(drawn)
        out.print()
    by_reason: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in inspection["unreadable"]:
        by_reason[one["code"], one["reason"]].append(one["path"])
    for (code, reason), paths in by_reason.items():
        out.print(Text(f"unreadable: {plain(reason)} [{code}], {_counted(len(paths), 'file')}", style=BAD))
        shown = [f"  {plain(path)}" for path in paths[:SHOWN_FILES]]
        out.print("\n".join(shown + ([f"  and {len(paths) - SHOWN_FILES} more"] if len(paths) > SHOWN_FILES else [])))


def _title(facts: Facts) -> str:
    words = (facts["modality"], facts["series_description"] or "without description")
    return " ".join(plain(word) for word in words if word)


def _rows(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """(label, words, style), nothing where there is nothing to say."""
    is_pet = facts["modality"] == "PT"
    if is_pet:
        yield from _tracer(facts)
    yield "scan", _scan(facts), DOUBTFUL if is_pet and not facts["attenuation_corrected"] else ""
    if facts["shape"]:
        yield "image", _image(facts), ""
    whole = {True: "yes", False: "NO", None: "cannot be told"}[facts["complete"]]
    yield "complete", f"{whole}: {plain(facts['complete_reason'])}", "" if facts["complete"] else DOUBTFUL
    if is_pet:
        yield from _suv(facts["suv"], facts["units"])
    for problem in facts["problems"]:
        if not problem.startswith(("suv: ", "tracer: unknown")):  # told above
            yield "problem", plain(problem), DOUBTFUL
    yield "files", f"{facts['instances']} in {plain(facts['folder'])}", ""


def _tracer(facts: Facts) -> Iterator[tuple[str, str, str]]:
    named = " ".join(plain(facts[what]) for what in ("tracer", "radionuclide") if facts[what]) or "unknown"
    known = facts["tracer"] is not None
    yield "tracer", f"{named} ({plain(facts['tracer_confidence'])})", "" if known else DOUBTFUL
    if not known:
        yield from (("", plain(evidence), "") for evidence in facts["tracer_evidence"])


def _scan(facts: Facts) -> str:
    """Kind, beds, corrections in a few words."""
    words = [plain(facts["kind"]) or "of no known kind"]
    if facts["modality"] == "PT":
        words += ["whole body"] if facts.get("whole_body") else []
        words += [_counted(facts["beds"], "bed")] if (facts.get("beds") or 0) > 1 else []
        corrected = facts["attenuation_corrected"]
        unknown = "attenuation correction cannot be told"
        words.append({True: "attenuation-corrected", False: "NOT attenuation-corrected (NAC)"}.get(corrected, unknown))
        others = [what for what in ("scatter", "decay", "randoms") if facts.get(f"{what}_corrected") is False]
        words += [f"not corrected for {' and '.join(others)}"] if others else []
        words += [f"{round(facts['uptake_min'])} min after injection"] if facts["uptake_min"] is not None else []
    if facts["produced_by"]:
        words.append(f"made by tracerd's {plain(facts['produced_by'])}")
    return ", ".join(words)


def _image(facts: Facts) -> str:
    *frames, slices, rows, columns = facts["shape"]
    size = f"{slices} × {rows} × {columns} voxels of {' × '.join(f'{mm:.4g}' for mm in facts['spacing_mm'])} mm"
    if not frames:
        return size
    times = [time for time in facts.get("frame_times") or () if None not in time]
    until = f" from 0 to {sum(times[-1]):g} s" if times else ""
    return f"{_counted(frames[0], 'gate' if facts['kind'] == 'gated' else 'frame')}{until}, each {size}"


def _suv(suv: Facts, units: str | None) -> Iterator[tuple[str, str, str]]:
    if suv["status"] != "ok":
        code, _, reason = plain(suv["reason"]).partition(": ")
        yield "SUVbw", f"REFUSED: {reason} [{code}]", BAD
        yield "", HINTS.get(code, QuantityRefused.hint), ""
        return
    here = "pixels not read" if suv["max"] is None else f"{suv['min']:.2f} to {suv['max']:.2f} g/mL in this series"
    low, high = suv["factor_min"], suv["factor_max"]
    factor = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}, by slice"
    yield "SUVbw", f"ok, {here}", DOUBTFUL if suv["max"] is None or suv.get("warnings") else GOOD
    yield "factor", f"{factor} ({plain(units)})", ""
    yield "reference", plain(suv["reference"]), ""
    for warning in suv.get("warnings") or ():
        yield "warning", plain(warning), DOUBTFUL


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
