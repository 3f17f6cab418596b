"""One attempt at one job, inside a worker process: files in, files out, never the database.

Everything it is given and everything it returns is small JSON; pixels and products travel as files. The attempt writes
only its own folder, and `manifest.json` is renamed into it last: a whole manifest is a whole result.
"""

from __future__ import annotations

import ctypes
import faulthandler
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from config.destinations import USUAL_OBJECTS
from daemon import logs
from daemon.failures import Disposition, Failure, contain
from dicom_io.errors import DicomError
from dicom_io.spool import fsync_directory
from engines.contract import Products, Quantity
from engines.errors import CannotProcess, WeightsRefused

if TYPE_CHECKING:
    from dicom_io.write.objects import Written

MANIFEST = "manifest.json"
TRACE = "trace.txt"


@dataclass(frozen=True, slots=True)
class Task:
    """What the daemon asks of a worker.

    inputs : slot → {"quantity": …, "paths": [absolute paths]}
    identity : keyword arguments of dicom_io.write.header.Identity, `created` as ISO text
    objects : kinds of objects to write, of dicom_io.write.kinds.KINDS
    report_refusal : a series that can never be processed gets a report that says why
    weights : path of the weights to use instead of those the engine is shipped with
    device : where a learned engine computes, as in engines.registry.engine
    limit_s : wall-clock limit after which the worker process ends itself
    """

    job_id: int
    folder: str
    engine: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, Any]]
    identity: Mapping[str, Any]
    timezone: str
    limit_s: float
    objects: Sequence[str] = USUAL_OBJECTS
    report_refusal: bool = False
    weights: str | None = None
    device: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def dask_setup(worker: Any) -> None:  # noqa: ARG001 - Dask's preload passes its worker
    """Dask preload: end at once when the node is killed, even while a C call holds the interpreter lock."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    logs.configure()


def warm_up() -> None:
    """Process a tiny simulated study in memory, so that the first real one does not wait for imports and tables."""
    from dicom_io.volume import LoadedSeries
    from dicom_io.write import report, scanner, seg
    from dicom_io.write.header import Identity, encode
    from engines.registry import runnable
    from engines.simulation import phantom

    created = datetime(2000, 1, 1, tzinfo=UTC)
    scan = phantom.simulate(phantom.Plan(1, (12, 16, 16)))
    examination = scanner.Examination(started=created, patient_id="WARM-UP")
    slices = tuple(scanner.write(scan, examination, new_uid=scanner.hashed_uids("warm-up")))
    for dataset in slices:
        del dataset.PixelData
    assert scan.pet is not None  # noqa: S101 - a phantom without a CT still has its PET
    source = LoadedSeries(scan.pet, slices, "simulated")
    method = runnable("threshold_segmentation")
    products = method({"pet": scan.pet}, method.defaults, lambda: False)
    identity = Identity("warm-up", 0, method.name, method.version, "", None, created)
    segmentation = seg.segmentation(products, source, identity)
    encode(report.measurement_report(products, source, segmentation, identity))


def attempt(document: dict[str, Any]) -> dict[str, Any]:
    """Run one attempt and answer {"outcome": "ok" | "failed", …}; what it found lies in the manifest.

    A hang ends the process at `limit_s`, whatever it is doing: faulthandler's watchdog needs no interpreter lock.
    """
    from distributed import Event

    task = Task(**document)
    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=False)
    with (folder / TRACE).open("w") as trace:
        faulthandler.dump_traceback_later(task.limit_s, exit=True, file=trace)
        try:
            perform(task, folder, Event(stop_event(task.job_id)).is_set)
        except Exception as error:  # noqa: BLE001 - outer edge: a task must answer, whatever happened inside
            return refused(task, folder, Failure.of(error), error)
        finally:
            faulthandler.cancel_dump_traceback_later()
    return {"outcome": "ok"}


def refused(task: Task, folder: Path, failure: Failure, error: Exception) -> dict[str, Any]:
    """The answer of an attempt that failed; with a report in the manifest where the task asks for one."""
    where = logs.frames(error) if failure.disposition is Disposition.BUG else []
    if task.report_refusal and failure.disposition is Disposition.REJECT:
        fault = contain(lambda: report_refusal(task, folder, failure))
        if fault is None:
            return {"outcome": "ok"}
        where = logs.frames(fault)  # without a report the reason still stands in the job
    return {"outcome": "failed", "failure": failure.to_json(), "frames": where}


def report_refusal(task: Task, folder: Path, failure: Failure) -> None:
    """Write why the first input cannot be processed, as a report for whoever waits for a result.

    Raises
    ------
    UnreadableObject
        Not even the headers of the input can be read.
    """
    from dicom_io.volume import without_pixels
    from dicom_io.write.kinds import NOT_PROCESSED
    from dicom_io.write.objects import Written
    from dicom_io.write.report import not_processed_report
    from engines.registry import engine

    slot = next(iter(engine(task.engine).inputs))
    datasets = without_pixels([Path(path) for path in task.inputs[slot]["paths"]])
    report = not_processed_report(failure.code, failure.message, datasets, identity_of(task), hint=failure.hint)
    output = write_object(Written(NOT_PROCESSED, NOT_PROCESSED, report), folder)
    seal(folder, {"job": task.job_id, "outputs": [output], "refusal": failure.to_json()})


def perform(task: Task, folder: Path, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Load → engine → DICOM bytes on disk → manifest; returns the manifest."""
    from dicom_io.volume import load
    from engines.registry import runnable

    started = time.monotonic()
    zone = ZoneInfo(task.timezone)
    method = runnable(task.engine, None if task.weights is None else Path(task.weights), task.device)
    if method.weights_sha256 != task.identity["weights_sha256"]:
        raise WeightsRefused("weights: expected those the job was made for, got others", code="other-weights")
    loaded = {}
    for slot, wanted in task.inputs.items():
        paths = [Path(path) for path in wanted["paths"]]
        loaded[slot] = load(paths, Quantity(wanted["quantity"]), zone)
    missing = [name for name, slot in method.inputs.items() if name not in loaded and not slot.optional]
    if missing:
        raise CannotProcess(f"input {', '.join(missing)} did not arrive", code="missing-input")
    loaded_at = time.monotonic()
    volumes = {slot: series.static for slot, series in loaded.items()}
    products = method(volumes, task.parameters, should_stop)
    computed_at = time.monotonic()
    source = loaded[next(iter(method.inputs))]
    outputs = write_products(products, source, task, folder)
    manifest = {
        "job": task.job_id,
        "outputs": outputs,
        "findings": findings(products),
        "warnings": list(products.warnings),
        "method": products.method,
        "suv_reference": source.suv_reference,
        "suv_branch": source.suv_branch,
        "seconds": {
            "load": round(loaded_at - started, 4),
            "engine": round(computed_at - loaded_at, 4),
            "write": round(time.monotonic() - computed_at, 4),
        },
    }
    seal(folder, manifest)
    return manifest


