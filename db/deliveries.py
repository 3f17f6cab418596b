"""Deliveries: one row per instance and destination, moved up the ladder as the peer answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.orm import Session

from db.moves import move
from db.schema import Delivery, Instance, Pause, Proof, Series, Study
from db.states import DeliveryState


def enqueue(
    session: Session,
    instance_ids: Iterable[int],
    *,
    destination: str,
    job_id: int | None,
    proof: Proof,
    state: DeliveryState,
    at: datetime,
) -> None:
    """Add the missing deliveries of instances to a destination."""
    wanted = list(instance_ids)
    present = set(
        session.scalars(
            select(Delivery.instance_id).where(Delivery.destination == destination, Delivery.instance_id.in_(wanted))
        )
    )
    for instance_id in wanted:
        if instance_id not in present:
            session.add(
                Delivery(
                    instance_id=instance_id,
                    destination=destination,
                    job_id=job_id,
                    proof=proof,
                    tries=0,
                    proof_tries=0,
                    first_due=at,
                    state=state,
                )
            )


def due_at(destination: str, now: datetime, state: DeliveryState = DeliveryState.QUEUED) -> Select[Delivery]:
    """The deliveries of a destination whose next step is due, in order; none while it is paused."""
    paused = select(Pause.destination).where(Pause.destination == destination).exists()
    return (
        select(Delivery)
        .where(
            Delivery.destination == destination,
            Delivery.state == state,
            (Delivery.not_before.is_(None)) | (Delivery.not_before <= now),
            ~paused,
        )
        .order_by(Delivery.id)
    )


def is_due(session: Session, destination: str, *, now: datetime) -> bool:
    """Whether anything may be sent to a destination now."""
    return session.scalar(due_at(destination, now).limit(1)) is not None


def take(session: Session, destination: str, *, now: datetime, limit: int) -> list[tuple[Delivery, Instance]]:
    """Move the next due deliveries of one job (or of no job) to `sending` and return them with their instances."""
    first = session.scalar(due_at(destination, now).limit(1))
    if first is None:
        return []
    same_job = Delivery.job_id.is_(None) if first.job_id is None else Delivery.job_id == first.job_id
    query = due_at(destination, now).where(same_job).limit(limit)
    rows = session.execute(query.join(Instance, Instance.id == Delivery.instance_id).add_columns(Instance)).all()
    for delivery, _ in rows:
        move(session, delivery, DeliveryState.SENDING, reason="", actor="deliver", at=now)
        delivery.tries += 1
        delivery.not_before = None
    return [(row[0], row[1]) for row in rows]


def unproven(destination: str, now: datetime, state: DeliveryState, proof: Proof) -> Select[Delivery]:
    """The deliveries of a destination on a rung below the wanted one, without those that wait for a report."""
    return due_at(destination, now, state).where(Delivery.proof == proof, Delivery.transaction_uid.is_(None))


def any_unproven(session: Session, destination: str) -> bool:
    """Whether a destination has accepted anything that it has still to prove; asked often, so it is little work."""
    open_rungs = (
        (DeliveryState.ACCEPTED, Proof.COMMITTED),
        (DeliveryState.ACCEPTED, Proof.SEEN),
        (DeliveryState.COMMITTED, Proof.SEEN),
    )
    of = Delivery.destination == destination
    rungs = [and_(Delivery.state == state, of, Delivery.proof == proof) for state, proof in open_rungs]
    return session.scalar(select(Delivery.id).where(or_(*rungs)).limit(1)) is not None


def uncommitted(session: Session, destination: str, *, now: datetime, limit: int) -> list[tuple[Delivery, Instance]]:
    """Accepted deliveries of one job (or of no job) for which storage commitment is to be asked now."""
    for proof in (Proof.COMMITTED, Proof.SEEN):  # one after the other: an index has each in order
        wanted = unproven(destination, now, DeliveryState.ACCEPTED, proof)
        first = session.scalar(wanted.limit(1))
        if first is not None:
            break
    else:
        return []
    same_job = Delivery.job_id.is_(None) if first.job_id is None else Delivery.job_id == first.job_id
    rows = session.execute(
        wanted.where(same_job).limit(limit).join(Instance, Instance.id == Delivery.instance_id).add_columns(Instance)
    )
    return [(row[0], row[1]) for row in rows]


def of_transaction(session: Session, transaction_uid: str) -> list[Delivery]:
    """The deliveries that wait for the report on a storage commitment request."""
    return list(session.scalars(select(Delivery).where(Delivery.transaction_uid == transaction_uid)))


def unseen(
    session: Session, destination: str, state: DeliveryState, *, now: datetime, limit: int
) -> list[tuple[Delivery, Instance, Series, Study]]:
    """Deliveries on the rung below `seen` that are to be looked for now, with all that names them."""
    rows = session.execute(
        unproven(destination, now, state, Proof.SEEN)
        .limit(limit)
        .join(Instance, Instance.id == Delivery.instance_id)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .add_columns(Instance, Series, Study)
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def send_again(session: Session, delivery: Delivery, *, reason: str, actor: str, at: datetime) -> None:
    """Put a delivery back to the foot of the ladder, at a person's request."""
    delivery.first_due, delivery.not_before = at, None
    delivery.tries, delivery.proof_tries, delivery.transaction_uid = 0, 0, None
    delivery.reason_code, delivery.reason = None, None
    move(session, delivery, DeliveryState.QUEUED, reason=reason, actor=actor, at=at)


def pauses(session: Session) -> dict[str, Pause]:
    """The destinations that are paused."""
    return {row.destination: row for row in session.scalars(select(Pause).order_by(Pause.destination))}


def in_state(session: Session, *states: DeliveryState) -> list[Delivery]:
    """All deliveries in the given states."""
    return list(session.scalars(select(Delivery).where(Delivery.state.in_(states)).order_by(Delivery.id)))


def of_job(session: Session, job_id: int, states: Sequence[DeliveryState] | None = None) -> list[Delivery]:
    """A job's deliveries, in the given states or all."""
    query = select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.id)
    if states is not None:
        query = query.where(Delivery.state.in_(states))
    return list(session.scalars(query))
