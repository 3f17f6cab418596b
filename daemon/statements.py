"""What peers say about storage commitment, from the inbox: their requests to us, and their reports on ours.

The listener has made it durable and answered; nothing of it was read before. A file is removed when what it says is in
the database.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from daemon import index, prove, vouch
from daemon.node import Node
from dicom_io.errors import UnreadableObject
from dicom_io.spool import ACTION, EVENT


def inbox(node: Node) -> list[Path]:
    """Every request and report that waits, oldest first; to be listed before the objects are."""
    return sorted(Path(entry.path) for entry in os.scandir(node.spool.inbox) if entry.name.endswith((ACTION, EVENT)))


def read(node: Node, said: Sequence[Path], *, after: Sequence[Path]) -> int:
    """Read what was said, as far as the objects that came before it are indexed; returns how much that was.

    after : the objects that waited when `said` had been listed
    """
    left = min((path.name for path in after if path.exists()), default=None)
    ready = [path for path in said if left is None or path.name < left]
    for path in ready:
        take(node, path)
    return len(ready)


def take(node: Node, path: Path) -> None:
    """Act on one request or report; one that cannot be read is quarantined."""
    try:
        statement = node.sandbox.read_statement(path)
    except UnreadableObject as fault:
        index.set_aside(node, path, fault)
        return
    if path.suffix == EVENT:
        prove.hear(node, statement)
    else:
        vouch.take(node, statement)
    path.unlink(missing_ok=True)
