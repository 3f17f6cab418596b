"""`tracerd run`: one engine on a folder of DICOM, by the same path as a worker's, without a node and its database."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from config.document import NotYaml, read_yaml
from daemon.commands import CannotDo
from daemon.identity import Work
from daemon.node import TRACERD_VERSION, utc_now
from daemon.worker import MANIFEST, Task, perform
from dicom_io.folder import Instance, collect, files_below, sandbox_for
from dicom_io.series import covers, understand
from engines.contract import Engine, Quantity, Slot
from engines.errors import BadParameters
from engines.registry import runnable

RESULTS = (MANIFEST, "seg.dcm", "sr.dcm")


@dataclass(frozen=True, slots=True)
class Run:
    """What `tracerd run` was asked for."""

    engine: str
    path: Path
    out: Path
    parameters: Mapping[str, Any]
    timezone: ZoneInfo
    device: str = "cpu"
    weights: Path | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A series on disk that may become an input: its facts and its files."""

    facts: Mapping[str, Any]
    instances: Sequence[Instance]

    @property
    def paths(self) -> list[Path]:
        """One per instance."""
        return [instance.path for instance in self.instances]

    @property
    def words(self) -> str:
        """The series as people tell it from others; no identifier of a patient."""
        description = self.facts["series_description"] or "without description"
        return f"{self.facts['modality']} {description} ({len(self.instances)} instances)"


def series_in(path: Path, timezone: tzinfo) -> list[Candidate]:
    """Every series at or below a path; files that are no readable DICOM are passed over.

    Raises
    ------
    CannotDo
        There is none.
    """
    files = files_below([path])
    with sandbox_for(len(files)) as sandbox:
        found = collect(files, sandbox).series.values()
    if not found:
        raise CannotDo(f"{path}: expected DICOM files, got none that can be read; `tracerd inspect` says why")
    return [Candidate(understand(one.headers, {}, timezone), one.instances) for one in found]


def contents_of(chosen: Mapping[str, Candidate]) -> dict[str, list[str]]:
    """Digest of the content of each instance of each input, as `headers.Reading.content_sha256`.

    Raises
    ------
    UnreadableObject
        A file that could be read a moment ago.
    """
    with sandbox_for(sum(len(series.instances) for series in chosen.values())) as sandbox:
        return {slot: [sandbox.read(path).content_sha256 for path in series.paths] for slot, series in chosen.items()}


def parameters_of(given: Iterable[str]) -> dict[str, Any]:
    """NAME=VALUE, each value read as in a rule.

    Raises
    ------
    CannotDo
        Not of that form.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise CannotDo(f"parameter: expected NAME=VALUE, got {text!r}")
        try:
            found[name] = read_yaml(value.encode()).content
        except NotYaml as error:
            raise CannotDo(f"parameter {name}: {error}") from error
    return found


def run_engine(wanted: Run) -> dict[str, Any]:
    """Fill the engine's inputs from the folder, run it, write DICOM; returns the document of `tracerd run --json`.

    Raises
    ------
    CannotDo
        The folder does not say which series to use, or the output folder holds results.
    engines.errors.EngineError, dicom_io.errors.DicomError
        There is no result, and why.
    """
    started = time.monotonic()
    method = runnable(wanted.engine, wanted.weights)
    if faults := method.check(wanted.parameters):
        raise BadParameters("; ".join(faults))
    if taken := [name for name in RESULTS if (wanted.out / name).exists()]:
        raise CannotDo(f"{wanted.out}: expected a folder without results, got one with {', '.join(taken)}")
    chosen = choose_inputs(method, series_in(wanted.path, wanted.timezone))
    wanted.out.mkdir(parents=True, exist_ok=True)
    manifest = perform(task_of(wanted, method, chosen), wanted.out, lambda: False)
    warnings = list(manifest["warnings"])
    if wanted.device != "cpu" and method.weights_sha256 is None:
        warnings.append(f"{method.name} has no learned part: it computed on the CPU, not on {wanted.device}.")
    return {
        "engine": method.name,
        "weights_sha256": method.weights_sha256,
        "seconds": round(time.monotonic() - started, 3),
        "inputs": {slot: series.words for slot, series in chosen.items()},
        "outputs": [{"path": str(wanted.out / one["path"]), "kind": one["kind"]} for one in manifest["outputs"]],
        "findings": manifest["findings"],
        "warnings": warnings,
    }


def choose_inputs(method: Engine, found: Sequence[Candidate]) -> dict[str, Candidate]:
    """The one series for each input; the first input decides which others pair with it.

    Raises
    ------
    CannotDo
        An input has no series, or more than one.
    """
    chosen: dict[str, Candidate] = {}
    for name, slot in method.inputs.items():
        fitting = [series for series in found if fits(series.facts, slot) and series not in chosen.values()]
        if chosen and slot.modality == "CT":
            primary = next(iter(chosen.values()))
            fitting = [series for series in fitting if covers(series.facts, primary.facts).covered]
        if len(fitting) > 1:
            listed = "; ".join(series.words for series in fitting)
            text = f"input {name}: expected one {slot.modality} series, got {len(fitting)}: {listed}"
            raise CannotDo(f"{text}. Name a folder with one of them")
        if fitting:
            chosen[name] = fitting[0]
        elif not slot.optional:
            there = "; ".join(series.words for series in found)
            kinds = " or ".join(sorted(slot.kinds))
            raise CannotDo(f"input {name}: expected a {kinds} {slot.modality} series, got only {there}")
    return chosen


def fits(facts: Mapping[str, Any], slot: Slot) -> bool:
    """Whether a series can fill an input: right modality and kind, not made by us, and no scan without correction."""
    uncorrected = slot.quantity is Quantity.SUVBW and facts["attenuation_corrected"] is False
    right = facts["modality"] == slot.modality and facts["kind"] in slot.kinds
    return right and facts["produced_by"] is None and not uncorrected


def task_of(wanted: Run, method: Engine, chosen: Mapping[str, Candidate]) -> Task:
    """The task of a worker. Every run gets UIDs of its own: no database remembers what was made before."""
    parameters = {**method.defaults, **wanted.parameters}
    inputs = {
        slot: {"quantity": str(method.inputs[slot].quantity), "paths": [str(path) for path in series.paths]}
        for slot, series in chosen.items()
    }
    work = Work(
        installation_id=f"offline-{uuid4().hex}",
        tracerd_version=TRACERD_VERSION,
        engine=method.name,
        engine_version=method.version,
        weights_sha256=method.weights_sha256,
        parameters=parameters,
        contents=contents_of(chosen),
        rerun=0,
    )
    return Task(
        job_id=0,
        folder=str(wanted.out),
        engine=method.name,
        parameters=parameters,
        inputs=inputs,
        identity=identity_of(work, wanted.timezone),
        timezone=wanted.timezone.key,
        limit_s=0.0,
        weights=None if wanted.weights is None else str(wanted.weights),
        device=wanted.device,
    )


def identity_of(work: Work, timezone: ZoneInfo) -> dict[str, Any]:
    """Keyword arguments of dicom_io.write.header.Identity."""
    return {
        "job_key": work.key(),
        "job_id": 0,
        "engine": work.engine,
        "engine_version": work.engine_version,
        "tracerd_version": work.tracerd_version,
        "weights_sha256": work.weights_sha256,
        "created": utc_now().isoformat(),
        "supersedes": [],
        "rerun": work.rerun,
        "parameters": work.parameters,
        "timezone": timezone.key,
        "installation_id": work.installation_id,
    }
