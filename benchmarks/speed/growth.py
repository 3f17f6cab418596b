"""Does anything take longer because much is stored? One node holds a thousand instances, another one a million.

    python -m benchmarks.speed.growth [--instances 1000 100000 1000000] [--rounds 5] [--seed 1]

The rows are those of a node that has worked for years (tests/filled.py); the studies that are sent are real files, sent
by DCMTK's storescu to `tracerd serve`. Rounds are interleaved and their order rotates. A million instances take 1.8 GB
and some minutes to write; they are kept in build/filled for the next time. With `--rounds 0` nothing else is done.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import structlog
from rich.console import Console
from sqlalchemy import Engine, event

from benchmarks.machine import (
    REPOSITORY,
    machine_cpu_s,
    our_cpu_s,
    provenance,
    rotated,
)
from benchmarks.readme import keep, markdown
from benchmarks.speed.receivers import send
from benchmarks.speed.series import write_series
from config.load import load
from daemon import pipeline
from daemon.node import Node
from daemon.opening import open_node
from db import jobs
from db.schema import SCHEMA_VERSION
from db.session import Store
from dicom_io.sandbox import Sandbox
from tests.filled import RECEIVED, RESULTS, fill
from tests.flow.running import RunningNode
from tests.processes import free_port, process_tree, program, wait_until

README = Path(__file__).resolve().parent / "README.md"
DESTINATION = "pacs"
IDLE_S = 5.0
PASSES = 20
"""Of each idle step; the median counts."""
COMMANDS = {
    "jobs list": ("jobs", "list"),
    "jobs list --state done": ("jobs", "list", "--state", "done"),
    "status": ("status",),
}


@dataclass
class Site:
    """A node with so many instances indexed, and what was measured on it."""

    instances: int
    node: RunningNode
    seconds: dict[str, list[float]] = field(default_factory=dict)
    statements: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the wall time of a block."""
        began = time.perf_counter()
        yield
        self.add(what, time.perf_counter() - began)

    def add(self, what: str, seconds: float) -> None:
        """Add one measurement."""
        self.seconds.setdefault(what, []).append(seconds)


def main() -> None:
    arguments = _arguments()
    console = Console(width=140)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    work = Path(tempfile.mkdtemp(prefix="growth-", dir=arguments.folder))
    try:
        programs = {"dcmtk": [program("storescu"), "--version"]}
        result = provenance(work, packages=["sqlalchemy", "distributed"], programs=programs)
        files = write_series(work / "PT", "PT", arguments.slices, arguments.seed)
        databases = arguments.folder / "filled"
        sites = [
            site_with(work, database(databases, number, header_of(files[0]), console), number)
            for number in arguments.instances
        ]
        if not arguments.rounds:
            return
        result |= {"seed": arguments.seed, "rounds": arguments.rounds, "slices": arguments.slices}
        result |= measure(sites, files, arguments.rounds, console)
    finally:
        shutil.rmtree(work)
    keep(console, README if arguments.name == "growth" else None, arguments.name, result, for_readme)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=300, help="of the PET that is sent in each round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build")
    parser.add_argument("--name", default="growth", help="of the result file; the README keeps to the default")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return arguments


def header_of(path: Path) -> dict[str, Any]:
    """What the node keeps of a slice."""
    with Sandbox(2**31, 30.0) as sandbox:
        (reading,) = sandbox.read_many([path])
    if isinstance(reading, Exception):
        raise reading
    return reading.header


def database(folder: Path, instances: int, header: dict[str, Any], console: Console) -> Path:
    """A database with that many instances of finished studies, made when this version of the schema has none there."""
    path = folder / f"schema-{SCHEMA_VERSION}-{instances}.db"
    if path.exists():
        return path
    folder.mkdir(exist_ok=True)
    began, growing = time.perf_counter(), path.with_suffix(".part")
    growing.unlink(missing_ok=True)
    with closing(Store.open(growing)) as store:
        fill(store, round(instances / (RECEIVED + RESULTS)), header=header, destination=DESTINATION)
    growing.rename(path)
    console.print(f"{instances} instances: {path.stat().st_size / 1e6:.0f} MB in {time.perf_counter() - began:.0f} s")
    return path


def site_with(work: Path, source: Path, instances: int) -> Site:
    """A node that only stores, with a copy of that database."""
    node = RunningNode(work / str(instances), free_port(), rules=())
    node.data.mkdir()
    shutil.copy(source, node.data / "node.db")
    return Site(instances, node)


def measure(sites: Sequence[Site], files: Sequence[Path], rounds: int, console: Console) -> dict[str, Any]:
    """All sites in turn, `rounds` times; `others_cores` is what other programs took meanwhile."""
    began, machine, own = time.perf_counter(), machine_cpu_s(), sum(our_cpu_s())
    for number in range(rounds):
        for site in rotated(sites, number):
            at_work(site, new_study(files, site.node.folder / f"study-{number}", f"{site.instances}.{number}"))
            at_rest(site)
        console.print(f"round {number + 1} of {rounds} done")
    others = machine_cpu_s() - machine - (sum(our_cpu_s()) - own)
    return {
        "others_cores": round(max(0.0, others) / (time.perf_counter() - began), 2),
        "sites": [_summary(site, len(files)) for site in sites],
    }