def stop_event(job_id: int) -> str:
    """Name of the Dask event by which the daemon asks a job to end early."""
    return f"stop-job-{job_id}"


def write_products(products: Products, source: Any, task: Task, folder: Path) -> list[dict[str, Any]]:
    """Encode every product and write it durably; returns the manifest's rows."""
    from dicom_io.write.objects import objects

    return [write_object(written, folder) for written in objects(products, source, identity_of(task), task.objects)]


def write_object(written: Written, folder: Path) -> dict[str, Any]:
    """Encode one object and write it durably; returns its row of the manifest."""
    from dicom_io.write.header import encode, transfer_syntax

    dataset = written.dataset
    content = encode(dataset)
    path = folder / f"{written.name}.dcm"
    write_durably(path, content)
    return {
        "kind": written.kind,
        "path": path.name,
        "sop_class_uid": str(dataset.SOPClassUID),
        "sop_uid": str(dataset.SOPInstanceUID),
        "series_uid": str(dataset.SeriesInstanceUID),
        "modality": str(dataset.Modality),
        "transfer_syntax_uid": str(transfer_syntax(dataset)),
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }


def identity_of(task: Task) -> Any:
    """The dicom_io.write.header.Identity of a task."""
    from dicom_io.write.header import Identity, Reference

    fields = dict(task.identity)
    fields["created"] = datetime.fromisoformat(fields["created"])
    fields["timezone"] = ZoneInfo(fields["timezone"])
    fields["supersedes"] = tuple(Reference(**reference) for reference in fields["supersedes"])
    return Identity(**fields)


def findings(products: Products) -> dict[str, Any]:
    """The numbers people ask for, without a single identifier."""
    return {
        "measurements": [{"name": m.name, "value": m.value, "unit": m.unit} for m in products.measurements],
        "lesions": [
            {
                "label": lesion.label,
                "volume_ml": lesion.volume_ml,
                "suv_max": lesion.suv_max,
                "suv_mean": lesion.suv_mean,
                "suv_peak": lesion.suv_peak,
                "tlg_g": lesion.tlg_g,
                "centroid_mm": list(lesion.centroid_mm),
            }
            for lesion in products.lesions
        ],
    }


def write_durably(path: Path, content: bytes) -> None:
    """Write and fsync one file."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write manifest.json so that it is either absent or whole, and everything it names is on disk before it."""
    fsync_directory(folder)
    part = folder / (MANIFEST + ".part")
    write_durably(part, json.dumps(manifest, indent=1, sort_keys=True).encode("ascii"))
    part.rename(folder / MANIFEST)
    fsync_directory(folder)
    fsync_directory(folder.parent)


def whole_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished attempt, or None where there is none or a file it names is not what it says.

    Raises
    ------
    DicomError
        Never for a missing manifest: absence is an answer.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest: dict[str, Any] = json.loads(path.read_bytes())
    for output in manifest["outputs"]:
        file = folder / output["path"]
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != output["sha256"]:
            raise DicomError(f"{output['kind']} of a finished attempt is damaged on disk", code="damaged-result")
    return manifest
