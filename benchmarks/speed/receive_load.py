"""Load on the listener: many associations at once, many short ones, and an object of a gigabyte.

    python -m benchmarks.speed.receive_load [--rounds 3] [--associations 24] [--slices 500] [--short 3000]
        [--large-mib 1024]

The sender is DCMTK's storescu on the same machine. A run counts only when every instance was acknowledged and the data
sets that are kept are, byte for byte, those that were sent. It needs some 5 GB of disk for a while.
"""

import argparse
import hashlib
import shutil
import statistics
import struct
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import EnhancedPETImageStorage
from rich.console import Console

from benchmarks.machine import (
    REPOSITORY,
    machine_cpu_s,
    our_cpu_s,
    provenance,
    rotated,
    sha256_of_files,
)
from benchmarks.memory import Growth
from benchmarks.readme import keep, markdown
from benchmarks.speed.receivers import CALLED_AE, CALLING_AE, Receiver, Site, check, tracerd
from benchmarks.speed.series import write_series
from tests.peers import Sender
from tests.processes import process_tree, program

README = Path(__file__).resolve().parent / "README.md"
MIB = 2**20
AT_ONCE = 8
"""Short associations that are open at the same time."""


@dataclass(frozen=True)
class Case:
    """What is sent, by whom."""

    name: str
    files: Sequence[Path]
    associations: int
    files_per_association: int | None = None


@dataclass(frozen=True)
class Run:
    """One sending.

    growth_bytes : of the listener's processes, at their highest against before
    slowest_association : the longest time an association took for an instance, by the median of all; 1 for one
    share_at_half : instances of the association that had got least when half of all had come, by the median of all
    """

    seconds: float
    growth_bytes: int
    slowest_association: float
    share_at_half: float
    others_cores: float


def main() -> None:
    arguments = _arguments()
    console = Console(width=140)
    work = Path(tempfile.mkdtemp(prefix="receive-load-", dir=arguments.folder))
    try:
        programs = {"dcmtk": [program("storescu"), "--version"]}
        result = provenance(work, packages=["pydicom", "numpy"], programs=programs)
        cases = cases_of(arguments, work)
        result |= {"seed": arguments.seed, "rounds": arguments.rounds}
        result |= measure(Site(work), cases, receivers(arguments), arguments.rounds, console)
    finally:
        shutil.rmtree(work)
    keep(console, README if arguments.name == "receive_load" else None, arguments.name, result, for_readme)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--associations", type=int, default=24)
    parser.add_argument("--slices", type=int, default=500, help="of each association")
    parser.add_argument("--short", type=int, default=3000, help="associations with one instance each")
    parser.add_argument("--large-mib", type=int, default=1024, help="pixels of the multi-frame object")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build", help="on the disk to be measured")
    parser.add_argument("--name", default="receive_load", help="of the result file; the README keeps to the default")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return arguments


def cases_of(arguments: argparse.Namespace, work: Path) -> list[Case]:
    """The three loads, with files made for them."""
    many, short = arguments.associations * arguments.slices, arguments.short
    slices = write_series(work / "PT", "PT", max(many, short), arguments.seed)
    large = write_large(work / "large.dcm", slices[0], arguments.large_mib, arguments.seed)
    return [
        Case(f"{arguments.associations} associations × {arguments.slices} PT", slices[:many], arguments.associations),
        Case(f"{short} associations × 1 PT, {AT_ONCE} at a time", slices[:short], AT_ONCE, 1),
        Case(f"one multi-frame object of {arguments.large_mib} MiB", [large], 1),
    ]


def write_large(path: Path, pattern: Path, mebibytes: int, seed: int) -> Path:
    """A multi-frame object of 1 MiB frames, written piece by piece."""
    dataset = pydicom.dcmread(pattern)
    del dataset.PixelData
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedPETImageStorage
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 1024, 512, mebibytes
    dataset.save_as(path)
    rng = np.random.default_rng(seed)
    with path.open("ab") as file:
        # The header of (7FE0,0010) in Explicit VR Little Endian, PS3.5 7.1.2.
        file.write(struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OW", mebibytes * MIB))
        for _ in range(mebibytes):
            file.write(rng.bytes(MIB))
    return path


def receivers(arguments: argparse.Namespace) -> list[Receiver]:
    """Our listener as a site would set it for such a load."""
    limits = {
        "associations_per_peer": max(arguments.associations, AT_ONCE),
        "message_bytes": (arguments.large_mib + 1) * MIB,
    }
    return [Receiver(f"{count} process{'es' * (count > 1)}", "", tracerd(count, **limits)) for count in (1, 2)]


def measure(
    site: Site, cases: Sequence[Case], receivers: Sequence[Receiver], rounds: int, console: Console
) -> dict[str, Any]:
    """Every case with every receiver, `rounds` times over."""
    runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for number in range(rounds):
        for case in cases:
            for receiver in rotated(receivers, number):
                runs[case.name, receiver.name].append(run(site, receiver, case))
                console.print(f"round {number + 1}, {case.name}, {receiver.name}: {runs[case.name, receiver.name][-1]}")
    every = [one for of_case in runs.values() for one in of_case]
    return {
        "others_cores": round(statistics.mean(one.others_cores for one in every), 2),
        "data": {case.name: _data(case.files) for case in cases},
        "cases": [
            {"case": case, "receiver": receiver, **_summary(of_case), "runs": [asdict(one) for one in of_case]}
            for (case, receiver), of_case in runs.items()
        ],
    }


def _data(files: Sequence[Path]) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in files)
    return {"instances": len(files), "bytes": size, "sha256": sha256_of_files(files) if len(files) > 1 else None}


