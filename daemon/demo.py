"""`tracerd demo`: a whole node on simulated studies over real DICOM sockets, with DCMTK as scanner and as PACS.

One study of each kind is simulated, written as a scanner writes it and sent by `storescu` to a node of its own
(`tracerd serve`); what the node sends arrives at `storescp`. The pages are drawn from those received files and the sent
PET. Kinds whose engine is not in this version are recognised all the same, and their rules answer "no engine".
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

import yaml
from pydicom import Dataset
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import ColumnElement, func, select

from config.destinations import DimseDestination
from config.load import load
from config.settings import Settings
from daemon.ask import is_running, reading
from daemon.demo_pages import DemoFailed, Study, check_results, print_table, show
from daemon.show import console
from daemon.simulate import write_dicom
from db import schema
from db.states import DeliveryState, JobState
from dicom_io.errors import PeerUnreachable
from dicom_io.sender import echo
from dicom_io.write import scanner
from dicom_io.write.makers import MakerName
from engines.simulation.study import Kind, simulate
from engines.simulation.study import Study as Simulated

LOOPBACK = "127.0.0.1"
START_S, FINISH_S, STOP_S = 60.0, 240.0, 40.0
FDG_SEED, PSMA_SEED, RB82_SEED = 6, 3, 4
LONG_S = 90.0
"""A shorter bed position is a low-count examination at this site."""
ENVIRONMENT = {"TCP_NODELAY": "1"}
"""Without it Nagle's algorithm and delayed acknowledgements cost DCMTK 40 ms per object."""
ENDED = (JobState.DONE, JobState.REJECTED, JobState.DEAD, JobState.HELD, JobState.CANCELLED)
SETTLED = (DeliveryState.ACCEPTED, DeliveryState.FAILED, DeliveryState.DEAD, DeliveryState.WITHDRAWN)
STATIC: Mapping[str, Any] = {"modality": "PT", "kind": "static", "attenuation_corrected": True}
RUBIDIUM: Mapping[str, Any] = {"modality": "PT", "kind": "dynamic"}
CT: Mapping[str, Any] = {"modality": "CT", "pairs_with": "pet", "optional": True}
RULES: tuple[Mapping[str, Any], ...] = (
    {
        "name": "fdg-lesions",
        "engine": "fdg_segmentation",
        "when": {"tracer": "FDG", "frame_duration_s": {"min": LONG_S}},
        "inputs": {"pet": STATIC, "ct": {"modality": "CT", "pairs_with": "pet"}},
    },
    {
        "name": "fdg-low-count",
        "engine": "lowcount_denoising",
        "when": {"tracer": "FDG", "frame_duration_s": {"max": LONG_S}},
        "inputs": {"pet": STATIC},
    },
    {
        "name": "psma-lesions",
        "engine": "psma_detection",
        "when": {"tracer": ["PSMA-11", "PSMA-1007"]},
        "inputs": {"pet": STATIC, "ct": CT},
    },
    {
        "name": "without-ct",
        "engine": "ctless_attenuation",
        "inputs": {"pet": {**STATIC, "attenuation_corrected": False}},
    },
    {
        "name": "heart",
        "engine": "rb82_denoising",
        "when": {"tracer": "Rb-82"},
        "inputs": {
            "rest": {**RUBIDIUM, "series_description": {"matches": "rest"}},
            "stress": {**RUBIDIUM, "series_description": {"matches": "stress"}, "optional": True},
        },
    },
)


@dataclass(frozen=True, slots=True)
class Examinee:
    """A simulated patient.

    kinds : examinations of one study
    omit : header attributes the scanner forgets
    """

    number: int
    kinds: tuple[Kind, ...]
    seed: int
    maker: MakerName = "siemens"
    omit: tuple[str, ...] = ()


EXAMINEES = (
    Examinee(1, ("fdg",), seed=FDG_SEED),
    Examinee(2, ("fdg",), seed=FDG_SEED, omit=("PatientWeight",)),
    Examinee(3, ("lowcount",), seed=FDG_SEED, maker="ge"),
    Examinee(4, ("nac",), seed=FDG_SEED),
    Examinee(5, ("psma",), seed=PSMA_SEED, maker="philips"),
    Examinee(6, ("rb82-rest", "rb82-stress"), seed=RB82_SEED),
)


@dataclass(frozen=True, slots=True)
class Running:
    """The node under demonstration."""

    settings: Settings
    port: int
    log: Path
    process: subprocess.Popen[bytes]


