"""How fast instances come in, and where the time goes: our listener, Orthanc and DCMTK's storescp side by side.

    python -m benchmarks.speed.receive [--rounds 5] [--instances 600] [--seed 1]

The sender is always DCMTK's storescu, on the same machine, with TCP_NODELAY=1 for everybody. Every run starts a fresh
receiver with an empty folder; rounds are interleaved and their order rotates, so that a slow minute of the machine
hits everybody. A run counts only when every instance was acknowledged and is there afterwards.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import (
    BUSY_CORES,
    REPOSITORY,
    machine_cpu_s,
    our_cpu_s,
    provenance,
    rotated,
    sha256_of_files,
    write_result,
)
from benchmarks.readme import rewrite
from benchmarks.speed.breakdown import parts, refuse_undurable, spool_alone, trace, watch
from benchmarks.speed.receivers import RECEIVERS, Receiver, Site, check, send
from benchmarks.speed.series import MATRIX, write_series
from benchmarks.speed.tables import for_readme, show
from tests.processes import process_tree, program

ASSOCIATIONS = (1, 4)
OURS = "tracerd"
README = Path(__file__).resolve().parent / "README.md"
WATCHED_ROUNDS = 3
"""Others' work takes our CPU, and their flushes on the same disk make ours wait for their journal commits."""


@dataclass(frozen=True)
class Case:
    """A number of slices of one modality over a number of associations at once."""

    modality: str
    associations: int

    @property
    def name(self) -> str:
        side = MATRIX[self.modality]
        return f"{self.modality} {side}×{side}, {self.associations} association{'s' * (self.associations > 1)}"


@dataclass(frozen=True)
class Run:
    """One measured sending; CPU times of the receiver's process tree, of the senders, and of everybody else [s]."""

    seconds: float
    receiver_user_s: float
    receiver_system_s: float
    sender_cpu_s: float
    others_cpu_s: float