def run(site: Site, receiver: Receiver, case: Case) -> Run:
    """One sending into a fresh listener.

    Raises
    ------
    RuntimeError
        An instance was not acknowledged, or what is kept is not what was sent.
    """
    with site.folder() as folder, receiver.running(folder) as running, ExitStack() as stack:
        acceptors = [one.pid for one in process_tree(running.pid) if "dicom_io.acceptor" in one.cmdline()]
        growths = [stack.enter_context(Growth(pid)) for pid in acceptors]
        machine, own, tree, began = machine_cpu_s(), sum(our_cpu_s()), _cpu_s(running.pid), time.perf_counter()
        sender = Sender(
            running.port,
            calling_ae=CALLING_AE,
            called_ae=CALLED_AE,
            associations=case.associations,
            files_per_association=case.files_per_association,
            propose_needed=True,
        )
        sending = sender.send(case.files, timeout=1800)
        took = time.perf_counter() - began
        others = machine_cpu_s() - machine - (sum(our_cpu_s()) - own) - (_cpu_s(running.pid) - tree)
        stack.close()
        check(receiver, sending, running.stored())
        inbox = sorted((folder / "data" / "spool" / "inbox").glob("*.dcm"))
        refuse_altered(case.files, inbox)
        slowest, share = fairness([path.name for path in inbox])
        growth = sum(growth.bytes for growth in growths)
    return Run(sending.seconds, growth, slowest, share, max(0.0, others) / took)


def _cpu_s(pid: int) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in process_tree(pid))


def refuse_altered(sent: Iterable[Path], kept: Iterable[Path]) -> None:
    """RuntimeError unless the same data sets are there, each as often as it was sent."""
    if Counter(map(digest, sent)) != Counter(map(digest, kept)):
        raise RuntimeError("the data sets that are kept are not those that were sent")


def digest(path: Path) -> bytes:
    """Of what follows the File Meta Information, whose length is in its first element (PS3.10 7.1)."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        start = file.read(144)
        file.seek(144 + int.from_bytes(start[140:144], "little"))
        while block := file.read(MIB):
            hashed.update(block)
    return hashed.digest()


def fairness(names: Sequence[str]) -> tuple[float, float]:
    """`slowest_association` and `share_at_half` of a `Run`, from names `<ns>-<association>-<number>.dcm` in order.

    With associations of a single instance there is nothing to compare: both are 1.
    """
    arrivals: dict[str, list[int]] = defaultdict(list)
    for name in names:
        moment, _, rest = name.partition("-")
        arrivals[rest.rpartition("-")[0]].append(int(moment))
    if min(map(len, arrivals.values())) < 2:
        return 1.0, 1.0
    paces = [(times[-1] - times[0]) / (len(times) - 1) for times in arrivals.values()]
    half = int(names[len(names) // 2].partition("-")[0])
    shares = [sum(moment < half for moment in times) for times in arrivals.values()]
    return max(paces) / statistics.median(paces), min(shares) / statistics.median(shares)


def _summary(runs: Sequence[Run]) -> dict[str, float]:
    """The median time, and the worst of everything that must not get worse."""
    return {
        "median_s": round(statistics.median(one.seconds for one in runs), 3),
        "growth_mib": round(max(one.growth_bytes for one in runs) / MIB, 1),
        "slowest_association": round(max(one.slowest_association for one in runs), 2),
        "share_at_half": round(min(one.share_at_half for one in runs), 2),
    }


def for_readme(result: dict[str, Any]) -> str:
    """One line for each load and number of processes."""
    heads = (
        "load",
        "listener",
        "s",
        "instances/s",
        "MB/s",
        "memory +MiB",
        "slowest / median",
        "least at half / median",
    )
    rows = [_cells(row, result["data"][row["case"]]) for row in result["cases"]]
    return markdown(heads, rows)


def _cells(row: dict[str, Any], data: dict[str, Any]) -> list[str]:
    return [
        row["case"],
        row["receiver"],
        f"{row['median_s']:.1f}",
        f"{data['instances'] / row['median_s']:.0f}",
        f"{data['bytes'] / row['median_s'] / 1e6:.0f}",
        f"{row['growth_mib']:.1f}",
        f"{row['slowest_association']:.2f}",
        f"{row['share_at_half']:.2f}",
    ]


if __name__ == "__main__":
    main()
