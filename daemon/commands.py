"""What a person may change, each as one transaction; the control socket and the command line both call it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from daemon import dispatch
from daemon.index import CONFLICT, PATIENT_MISMATCH
from daemon.node import Turn
from db import deliveries, jobs, schema, studies
from db.moves import move, note
from db.states import DeliveryState, InstanceState, JobState, SeriesState, StudyState

JOB_LIMIT = 500


class CannotDo(Exception):
    """A command that makes no sense for this row; the text says why and what would."""


def job_row(turn: Turn, job_id: int) -> schema.Job:
    """The job of that number."""
    job = turn.session.get(schema.Job, job_id)
    if job is None:
        raise CannotDo(f"there is no job {job_id}; see `tracerd jobs list`")
    return job


def release(turn: Turn, job_id: int, *, because: str, actor: str) -> dict[str, Any]:
    """A held job runs after all, or held results are sent; the reason is kept as an override."""
    job = job_row(turn, job_id)
    if not because.strip():
        raise CannotDo("say why with --because; it is kept in the history")
    if job.state == JobState.HELD:
        if job.reason_code == CONFLICT:
            raise CannotDo("copies conflict: decide with `tracerd conflicts accept` or `discard`")
        if job.reason_code == PATIENT_MISMATCH:
            study = turn.session.get_one(schema.Study, job.study_id)
            note(turn.session, study, reason=f"released {PATIENT_MISMATCH}", actor=actor, at=turn.now, data=because)
        move(turn.session, job, JobState.WAITING, reason=f"released: {because}", actor=actor, at=turn.now)
        return describe_job(turn, job)
    held = deliveries.of_job(turn.session, job_id, [DeliveryState.HELD])
    if not held:
        raise CannotDo(f"job {job_id} is {job.state} and nothing of it is held")
    for delivery in held:
        move(turn.session, delivery, DeliveryState.QUEUED, reason=f"released: {because}", actor=actor, at=turn.now)
    return describe_job(turn, job)


def retry(turn: Turn, job_id: int, *, actor: str) -> dict[str, Any]:
    """A dead job gets its attempts back; failed deliveries of a finished one are sent again, byte for byte."""
    job = job_row(turn, job_id)
    if job.state == JobState.DEAD:
        job.attempts, job.interruptions, job.not_before = 0, 0, None
        move(turn.session, job, JobState.WAITING, reason="retry", actor=actor, at=turn.now)
        return describe_job(turn, job)
    again = deliveries.of_job(turn.session, job_id, [DeliveryState.FAILED, DeliveryState.DEAD])
    if not again:
        raise CannotDo(f"job {job_id} is {job.state} and none of its deliveries failed; `jobs rerun` computes anew")
    for delivery in again:
        delivery.first_due, delivery.not_before = turn.now, None
        move(turn.session, delivery, DeliveryState.QUEUED, reason="retry", actor=actor, at=turn.now)
    return describe_job(turn, job)


def rerun(turn: Turn, job_id: int, *, actor: str) -> dict[str, Any]:
    """Compute again under new UIDs; the new results replace the old ones."""
    job = job_row(turn, job_id)
    if job.state not in {JobState.DONE, JobState.REJECTED, JobState.DEAD, JobState.CANCELLED}:
        raise CannotDo(f"job {job_id} is {job.state}; only a finished job can be run again")
    rules = {rule.name: rule for rule in turn.node.settings.rules}
    if job.rule not in rules:
        raise CannotDo(f"rule {job.rule} is not in the configuration any more")
    highest = turn.session.scalar(
        select(func.max(schema.Job.rerun)).where(schema.Job.study_id == job.study_id, schema.Job.rule == job.rule)
    )
    inputs = {slot: wanted["series"] for slot, wanted in job.inputs.items()}
    order = dispatch.Order(job.study_id, rules[job.rule], job.decision_id, inputs, rerun=(highest or 0) + 1)
    new = dispatch.ensure_job(turn, order)
    note(turn.session, new, reason=f"rerun of job {job_id}", actor=actor, at=turn.now)
    return describe_job(turn, new)


def cancel(turn: Turn, job_id: int, *, actor: str) -> dict[str, Any]:
    """Stop a job: at once when it waits, by ending its worker when it runs."""
    job = job_row(turn, job_id)
    targets = {JobState.RUNNING: JobState.CANCELLING}
    targets |= dict.fromkeys((JobState.WAITING, JobState.HELD, JobState.DEAD), JobState.CANCELLED)
    if job.state not in targets:
        raise CannotDo(f"job {job_id} is {job.state}: too late to cancel")
    move(turn.session, job, targets[JobState(job.state)], reason="on request", actor=actor, at=turn.now)
    return describe_job(turn, job)


def accept_conflict(turn: Turn, series_id: int, *, because: str, actor: str) -> dict[str, Any]:
    """The newest conflicting copies take the place of the current ones, and the rules are asked again."""
    series, copies = conflicting(turn, series_id)
    newest = {copy.sop_uid: copy for copy in copies}
    for copy in copies:
        if newest[copy.sop_uid] is not copy:
            move(turn.session, copy, InstanceState.SUPERSEDED, reason="a newer copy came", actor=actor, at=turn.now)
    for copy in newest.values():
        for held in studies.copies(turn.session, copy.sop_uid):
            if held.state == InstanceState.CURRENT:
                reason = f"replaced by instance {copy.id}: {because}"
                move(turn.session, held, InstanceState.SUPERSEDED, reason=reason, actor=actor, at=turn.now)
        move(turn.session, copy, InstanceState.CURRENT, reason=f"accepted: {because}", actor=actor, at=turn.now)
    study = turn.session.get_one(schema.Study, series.study_id)
    if series.state != SeriesState.ARRIVING:
        move(turn.session, series, SeriesState.ARRIVING, reason="correction accepted", actor=actor, at=turn.now)
    if study.state != StudyState.COLLECTING:
        study.generation += 1
        move(turn.session, study, StudyState.COLLECTING, reason="correction accepted", actor=actor, at=turn.now)
    study.due = turn.now
    free_jobs(turn, study, to=JobState.CANCELLED, actor=actor)
    return {"series": series_id, "accepted": len(newest)}


def discard_conflict(turn: Turn, series_id: int, *, because: str, actor: str) -> dict[str, Any]:
    """The conflicting copies are set aside (kept on disk), and held jobs go on with what came first."""
    series, copies = conflicting(turn, series_id)
    for copy in copies:
        move(turn.session, copy, InstanceState.SUPERSEDED, reason=f"discarded: {because}", actor=actor, at=turn.now)
    study = turn.session.get_one(schema.Study, series.study_id)
    free_jobs(turn, study, to=JobState.WAITING, actor=actor)
    return {"series": series_id, "discarded": len(copies)}


def conflicting(turn: Turn, series_id: int) -> tuple[schema.Series, list[schema.Instance]]:
    """A series and its conflicting copies."""
    series = turn.session.get(schema.Series, series_id)
    copies = studies.conflicting_instances(turn.session, series_id)
    if series is None or not copies:
        raise CannotDo(f"series {series_id} has no conflicting copies; see `tracerd conflicts list`")
    return series, copies


def free_jobs(turn: Turn, study: schema.Study, *, to: JobState, actor: str) -> None:
    """Jobs that waited for a decision about copies go on, or give way to the ones the corrected copies will make."""
    if studies.conflicts(turn.session, study.id):
        return
    for job in jobs.of_study(turn.session, study.id, [JobState.HELD]):
        if job.reason_code == CONFLICT:
            move(turn.session, job, to, reason="conflict decided", actor=actor, at=turn.now)


def describe_job(turn: Turn, job: schema.Job) -> dict[str, Any]:
    """Everything `jobs show` prints."""
    outputs = [
        {"instance": instance.id, "modality": series.modality, "path": instance.path}
        for instance, series in jobs.results(turn.session, job.id)
    ]
    return {
        **brief_job(job),
        "engine_version": job.engine_version,
        "parameters": job.parameters,
        "inputs": {
            slot: {"series": wanted["series"], "instances": len(wanted["instances"])}
            for slot, wanted in job.inputs.items()
        },
        "supersedes": job.supersedes,
        "rerun": job.rerun,
        "seconds": (job.manifest or {}).get("seconds"),
        "suv_reference": (job.manifest or {}).get("suv_reference"),
        "findings": (job.manifest or {}).get("findings"),
        "warnings": (job.manifest or {}).get("warnings", []),
        "outputs": outputs,
        "tries": [
            {"n": row.n, "worker": row.worker, "outcome": row.outcome, "detail": row.detail}
            for row in jobs.attempts(turn.session, job.id)
        ],
        "deliveries": [describe_delivery(row) for row in deliveries.of_job(turn.session, job.id)],
        "history": history(turn, schema.Job.__tablename__, job.id),
    }


def brief_job(job: schema.Job) -> dict[str, Any]:
    """One line of `jobs list`."""
    return {
        "id": job.id,
        "study": job.study_id,
        "rule": job.rule,
        "engine": job.engine,
        "state": job.state,
        "reason_code": job.reason_code,
        "reason": job.reason,
        "attempts": job.attempts,
        "interruptions": job.interruptions,
        "created": job.created.isoformat(),
        "finished": job.finished.isoformat() if job.finished else None,
    }


def describe_delivery(row: schema.Delivery) -> dict[str, Any]:
    """One delivery as people see it."""
    return {
        "destination": row.destination,
        "state": row.state,
        "status": row.status_hex,
        "tries": row.tries,
        "reason": row.reason,
        "next": row.not_before.isoformat() if row.not_before else None,
    }


def history(turn: Turn, subject: str, row_id: int) -> list[dict[str, Any]]:
    """The events of a row in order."""
    events = turn.session.scalars(
        select(schema.Event)
        .where(schema.Event.subject_type == subject, schema.Event.subject_id == str(row_id))
        .order_by(schema.Event.id)
    )
    return [
        {"at": event.at.isoformat(), "actor": event.actor, "to": event.to_state, "reason": event.reason}
        for event in events
    ]


def list_jobs(turn: Turn, *, state: str | None) -> list[dict[str, Any]]:
    """The newest jobs first."""
    if state is not None and state not in set(JobState):
        raise CannotDo(f"there is no job state {state!r}; expected one of {', '.join(JobState)}")
    query = select(schema.Job).order_by(schema.Job.id.desc()).limit(JOB_LIMIT)
    if state is not None:
        query = query.where(schema.Job.state == JobState(state))
    return [brief_job(job) for job in turn.session.scalars(query)]


def list_conflicts(turn: Turn) -> list[dict[str, Any]]:
    """Series with copies that contradict each other, and in what."""
    found = []
    for series, count in studies.conflicts(turn.session):
        first = studies.conflicting_instances(turn.session, series.id)[0]
        events = turn.session.scalars(
            select(schema.Event).where(
                schema.Event.subject_type == schema.Instance.__tablename__,
                schema.Event.subject_id == str(first.id),
                schema.Event.reason == CONFLICT,
            )
        )
        differing = sorted({word for event in events for word in event.data or []})
        found.append(
            {
                "series": series.id,
                "study": series.study_id,
                "modality": series.modality,
                "copies": count,
                "differing": differing,
            }
        )
    return found


def status(turn: Turn) -> dict[str, Any]:
    """Counts of everything, for people and for monitoring."""

    def counts(column: Any) -> dict[str, int]:
        rows = turn.session.execute(select(column, func.count()).group_by(column))
        return {str(state): number for state, number in rows}

    return {
        "at": turn.now.isoformat(),
        "suv_self_test": turn.node.verification.to_json() if turn.node.verification else None,
        "inbox": sum(1 for path in turn.node.spool.inbox.iterdir() if path.suffix == ".dcm"),
        "studies": counts(schema.Study.state),
        "series": counts(schema.Series.state),
        "instances": counts(schema.Instance.state),
        "jobs": counts(schema.Job.state),
        "deliveries": counts(schema.Delivery.state),
        "associations": counts(schema.Association.state),
        "quarantined": quarantined(turn),
        "conflicts": len(studies.conflicts(turn.session)),
        "coerced": turn.session.scalar(
            select(func.count()).select_from(schema.Event).where(schema.Event.reason == "coerced")
        ),
    }


def quarantined(turn: Turn) -> list[dict[str, Any]]:
    """Unreadable objects, counted by sender and reason."""
    rows = turn.session.execute(
        select(schema.Quarantine.calling_ae, schema.Quarantine.code, func.count()).group_by(
            schema.Quarantine.calling_ae, schema.Quarantine.code
        )
    )
    return [{"calling_ae": sender, "code": code, "objects": number} for sender, code, number in rows]
