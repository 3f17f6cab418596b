"""What a receiver asks of the kernel while it stores: counts and wall time by kind, read from strace.

Only the calls listed here stop at the tracer (seccomp); the others run at full speed. Waiting calls are not listed:
threads that wait at the same time would add up to more than the time there is.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests.processes import program

FLUSHES = {"fdatasync", "fsync", "sync_file_range", "syncfs", "sync"}
KIND_OF_CALL = {
    "open and close": ["openat", "creat", "close"],
    "rename, link, unlink": ["rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat"],
    "write": ["write", "writev", "pwrite64", "ftruncate"],
    "read": ["read", "pread64"],
    "receive": ["recvfrom", "recvmsg"],
    "send": ["sendto", "sendmsg"],
}
KIND = {call: kind for kind, calls in KIND_OF_CALL.items() for call in calls}
ON_SOCKETS = {"write": "send", "read": "receive"}
CALL = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)[( ].* <(\d+\.\d+)>$")
DESCRIPTOR = re.compile(r"\d+ +\w+\(\d+<(.*?)>[,) ]")


@dataclass
class Tally:
    """Calls of one kind: how many, and how long in all [s]."""

    count: int = 0
    seconds: float = 0.0


def wrapper(log: Path) -> list[str]:
    """The words to put before a command so that `read(log)` can tell what it did."""
    traced = ",".join([*FLUSHES, *KIND])
    quickly = ["-f", "-qq", "--seccomp-bpf", "-s", "0"]
    return [program("strace"), *quickly, "-y", "-T", "-e", f"trace={traced}", "-e", "signal=none", "-o", str(log)]


def read(log: Path, start: int, end: int) -> dict[str, Tally]:
    """Kind → tally of what bytes `start` to `end` of the log tell.

    A flush is named by what it flushed, "file", "directory" or "database"; what it flushed must still be there.
    """
    tallies: dict[str, Tally] = defaultdict(Tally)
    unfinished: dict[str, str] = {}
    for line in log.read_bytes()[start:end].decode(errors="replace").splitlines():
        if line.endswith("<unfinished ...>"):
            unfinished[line.split(maxsplit=1)[0]] = line
        elif call := CALL.match(line):
            thread, name, seconds = call.groups()
            begun = unfinished.pop(thread, line) if "<... " in line else line
            tally = tallies[_kind(name, begun)]
            tally.count += 1
            tally.seconds += float(seconds)
    return dict(tallies)


def _kind(call: str, line: str) -> str:
    described = DESCRIPTOR.match(line)
    target = described[1] if described else ""
    if call in FLUSHES:
        return f"{call} of {_flushed(Path(target))}"
    kind = KIND[call]
    return ON_SOCKETS.get(kind, kind) if target.startswith(("socket:", "TCP", "UNIX")) else kind


def _flushed(path: Path) -> str:
    if path.is_dir():
        return "directory"
    return "database" if path.name.startswith("index") or path.suffix.startswith(".db") else "file"
