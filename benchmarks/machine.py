"""Where a number comes from: the commit, the kind of machine, the versions. Every benchmark result carries this.

Says what kind of machine it was, never which one: no host name, no address, no path.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
BUSY_CORES = 0.3
"""Cores that others may take before a measurement is not worth keeping."""

Contestant = TypeVar("Contestant")


def provenance(
    folder: Path, *, packages: Sequence[str] = (), programs: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """What a reader needs to judge or repeat a measurement made in `folder`.

    `packages` are Python distributions, `programs` maps a name to the command that prints its version.
    """
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain")),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "file_system": file_system(folder),
            "kernel": platform.release().split("-")[0],
            "load_at_start": round(psutil.getloadavg()[0], 2),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
            **{name: _first_line(command) for name, command in (programs or {}).items()},
        },
    }


def command(module: str, given: Sequence[str]) -> str:
    """What was typed, but for the folders of this machine."""
    return " ".join(["python", "-m", module, *("FOLDER" if Path(word).is_absolute() else word for word in given)])


def _git(*arguments: str) -> str | None:
    """None outside a repository or before its first commit."""
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def file_system(folder: Path) -> str:
    """The type of the file system that holds a folder, for example ext4."""
    inside = [mount for mount in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(mount.mountpoint)]
    return max(inside, key=lambda mount: len(mount.mountpoint)).fstype


def _first_line(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip(" $").rpartition("/")[2] if lines else "unknown"


def machine_cpu_s() -> float:
    """CPU time of all cores that was neither idle nor waiting for a disk."""
    times = psutil.cpu_times()
    return float(sum(times[:8]) - times.idle - times.iowait)


def our_cpu_s() -> tuple[float, float]:
    """CPU time of this process, and of its ended children."""
    times = psutil.Process().cpu_times()
    return times.user + times.system, times.children_user + times.children_system


def rotated(contestants: Sequence[Contestant], by: int) -> list[Contestant]:
    """The contestants in turn, another one first in every round."""
    first = by % len(contestants)
    return [*contestants[first:], *contestants[:first]]


def sha256_of_files(paths: Iterable[Path]) -> str:
    """One digest of the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def write_result(name: str, result: Mapping[str, Any]) -> Path:
    """Write benchmarks/results/<name>.json; returns its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return path