def main() -> None:
    arguments = _arguments()
    console = Console(width=120)
    work = Path(tempfile.mkdtemp(prefix="receive-", dir=arguments.folder))
    try:
        result = provenance(work, packages=["pydicom", "numpy"], programs=_programs())
        slices = {
            modality: write_series(work / modality, modality, arguments.instances, arguments.seed)
            for modality in MATRIX
        }
        site = Site(work)
        result |= _setting(arguments, slices) | {"folders_spread_over_the_disk": site.is_spread}
        result |= measure(site, slices, arguments.rounds, console)
        result |= explain(site, slices)
    finally:
        shutil.rmtree(work)
    show(console, result)
    if result["others_cores"] > BUSY_CORES:
        console.print("This machine was busy with other work: do not keep these numbers.", style="bold red")
    path = write_result("receive", result)
    rewrite(README, "benchmarks/results/receive.json", for_readme(json.loads(path.read_text())))
    console.print(f"written: {path.relative_to(REPOSITORY)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--instances", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build", help="on the disk to be measured")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return arguments


def _programs() -> dict[str, list[str]]:
    return {
        "dcmtk": [program("storescu"), "--version"],
        "orthanc": [program("Orthanc"), "--version"],
        "strace": [program("strace"), "--version"],
    }


def _setting(arguments: argparse.Namespace, slices: dict[str, list[Path]]) -> dict[str, Any]:
    return {
        "seed": arguments.seed,
        "instances": arguments.instances,
        "rounds": arguments.rounds,
        "data": {
            modality: {
                "matrix": MATRIX[modality],
                "bytes_per_file": paths[0].stat().st_size,
                "sha256": sha256_of_files(paths),
            }
            for modality, paths in slices.items()
        },
        "receivers": {receiver.name: receiver.what for receiver in RECEIVERS},
    }


def measure(site: Site, slices: dict[str, list[Path]], rounds: int, console: Console) -> dict[str, Any]:
    """Every case with every receiver, `rounds` times over; `others_cores` is what other programs took meanwhile."""
    cases = [Case(modality, associations) for modality in MATRIX for associations in ASSOCIATIONS]
    runs: dict[tuple[Case, str], list[Run]] = {(case, each.name): [] for case in cases for each in RECEIVERS}
    for number in range(rounds):
        for case in cases:
            for receiver in rotated(RECEIVERS, number):
                runs[case, receiver.name].append(run(site, receiver, slices[case.modality], case.associations))
        console.print(f"round {number + 1} of {rounds} done")
    every = [run for of_one in runs.values() for run in of_one]
    return {
        "others_cores": round(statistics.mean(run.others_cpu_s / run.seconds for run in every), 2),
        "cases": [
            _summary(case, {each.name: runs[case, each.name] for each in RECEIVERS}, slices[case.modality])
            for case in cases
        ],
    }


def run(site: Site, receiver: Receiver, files: Sequence[Path], associations: int) -> Run:
    """One sending into a fresh receiver."""
    with site.folder() as folder, receiver.running(folder) as running:
        (user, system), (own, senders), machine = _cpu_s(running.pid), our_cpu_s(), machine_cpu_s()
        sending = send(running.port, files, associations)
        (user_after, system_after), (own_after, senders_after) = _cpu_s(running.pid), our_cpu_s()
        user, system, senders = user_after - user, system_after - system, senders_after - senders
        others = machine_cpu_s() - machine - user - system - senders - (own_after - own)
        check(receiver, sending, running.stored())
    return Run(sending.seconds, user, system, senders, max(0.0, others))


def _cpu_s(pid: int) -> tuple[float, float]:
    """User and system time of a process tree so far, its ended children included."""
    times = [process.cpu_times() for process in process_tree(pid)]
    user = sum(each.user + each.children_user for each in times)
    return user, sum(each.system + each.children_system for each in times)


def _summary(case: Case, runs: dict[str, list[Run]], files: Sequence[Path]) -> dict[str, Any]:
    medians = {name: statistics.median(run.seconds for run in of_one) for name, of_one in runs.items()}
    megabytes = len(files) * files[0].stat().st_size / 1e6
    return {
        "case": case.name,
        **asdict(case),
        "receivers": {
            name: {
                "median_s": round(medians[name], 4),
                "fastest_s": round(min(run.seconds for run in of_one), 4),
                "instances_per_s": round(len(files) / medians[name], 1),
                "megabytes_per_s": round(megabytes / medians[name], 1),
                "time_relative_to_ours": _paired_ratio(of_one, runs[OURS]),
                "receiver_user_ms": _per_instance_ms([run.receiver_user_s for run in of_one], files),
                "receiver_system_ms": _per_instance_ms([run.receiver_system_s for run in of_one], files),
                "sender_cpu_ms": _per_instance_ms([run.sender_cpu_s for run in of_one], files),
                "seconds": [round(run.seconds, 4) for run in of_one],
            }
            for name, of_one in runs.items()
        },
    }


def _paired_ratio(runs: Sequence[Run], ours: Sequence[Run]) -> float:
    """The median over the rounds of time by our time in the same round: a slow minute of the machine cancels out."""
    return round(statistics.median(run.seconds / our.seconds for run, our in zip(runs, ours, strict=True)), 3)


def _per_instance_ms(seconds: Sequence[float], files: Sequence[Path]) -> float:
    return round(statistics.median(seconds) / len(files) * 1e3, 3)


def explain(site: Site, slices: dict[str, list[Path]]) -> dict[str, Any]:
    """Where the time goes, one association at a time."""
    traced = [trace(site, receiver, slices["PT"]) for receiver in RECEIVERS]
    refuse_undurable(next(each for each in traced if each["receiver"] == OURS))
    minutes: dict[tuple[str, str], list[Any]] = {(each.name, modality): [] for modality in MATRIX for each in RECEIVERS}
    for number in range(WATCHED_ROUNDS):
        for modality, files in slices.items():
            for receiver in rotated(RECEIVERS, number):
                minutes[receiver.name, modality].append(watch(site, receiver, files))
    return {
        "system_calls": traced,
        "wire": [{"modality": of, "receiver": name} | parts(seen) for (name, of), seen in minutes.items()],
        "spool_alone": [{"modality": of} | spool_alone(site, files) for of, files in slices.items()],
    }


if __name__ == "__main__":
    main()
