"""How fast `tracerd inspect` is, beside a loop of pydicom that reads the same headers and no pixels.

    python -m benchmarks.speed.inspect [--rounds 7] [--studies 12] [--seed 1]

All read the same files in the same run, from a warm page cache, in interleaved rounds. "function" is `inspect()`: it
starts its children, reads every header, reduces the pixels of every PET and understands the series. "command" is the
whole process, start of Python included. The loop of pydicom starts nothing, looks at no pixel and understands nothing.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command does before it loads numpy

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from pydicom import dcmread
from pydicom.uid import JPEGLSLossless
from rich.console import Console
from rich.table import Table

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
from benchmarks.readme import markdown, rewrite
from dicom_io.inspect import inspect
from tests import make

PET_SHAPE, CT_SHAPE = (90, 168, 168), (120, 256, 256)
SHARE = 0.9
"""Of the cores that the function must turn into speed, compared with the loop of pydicom on one core."""
README = Path(__file__).resolve().parent / "README.md"
LOOP, FUNCTION, COMMAND = "pydicom", "function", "command"


class Run(NamedTuple):
    """Wall time, and CPU time of the contestant with its children [s]."""

    seconds: float
    cpu_s: float


def main() -> None:
    arguments = _arguments()
    console = Console(width=120)
    warnings.simplefilter("ignore")  # pydicom quotes odd values of real headers
    work = Path(tempfile.mkdtemp(prefix="inspect-", dir=arguments.folder))
    try:
        result = provenance(work, packages=["pydicom", "numpy"])
        folders = {
            "simulated PET/CT": simulated(work / "simulated", arguments.studies, arguments.seed),
            "the same PET, JPEG-LS": compressed(work / "simulated", work / "compressed"),
            "one simulated slice": [min((work / "simulated").rglob("*.dcm"))],
        } | real(work / "real")
        result |= {"seed": arguments.seed, "rounds": arguments.rounds, "cores": len(os.sched_getaffinity(0))}
        result |= measure(folders, arguments.rounds, console)
    finally:
        shutil.rmtree(work)
    show(console, result)
    path = write_result("inspect", result)
    rewrite(README, "benchmarks/results/inspect.json", for_readme(json.loads(path.read_text())))
    console.print(f"written: {path.relative_to(REPOSITORY)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--studies", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build", help="where the files are written")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return arguments


def simulated(folder: Path, studies: int, seed: int) -> list[Path]:
    """PET/CT studies of different patients, uncompressed."""
    made = [
        make.study(folder / str(number), seed=seed + number, pet_shape=PET_SHAPE, ct_shape=CT_SHAPE)
        for number in range(studies)
    ]
    return [path for study in made for path in study.files]


def compressed(source: Path, folder: Path) -> list[Path]:
    """The PET slices in JPEG-LS, lossless."""
    written = []
    for path in sorted(source.rglob("PT/*.dcm")):
        dataset = dcmread(path)
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(target)
        written.append(target)
    return written


def real(folder: Path) -> dict[str, list[Path]]:
    """The soft-tissue sarcoma studies (GE Discovery ST) where TRACERD_REAL_DATA, or ../shared/data, has them."""
    data = Path(os.environ.get("TRACERD_REAL_DATA") or REPOSITORY.parent / "shared" / "data") / "soft_tissue_sarcoma"
    for archive in sorted(data.glob("STS_*.tar.xz")):
        with tarfile.open(archive) as packed:
            packed.extractall(folder / archive.name, filter="data")
    images = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name == "image")
    return {"real PET/CT (soft-tissue sarcoma)": images} if images else {}


def measure(data: Mapping[str, Sequence[Path]], rounds: int, console: Console) -> dict[str, Any]:
    """Seconds of every contestant on every set of files, `rounds` times over."""
    runs: dict[tuple[str, str], list[Run]] = {}
    others: list[float] = []
    contestants: dict[str, Callable[[Sequence[Path]], None]] = {LOOP: loop, FUNCTION: function, COMMAND: command}
    for number in range(rounds + 1):
        for name, files in data.items():
            for contestant, run in rotated(list(contestants.items()), number):
                machine, ours, start = machine_cpu_s(), sum(our_cpu_s()), perf_counter()
                run(files)
                took, cpu = perf_counter() - start, sum(our_cpu_s()) - ours
                if number:  # the first round fills the page cache
                    runs.setdefault((name, contestant), []).append(Run(took, cpu))
                    others.append(max(0.0, machine_cpu_s() - machine - cpu) / took)
        console.print(f"round {number} of {rounds} done")
    return {
        "others_cores": round(statistics.mean(others), 2),
        "data": [
            _summary(name, files, {contestant: runs[name, contestant] for contestant in contestants})
            for name, files in data.items()
        ],
    }


def loop(files: Sequence[Path]) -> None:
    """What a script would do."""
    for path in files:
        dcmread(path, stop_before_pixels=True)


def function(files: Sequence[Path]) -> None:
    document = inspect(files)
    if document["unreadable"] or not document["series"]:
        raise RuntimeError(f"{len(document['unreadable'])} of {len(files)} files were not read")


def command(files: Sequence[Path]) -> None:
    """`tracerd inspect --json` of the folder that holds the files, or of the one file."""
    target = files[0] if len(files) == 1 else Path(os.path.commonpath(files))
    arguments = [sys.executable, "-m", "daemon", "inspect", str(target), "--json"]
    subprocess.run(arguments, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)


def _summary(name: str, files: Sequence[Path], runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    return {
        "data": name,
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "sha256": sha256_of_files(files),
        "contestants": {
            contestant: {
                "median_s": round(statistics.median(run.seconds for run in of_one), 4),
                "fastest_s": round(min(run.seconds for run in of_one), 4),
                "slowest_s": round(max(run.seconds for run in of_one), 4),
                "files_per_s": round(len(files) / statistics.median(run.seconds for run in of_one), 1),
                "cpu_ms_per_file": round(statistics.median(run.cpu_s for run in of_one) / len(files) * 1e3, 3),
                "times_as_fast_as_pydicom": round(
                    statistics.median(loop.seconds / own.seconds for loop, own in zip(runs[LOOP], of_one, strict=True)),
                    2,
                ),
                "seconds": [round(run.seconds, 4) for run in of_one],
            }
            for contestant, of_one in runs.items()
        },
    }


def show(console: Console, result: Mapping[str, Any]) -> None:
    """The table a person reads; the result file has every round."""
    wanted = SHARE * result["cores"]
    console.print(f"{result['machine']['cpu']}, {result['cores']} cores; others took {result['others_cores']} cores")
    console.print(f"files per second (times as fast as the loop; {FUNCTION} is to reach {wanted:.1f} on many)")
    table = Table("data", "files", LOOP, FUNCTION, COMMAND)
    for row in _rows(result):
        table.add_row(*row)
    console.print(table)
    if result["others_cores"] > BUSY_CORES:
        console.print("This machine was busy with other work: do not keep these numbers.", style="bold red")


def for_readme(result: Mapping[str, Any]) -> str:
    """The Markdown table of files per second."""
    return markdown(["files/s (times as fast as the loop)", "files", LOOP, FUNCTION, COMMAND], _rows(result))


def _rows(result: Mapping[str, Any]) -> list[list[str]]:
    return [[each["data"], str(each["files"]), *map(_speed, each["contestants"].values())] for each in result["data"]]


def _speed(of: Mapping[str, Any]) -> str:
    return f"{of['files_per_s']:.{0 if of['files_per_s'] > 10 else 1}f} ({of['times_as_fast_as_pydicom']:.2f})"


if __name__ == "__main__":
    main()
