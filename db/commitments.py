"""Storage commitment transactions: those we asked for (scu), and those we were asked for (scp)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.schema import Commitment, CommitmentRole, Json
from db.states import CommitmentState


def add(
    session: Session,
    transaction_uid: str,
    *,
    role: CommitmentRole,
    peer: str,
    items: Sequence[Json],
    at: datetime,
    deadline: datetime | None = None,
) -> Commitment:
    """Write a transaction down before a word of it is said."""
    row = Commitment(
        transaction_uid=transaction_uid,
        role=role,
        peer=peer,
        requested=at,
        deadline=deadline,
        items=list(items),
        tries=0,
        state=CommitmentState.ASKED,
    )
    session.add(row)
    session.flush()
    return row


def by_transaction(session: Session, transaction_uid: str) -> Commitment | None:
    """The transaction of that UID."""
    return session.scalar(select(Commitment).where(Commitment.transaction_uid == transaction_uid))


def overdue(session: Session, destination: str, now: datetime) -> list[Commitment]:
    """Requests to a destination whose report has not come in time."""
    return list(
        session.scalars(
            select(Commitment).where(
                Commitment.state == CommitmentState.ASKED,
                Commitment.role == CommitmentRole.SCU,
                Commitment.peer == destination,
                Commitment.deadline <= now,
            )
        )
    )


def next_report(session: Session, now: datetime) -> Commitment | None:
    """The request of a peer that is to be answered next."""
    return session.scalar(
        select(Commitment)
        .where(
            Commitment.state == CommitmentState.ASKED,
            Commitment.role == CommitmentRole.SCP,
            (Commitment.not_before.is_(None)) | (Commitment.not_before <= now),
        )
        .order_by(Commitment.id)
        .limit(1)
    )
