"""Jobs: made once per key, claimed one by one, every attempt recorded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.moves import move
from db.schema import Attempt, Decision, Instance, Job, Outcome, Series, Study
from db.states import JobState


def by_key(session: Session, key: str) -> Job | None:
    """The job of that key, if it exists."""
    return session.scalar(select(Job).where(Job.key == key))


def decisions(session: Session, study: Study, rule: str) -> list[Decision]:
    """What a rule has said about the present generation of a study."""
    return list(
        session.scalars(
            select(Decision)
            .where(Decision.study_id == study.id, Decision.generation == study.generation, Decision.rule == rule)
            .order_by(Decision.id)
        )
    )


def of_rule(session: Session, study_id: int, rule: str, states: Sequence[JobState]) -> list[Job]:
    """A study's jobs of one rule in the given states, oldest first."""
    return list(
        session.scalars(
            select(Job).where(Job.study_id == study_id, Job.rule == rule, Job.state.in_(states)).order_by(Job.id)
        )
    )


def of_study(session: Session, study_id: int, states: Sequence[JobState]) -> list[Job]:
    """A study's jobs in the given states."""
    return list(session.scalars(select(Job).where(Job.study_id == study_id, Job.state.in_(states)).order_by(Job.id)))


def in_state(session: Session, *states: JobState) -> list[Job]:
    """All jobs in the given states, oldest first."""
    return list(session.scalars(select(Job).where(Job.state.in_(states)).order_by(Job.id)))


def next_due(session: Session, now: datetime) -> Job | None:
    """The job to run next: highest priority first, then first come first served."""
    return session.scalar(
        select(Job)
        .where(Job.state == JobState.WAITING, (Job.not_before.is_(None)) | (Job.not_before <= now))
        .order_by(Job.priority.desc(), Job.id)
        .limit(1)
    )


def claim(session: Session, job: Job, *, worker: str, at: datetime) -> Attempt:
    """Move a waiting job to running and count the attempt in the same transaction.

    Counting before the work is done is what ends a study that kills its worker each time.
    """
    move(session, job, JobState.RUNNING, reason=f"on {worker}", actor="execute", at=at)
    job.attempts += 1
    job.not_before = None
    number = len(attempts(session, job.id)) + 1
    attempt = Attempt(job_id=job.id, n=number, worker=worker, started=at)
    session.add(attempt)
    session.flush()
    return attempt


def attempts(session: Session, job_id: int) -> list[Attempt]:
    """Every attempt of a job in order."""
    return list(session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.n)))


def end_attempt(session: Session, job_id: int, *, outcome: Outcome, detail: str, at: datetime) -> None:
    """Close the newest attempt of a job."""
    attempt = attempts(session, job_id)[-1]
    attempt.ended = at
    attempt.outcome = outcome
    attempt.detail = detail


def results(session: Session, job_id: int) -> list[tuple[Instance, Series]]:
    """The produced instances of a job with their series."""
    rows = session.execute(
        select(Instance, Series).join(Series, Series.id == Instance.series_id).where(Instance.job_id == job_id)
    )
    return [(row[0], row[1]) for row in rows]