def new_study(files: Sequence[Path], folder: Path, uid: str) -> list[Path]:
    """The same slices as a study that nobody has seen yet."""
    folder.mkdir()
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"2.25.{uid}.2", f"2.25.{uid}.3"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{uid}.4.{dataset.InstanceNumber}"
        dataset.save_as(folder / path.name)
    return sorted(folder.iterdir())


def at_work(site: Site, study: Sequence[Path]) -> None:
    """Start, receive and index one study, answer a person, idle, stop."""
    node = site.node
    log_before = node.log.stat().st_size if node.log.exists() else 0

    def said(event: bytes) -> bool:
        return b'"%b"' % event in node.log.read_bytes()[log_before:]

    began = time.perf_counter()
    node.start()
    for what, milestone in (("start", b"serving"), ("start, until workers are ready too", b"workers-ready")):
        wait_until(partial(said, milestone), 120)
        site.add(what, time.perf_counter() - began)
    try:
        (newest,) = node.rows("SELECT max(id) FROM instance")[0]
        with site.timed("receive and index"):
            sending = send(node.port, study, 1)
            indexed = "SELECT count(*) FROM instance WHERE id > ?"
            wait_until(lambda: node.rows(indexed, newest)[0][0] == len(study), 300, every=0.01)
        if sending.unacknowledged:
            raise RuntimeError(f"{len(sending.unacknowledged)} slices were not acknowledged")
        site.add("receive", sending.seconds)
        for what, command in COMMANDS.items():
            children = our_cpu_s()[1]
            with site.timed(what):
                node.command(*command)
            site.add(f"{what}: CPU of the command", our_cpu_s()[1] - children)
        before = _cpu_s(node.pid)
        time.sleep(IDLE_S)
        site.add("idle CPU per second", (_cpu_s(node.pid) - before) / IDLE_S)
    finally:
        node.stop()


def _cpu_s(pid: int) -> float:
    """CPU time of the daemon itself, without its children."""
    times = process_tree(pid)[0].cpu_times()
    return times.user + times.system


def at_rest(site: Site) -> None:
    """What a start has to look at, and one pass of each step that has nothing to do, in this process."""
    began, cpu = time.perf_counter(), time.process_time()
    with open_node(load(site.node.config)) as node:
        pipeline.recover(node)
        site.add("open and recover", time.perf_counter() - began)
        site.add("open and recover: CPU", time.process_time() - cpu)
        pipeline.look_at_due(node)
        for name, step in steps(node).items():
            with counted() as made:
                step()
            site.statements[name] = len(made)
            passes = []
            for _ in range(PASSES):
                began = time.process_time()
                step()
                passes.append(time.process_time() - began)
            site.add(name, statistics.median(passes))


def steps(node: Node) -> dict[str, Callable[[], object]]:
    """What a node does again and again while nothing happens."""
    known: set[str] = set()

    def any_job() -> object:
        with node.glance() as look:
            return jobs.next_due(look.session, look.now)

    return {
        "idle pass: receive": lambda: pipeline.receive_and_route(node, known),
        "idle pass: what is due": lambda: pipeline.look_at_due(node),
        "idle pass: execute": any_job,
        "idle pass: deliver": lambda: pipeline.send_results(node, DESTINATION),
        "idle pass: prove": lambda: pipeline.prove_results(node, DESTINATION),
        "idle pass: vouch": lambda: pipeline.vouch_for_received(node),
    }


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements made meanwhile, without the beginnings of transactions."""
    made: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            made.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield made
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _summary(site: Site, slices: int) -> dict[str, Any]:
    """Medians and every single time [s]; CPU of an idle daemon in seconds per second."""
    return {
        "instances": site.instances,
        "median_s": {what: round(statistics.median(seconds), 5) for what, seconds in site.seconds.items()},
        "indexed_per_s": round(slices / statistics.median(site.seconds["receive and index"]), 1),
        "received_per_s": round(slices / statistics.median(site.seconds["receive"]), 1),
        "statements": site.statements,
        "seconds": {what: [round(one, 5) for one in seconds] for what, seconds in site.seconds.items()},
    }


def for_readme(result: dict[str, Any]) -> str:
    """One column for each size of database."""
    sites = result["sites"]
    heads = ["already indexed", *(f"{site['instances']:,}".replace(",", " ") for site in sites)]
    rows = [
        ["received, instances/s", *(f"{site['received_per_s']:.0f}" for site in sites)],
        ["received and indexed, instances/s", *(f"{site['indexed_per_s']:.0f}" for site in sites)],
    ]
    for what in sites[0]["median_s"]:
        medians = [site["median_s"][what] for site in sites]
        if what.startswith("idle pass"):
            count = sites[0]["statements"][what]
            rows.append([f"{what} ({count} statements), ms of CPU", *(f"{1e3 * one:.2f}" for one in medians)])
        elif not what.startswith("receive"):
            rows.append([f"{what}, s", *(f"{one:.3f}" for one in medians)])
    return markdown(heads, rows)


if __name__ == "__main__":
    main()
