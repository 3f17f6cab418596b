"""`tracerd demo`: a whole node on simulated studies over real DICOM sockets, with DCMTK as scanner and as PACS.

A study is simulated, written as a scanner writes it, sent by `storescu` to a node of its own (`tracerd serve`), and
what the node sends arrives at `storescp`. The pages are drawn from those received files and the sent PET.
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
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import ColumnElement, func, select

from config.load import load
from config.settings import Destination, Settings
from daemon.ask import is_running, reading
from daemon.demo_pages import DemoFailed, Study, check_results, print_table, show
from daemon.show import console
from db import schema
from db.states import DeliveryState, JobState
from dicom_io.errors import PeerUnreachable
from dicom_io.sender import echo
from dicom_io.write import scanner
from engines.simulation import phantom

LOOPBACK = "127.0.0.1"
STARTED = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
START_S, FINISH_S, STOP_S = 60.0, 240.0, 40.0
FWHM_MM, COUNTS = 8.0, 2e7
"""Resolution and counts that leave lesions blurred at the edge and organs grainy, as people know them."""
ENVIRONMENT = {"TCP_NODELAY": "1"}
"""Without it Nagle's algorithm and delayed acknowledgements cost DCMTK 40 ms per object."""
ENDED = (JobState.DONE, JobState.REJECTED, JobState.DEAD, JobState.HELD, JobState.CANCELLED)
SETTLED = (DeliveryState.ACCEPTED, DeliveryState.FAILED, DeliveryState.DEAD, DeliveryState.WITHDRAWN)
RULE: Mapping[str, Any] = {
    "name": "fdg-lesions",
    "engine": "threshold_segmentation",
    "when": {"tracer": "FDG"},
    "inputs": {
        "pet": {"modality": "PT", "kind": "static", "attenuation_corrected": True},
        "ct": {"modality": "CT", "pairs_with": "pet", "optional": True},
    },
    "parameters": {"method": "fixed", "threshold_suv": 4.0},
    "send_to": ["pacs"],
}


@dataclass(frozen=True, slots=True)
class Examinee:
    """A simulated patient.

    beds : more than one gives a WHOLE BODY series of several bed positions
    omit : header attributes the scanner forgets
    """

    number: int
    seed: int
    lesions: int
    beds: int = 1
    pet_shape: tuple[int, int, int] = (180, 150, 150)
    ct_shape: tuple[int, int, int] = (180, 170, 170)
    omit: tuple[str, ...] = ()


EXAMINEES = (
    Examinee(1, seed=2, lesions=5),
    Examinee(2, seed=7, lesions=8, beds=6),
    Examinee(3, seed=11, lesions=3, omit=("PatientWeight",)),
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
        say.print(f"Simulating {len(EXAMINEES)} whole-body FDG PET/CT studies …")
        studies = [simulate(examinee, work / "scanner") for examinee in EXAMINEES]
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


def simulate(examinee: Examinee, folder: Path) -> Study:
    """Write a study as a scanner sends it."""
    plan = phantom.Plan(
        examinee.seed, examinee.pet_shape, examinee.ct_shape, lesions=examinee.lesions, counts=COUNTS, fwhm_mm=FWHM_MM
    )
    acquisition = phantom.simulate(plan)
    examination = scanner.Examination(started=STARTED, patient_id=f"DEMO{examinee.number}", beds=examinee.beds)
    new_uid = scanner.hashed_uids(f"tracerd demo {time.time_ns()} {examinee.number}")
    place = folder / f"study-{examinee.number}"
    place.mkdir(parents=True)
    pet = []
    instances = scanner.write(acquisition, examination, new_uid=new_uid)
    for index, dataset in enumerate(instances):
        for keyword in examinee.omit:
            if keyword in dataset:
                delattr(dataset, keyword)
        path = place / f"{dataset.Modality}-{index:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        pet += [path] if dataset.Modality == "PT" else []
    return Study(examinee.number, acquisition, place, str(instances[0].StudyInstanceUID), tuple(pet), len(instances))


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
        "assemble": {"quiet_s": 2, "quiet_other_s": 3},
        "rules": [dict(RULE)],
    }


def wait_until_ready(node: Running) -> None:
    """Until the node answers commands at its socket and C-ECHO at its door."""
    door = Destination(host=LOOPBACK, port=node.port, ae_title="TRACERD", calling_ae_title="PETCT1", timeout_s=5.0)
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
            if done.ended == len(studies) and done.delivered == done.to_deliver:
                return
            time.sleep(0.2)
    raise DemoFailed(f"the node did not finish within {FINISH_S:g} s: {done}", hint=log_end(node))


@dataclass(frozen=True, slots=True)
class Counts:
    """How far the node is: objects received and indexed, jobs ended, results to deliver and delivered."""

    received: int
    indexed: int
    ended: int
    to_deliver: int
    delivered: int


def count(settings: Settings) -> Counts:
    """Read the counts from the node's database and inbox."""
    with reading(settings) as turn:

        def number(*conditions: ColumnElement[bool]) -> int:
            return turn.session.scalar(select(func.count()).where(*conditions)) or 0

        waiting = sum(1 for path in turn.node.spool.inbox.iterdir() if path.suffix == ".dcm")
        indexed = number(schema.Instance.job_id.is_(None))
        return Counts(
            received=indexed + waiting,
            indexed=indexed,
            ended=number(schema.Job.state.in_(ENDED)),
            to_deliver=number(schema.Delivery.id.is_not(None)),
            delivered=number(schema.Delivery.state.in_(SETTLED)),
        )
