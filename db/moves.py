"""The one place where a row changes its state, and the one way an event is written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from db.errors import DetachedRow, IllegalMove, NaiveTime
from db.schema import Association, Commitment, Delivery, Event, Instance, Job, Json, Model, Series, Study, Table
from db.states import (
    MOVES,
    AssociationState,
    CommitmentState,
    DeliveryState,
    InstanceState,
    JobState,
    ModelState,
    SeriesState,
    StudyState,
)

Stateful = Association | Study | Series | Instance | Job | Delivery | Commitment | Model
"""A row that has a state."""

STATES: Mapping[type[Table], type[StrEnum]] = {
    Association: AssociationState,
    Study: StudyState,
    Series: SeriesState,
    Instance: InstanceState,
    Job: JobState,
    Delivery: DeliveryState,
    Commitment: CommitmentState,
    Model: ModelState,
}
"""Which states the rows of a table can be in."""


def move(
    session: Session, row: Stateful, to: StrEnum, *, reason: str, actor: str, at: datetime, data: Json = None
) -> Event:
    """Move a row to another state and record it, in the caller's transaction.

    Both are written at once, so that several moves reach the database in the order they were made: an old current
    instance steps down before the new one steps up.

    Raises
    ------
    db.errors.IllegalMove
        The table in `db.states` has no such move; nothing was changed.
    db.errors.DetachedRow
        The row was not loaded by this session.
    db.errors.NaiveTime
        `at` has no time zone.
    """
    event = _event(session, row, at)
    states = STATES[type(row)]
    came_from = states(row.state)
    if not isinstance(to, states) or to not in MOVES[states][came_from]:
        what = f"{event.subject_type} {event.subject_id}"
        legal = ", ".join(sorted(MOVES[states][came_from])) or "nothing, it is final"
        raise IllegalMove(f"{what} cannot move: {came_from} leads to {legal}; got {type(to).__name__} {to}")
    row.state = to  # type: ignore[assignment]  # `to` was checked to be of the row's own kind of states
    event.from_state, event.to_state = came_from, to
    return _write(session, event, reason, actor, data)


def note(session: Session, row: Table, *, reason: str, actor: str, at: datetime, data: Json = None) -> Event:
    """Record something that happened to a row without moving it (a coerced copy, an override).

    Raises
    ------
    db.errors.DetachedRow
        The row was not loaded by this session.
    db.errors.NaiveTime
        `at` has no time zone.
    """
    return _write(session, _event(session, row, at), reason, actor, data)


def _event(session: Session, row: Table, at: datetime) -> Event:
    """An event about a row, not yet in the session."""
    if row not in session:
        raise DetachedRow(f"a row of {row.__tablename__} was loaded by another session than the one that writes")
    if at.utcoffset() is None:
        raise NaiveTime
    session.flush()  # a new row gets its id, and its first state, from being inserted
    (key,) = inspect(row).identity or ()
    return Event(at=at, subject_type=row.__tablename__, subject_id=str(key))


def _write(session: Session, event: Event, reason: str, actor: str, data: Json) -> Event:
    event.reason, event.actor, event.data = reason, actor, data
    session.add(event)
    session.flush()
    return event