def run_demo(out: Path, *, keep: bool) -> None:
    """Run the demonstration and leave DICOM results and pages in a folder.

    Raises
    ------
    DemoFailed
        A program is missing, the node did not start or finish, or a result is not there.
    """
    storescp, storescu = program("storescp"), program("storescu")
    say = console()
    work = Path(tempfile.mkdtemp(prefix="tracerd-demo-"))
    began = time.monotonic()
    try:
        studies = simulated(say, work / "scanner")
        say.print("Starting the node and a PACS (DCMTK storescp) …")
        node_port, pacs_port = free_ports(2)
        with pacs_process(storescp, work, pacs_port) as received, node_process(work, node_port, pacs_port) as node:
            with scanners(storescu, studies, node_port):
                watch(say, node, studies)
            shown = [show(study, node.settings, received, out) for study in studies]
        print_table(say, shown)
        check_results(shown)
        say.print(f"Results and pages: {out.resolve()} ({time.monotonic() - began:.0f} s)")
    finally:
        if keep:
            say.print(f"Kept: data folder, configuration and log of the node in {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


def program(name: str) -> str:
    """The path of a DCMTK program."""
    path = shutil.which(name)
    if path is None:
        raise DemoFailed(f"{name} is not installed", hint="apt-get install --no-install-recommends dcmtk")
    return path


def simulated(say: Console, folder: Path) -> list[Study]:
    """Every study, written as a scanner sends it; an examination that two patients share is simulated once."""
    once = cache(partial(simulate, site="small", with_reference=False))
    columns = TextColumn("{task.description:>24}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn()
    studies = []
    with Progress(*columns, console=say) as progress:
        bar = progress.add_task("simulating", total=len(EXAMINEES))
        for examinee in EXAMINEES:
            progress.update(bar, description=f"simulating {' '.join(examinee.kinds)}")
            made = [once(kind, examinee.seed) for kind in examinee.kinds]
            studies.append(written(examinee, made, folder / f"study-{examinee.number}"))
            progress.advance(bar)
        progress.update(bar, description="simulated")
    return studies


def written(examinee: Examinee, made: Sequence[Simulated], place: Path) -> Study:
    """The examinations of a patient as a scanner sends them, under UIDs that no other run used."""
    new_uid = scanner.hashed_uids(f"tracerd demo {time.time_ns()} {examinee.number}")
    files: dict[Path, Dataset] = {}
    for one in made:
        files |= write_dicom(one, place, new_uid, examinee.maker, omit=examinee.omit)
    pet = [path for path, dataset in files.items() if dataset.Modality == "PT"]
    return Study(
        number=examinee.number,
        kinds=examinee.kinds,
        acquisition=made[0].acquisition,
        folder=place,
        study_uid=str(next(iter(files.values())).StudyInstanceUID),
        pet=tuple(path for path in pet if files[path].SeriesInstanceUID == files[pet[0]].SeriesInstanceUID),
        files=len(files),
    )


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback that nobody uses now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is asked to end, and then made to, when the block is left."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def pacs_process(storescp: str, work: Path, port: int) -> Iterator[Path]:
    """DCMTK's storage SCP; yields the folder of what it receives, byte for byte."""
    folder = work / "pacs"
    folder.mkdir()
    command = [storescp, "--bit-preserving", "--filename-extension", ".dcm", "-aet", "PACS", "-od", str(folder)]
    with (work / "pacs.log").open("wb") as log, ended(start([*command, str(port)], log)):
        yield folder


@contextmanager
def node_process(work: Path, port: int, pacs_port: int) -> Iterator[Running]:
    """`tracerd serve` on a configuration of its own, once it answers C-ECHO and commands."""
    config = work / "node.yaml"
    config.write_text(yaml.safe_dump(configuration(work, port, pacs_port), sort_keys=False))
    command = [sys.executable, "-m", "daemon", "serve", "--attached", "--config", str(config)]
    with (work / "node.log").open("wb") as log, ended(start(command, log)) as process:
        node = Running(load(config), port, work / "node.log", process)
        wait_until_ready(node)
        yield node


@contextmanager
def scanners(storescu: str, studies: Sequence[Study], port: int) -> Iterator[None]:
    """DCMTK's storage SCU, once per study, all at the same time: each sends its study over one association."""
    options = ["--scan-directories", "--recurse", "-aet", "PETCT1", "-aec", "TRACERD", LOOPBACK, str(port)]
    with ExitStack() as stack:
        commands = [[storescu, *options, str(study.folder)] for study in studies]
        processes = [stack.enter_context(ended(start(command, subprocess.DEVNULL))) for command in commands]
        yield
        statuses = [process.wait(STOP_S) for process in processes]
    if any(statuses):
        raise DemoFailed(f"storescu ended with status {max(statuses)}")


def start(command: Sequence[str], log: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Start a program whose output goes to a file; it ends with us where util-linux can arrange that."""
    setpriv = shutil.which("setpriv")
    tied = [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else command
    return subprocess.Popen(
        tied, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT
    )


def configuration(work: Path, port: int, pacs_port: int) -> dict[str, Any]:
    """The node.yaml of the demonstration: one rule, one destination, short waits."""
    return {
        "data": str(work / "data"),
        "timezone": "UTC",
        "listener": {
            "doors": [{"host": LOOPBACK, "port": port, "ae_titles": ["TRACERD"]}],
            "limits": {"free_bytes_min": "256 MiB"},
        },
        "peers": [{"name": "simulated scanner", "ae_title": "PETCT1", "addresses": [LOOPBACK]}],
        "destinations": {"pacs": {"host": LOOPBACK, "port": pacs_port, "ae_title": "PACS"}},
        "assemble": {"quiet_s": 3, "quiet_other_s": 6},
        "rules": [deepcopy({**rule, "send_to": ["pacs"]}) for rule in RULES],  # a shared part would be an anchor
    }


def wait_until_ready(node: Running) -> None:
    """Until the node answers commands at its socket and C-ECHO at its door."""
    door = DimseDestination(host=LOOPBACK, port=node.port, ae_title="TRACERD", calling_ae_title="PETCT1", timeout_s=5.0)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        check_alive(node)
        with suppress(PeerUnreachable):
            if is_running(node.settings) and echo(door) > 0.0:
                return
        time.sleep(0.2)
    raise DemoFailed(f"the node did not answer within {START_S:g} s", hint=log_end(node))


def check_alive(node: Running) -> None:
    """Raise when the node has ended."""
    if node.process.poll() is not None:
        raise DemoFailed(f"the node ended with status {node.process.returncode}", hint=log_end(node))


def log_end(node: Running) -> str:
    """The last lines of the node's log."""
    return " | ".join(node.log.read_text(errors="replace").splitlines()[-3:])


def watch(say: Console, node: Running, studies: Sequence[Study]) -> None:
    """Show how far everything is until every job has ended and every result has arrived or failed."""
    total = sum(study.files for study in studies)
    columns = TextColumn("{task.description:>10}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=say) as progress:
        bars = {name: progress.add_task(name, total=total) for name in ("received", "indexed")}
        bars |= {name: progress.add_task(name, total=None) for name in ("computed", "delivered")}
        deadline = time.monotonic() + FINISH_S
        while time.monotonic() < deadline:
            check_alive(node)
            done = count(node.settings)
            progress.update(bars["received"], completed=done.received)
            progress.update(bars["indexed"], completed=done.indexed)
            progress.update(bars["computed"], completed=done.ended, total=len(studies))
            progress.update(bars["delivered"], completed=done.delivered, total=done.to_deliver)
            if done.ended == len(studies) and not done.open and done.delivered == done.to_deliver:
                return
            time.sleep(0.2)
    raise DemoFailed(f"the node did not finish within {FINISH_S:g} s: {done}", hint=log_end(node))


@dataclass(frozen=True, slots=True)
class Counts:
    """How far the node is: objects received and indexed, studies with an ended job, open jobs, results to deliver."""

    received: int
    indexed: int
    ended: int
    open: int
    to_deliver: int
    delivered: int


def count(settings: Settings) -> Counts:
    """Read the counts from the node's database and inbox."""
    with reading(settings) as turn:

        def number(*conditions: ColumnElement[bool]) -> int:
            return turn.session.scalar(select(func.count()).where(*conditions)) or 0

        ended = select(func.count(schema.Job.study_id.distinct())).where(schema.Job.state.in_(ENDED))
        waiting = sum(1 for path in turn.node.spool.inbox.iterdir() if path.suffix == ".dcm")
        indexed = number(schema.Instance.job_id.is_(None))
        return Counts(
            received=indexed + waiting,
            indexed=indexed,
            ended=turn.session.scalar(ended) or 0,
            open=number(schema.Job.state.not_in(ENDED)),
            to_deliver=number(schema.Delivery.id.is_not(None)),
            delivered=number(schema.Delivery.state.in_(SETTLED)),
        )
