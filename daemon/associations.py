"""The listener's marks in run/ → rows: who is sending now, and how each association ended."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from daemon.node import Node, Turn
from db.moves import move
from db.schema import Association, Instance, Series, Study
from db.states import AssociationState, StudyState

ENDINGS = {"released": AssociationState.CLOSED, "aborted": AssociationState.ABORTED}
"""Any other outcome the listener writes (lost, timeout) is `vanished`."""


def marks(folder: Path) -> dict[str, dict[str, Any]]:
    """Association id → what the listener wrote about it.

    A mark that is renamed meanwhile is seen in its next place; one that a power cut has torn is the listener's to
    remove at its next start.
    """
    found = {}
    for entry in os.scandir(folder):
        if not entry.name.endswith(".json"):
            continue
        try:
            mark = json.loads(Path(entry.path).read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        found[mark["id"]] = mark
    return found


def note_opened(node: Node, known: set[str]) -> None:
    """Add a row for every association that is new since the last look; `known` is kept up to date."""
    new = {name: mark for name, mark in marks(node.spool.associations).items() if name not in known}
    if not new:
        return
    with node.turn() as turn:
        for mark in new.values():
            row_of(turn, mark)
    known.update(new)


def note_ended(node: Node, ended: dict[str, dict[str, Any]], known: set[str]) -> None:
    """Close the rows of ended associations whose objects are all indexed, and look at their studies again."""
    if not ended:
        return
    with node.turn() as turn:
        for mark in ended.values():
            row = row_of(turn, mark)
            if row.state == AssociationState.OPEN:
                row.closed = moment(mark["closed_ns"])
                row.stored, row.refused = mark["stored"], mark["refused"]
                state = ENDINGS.get(mark["outcome"], AssociationState.VANISHED)
                move(turn.session, row, state, reason=mark["outcome"], actor="listener", at=turn.now)
            wake_studies(turn, row.id)
    for name in ended:
        (node.spool.ended / f"{name}.json").unlink(missing_ok=True)
        known.discard(name)


def recover(turn: Turn) -> None:
    """After a restart: rows that are open but have no mark any more ended unseen."""
    marked = set(marks(turn.node.spool.associations)) | set(marks(turn.node.spool.ended))
    for row in turn.session.scalars(select(Association).where(Association.state == AssociationState.OPEN)):
        if row.id not in marked:
            move(turn.session, row, AssociationState.VANISHED, reason="no mark left", actor="index", at=turn.now)
            wake_studies(turn, row.id)


def row_of(turn: Turn, mark: dict[str, Any]) -> Association:
    """The row of a mark, made when new."""
    row = turn.session.get(Association, mark["id"])
    if row is None:
        row = Association(
            id=mark["id"],
            calling_ae=mark["calling_ae"],
            called_ae=mark["called_ae"],
            peer=mark["peer"],
            port=mark["port"],
            opened=moment(mark["opened_ns"]),
            stored=0,
            refused=0,
            state=AssociationState.OPEN,
        )
        turn.session.add(row)
        turn.session.flush()
    return row


def wake_studies(turn: Turn, association_id: str) -> None:
    """The studies an association delivered to are looked at now."""
    series = select(Instance.series_id).where(Instance.association_id == association_id)
    study_ids = select(Series.study_id).where(Series.id.in_(series))
    collecting = Study.state == StudyState.COLLECTING
    for study in turn.session.scalars(select(Study).where(Study.id.in_(study_ids), collecting)):
        study.due = turn.now


def moment(nanoseconds: int) -> datetime:
    """A listener's clock reading as a time."""
    return datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC)
