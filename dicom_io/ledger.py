"""Which associations are open and how the others ended: one small file each, so that any process can look.

``run/associations/<id>.json`` exists while an association is open. When it ends the file gets the outcome and is
renamed to ``run/ended/<id>.json``. Nothing is flushed to disk, because C-ECHO has to be answered at once however busy
the disk is; a file that a power cut left empty is deleted when the listener starts.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dicom_io.spool import Spool


class Outcome(StrEnum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED = "aborted"
    """One side said A-ABORT."""
    TIMEOUT = "timeout"
    LOST = "lost"
    """The connection or the process ended without a word."""


@dataclass(frozen=True, slots=True)
class OpenAssociation:
    """An accepted association.

    peer, port : network address of the requestor
    opened_ns : UTC, nanoseconds since 1970
    """

    id: str
    pid: int
    calling_ae: str
    called_ae: str
    peer: str
    port: int
    opened_ns: int


@dataclass(slots=True)
class Tally:
    """C-STORE requests answered with success, and with anything else."""

    stored: int = 0
    refused: int = 0


def association_id(opened_ns: int, pid: int, seat: int) -> str:
    """Unique: a process gives a seat to one connection at a time."""
    return f"{opened_ns:x}-{pid}-{seat}"


def is_of_process(spool_name: str, pid: int) -> bool:
    """Whether a spool name ``<utc ns>-<association>-<n>…`` comes from an association of this process."""
    return spool_name.split("-")[2:3] == [str(pid)]


def record_open(spool: Spool, association: OpenAssociation) -> None:
    """Write the file of an association that was accepted. It says "lost" already, in case nobody can say better."""
    lost = _end_of(Tally(), Outcome.LOST, association.opened_ns)
    _replace(spool.associations / f"{association.id}.json", asdict(association) | lost)


def record_end(spool: Spool, association: OpenAssociation, tally: Tally, outcome: Outcome, closed_ns: int) -> None:
    """Write down how an association ended.

    Raises
    ------
    OSError
        The disk is full: the file has moved all the same and says what `record_open` wrote.
    """
    path = spool.associations / f"{association.id}.json"
    try:
        _replace(path, asdict(association) | _end_of(tally, outcome, closed_ns))
    finally:
        path.rename(spool.ended / path.name)


def record_lost(spool: Spool, pid: int) -> int:
    """End the associations that a process which died left open; returns how many.

    What they stored is in the inbox; the counts in their files died with the process.
    """
    files = spool.associations.glob("*.json")
    return _move_to_ended(spool, [path for path in files if path.stem.split("-")[1:2] == [str(pid)]])


def clear_ledger(spool: Spool) -> int:
    """Before a listener starts: end every association there is, delete what is no JSON; returns how many were lost."""
    for path in (*spool.associations.iterdir(), *spool.ended.iterdir()):
        if not _is_whole(path):
            path.unlink()
    return _move_to_ended(spool, list(spool.associations.glob("*.json")))


def _is_whole(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:  # recorded by the node a moment ago
        return True
    except ValueError:
        return False
    return path.suffix == ".json"


def _move_to_ended(spool: Spool, files: list[Path]) -> int:
    for path in files:
        path.rename(spool.ended / path.name)
    return len(files)


def _end_of(tally: Tally, outcome: Outcome, closed_ns: int) -> dict[str, Any]:
    return {"closed_ns": closed_ns, "stored": tally.stored, "refused": tally.refused, "outcome": str(outcome)}


def _replace(path: Path, document: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document), encoding="ascii")
    temporary.rename(path)
