"""What a person may change, each as one transaction; the control socket and the command line both call it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import load_only

from config.destinations import AnyDestination, WebDestination
from daemon import deliver, dispatch
from daemon.index import CONFLICT, PATIENT_MISMATCH
from daemon.node import Turn
from daemon.retention import DELIVERED
from db import deliveries, jobs, schema, studies
from db.moves import move, note
from db.states import DeliveryState, InstanceState, JobState, SeriesState, StudyState
from dicom_io.statuses import STORE_WARNINGS, warning_of

JOB_LIMIT = 500
BRIEF = (
    schema.Job.study_id,
    schema.Job.rule,
    schema.Job.engine,
    schema.Job.state,
    schema.Job.reason_code,
    schema.Job.reason,
    schema.Job.attempts,
    schema.Job.interruptions,
    schema.Job.created,
    schema.Job.finished,
)
"""What `brief_job` says of a job: without its inputs, which name every instance, and its manifest."""
SENT = (DeliveryState.ACCEPTED, DeliveryState.COMMITTED, DeliveryState.SEEN)
GIVEN_UP = (DeliveryState.FAILED, DeliveryState.DEAD)


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
    again = deliveries.of_job(turn.session, job_id, GIVEN_UP)
    if not again:
        raise CannotDo(f"job {job_id} is {job.state} and none of its deliveries failed; `jobs rerun` computes anew")
    for delivery in again:
        deliveries.send_again(turn.session, delivery, reason="retry", actor=actor, at=turn.now)
    return describe_job(turn, job)


def resend(turn: Turn, job_id: int, *, to: str | None, actor: str) -> dict[str, Any]:
    """Send the stored results of a finished job once more, byte for byte: to where they went, or to one destination."""
    job = job_row(turn, job_id)
    if job.state not in {JobState.DONE, JobState.REJECTED} or not jobs.results(turn.session, job_id):
        raise CannotDo(f"job {job_id} is {job.state} and has no results to send")
    states = [*SENT, *GIVEN_UP]
    if to is not None:
        known_destination(turn, to)
        deliver.send_results(turn, job, to)
        states += [DeliveryState.HELD, DeliveryState.WITHDRAWN]
    for delivery in deliveries.of_job(turn.session, job_id, states):
        if to in {None, delivery.destination}:
            deliveries.send_again(turn.session, delivery, reason="resend", actor=actor, at=turn.now)
    where = f" to {to}" if to else ""
    note(turn.session, job, reason=f"results sent again{where}", actor=actor, at=turn.now)
    return describe_job(turn, job)


def known_destination(turn: Turn, name: str) -> AnyDestination:
    """The settings of a destination."""
    if name not in turn.node.settings.destinations:
        known = ", ".join(sorted(turn.node.settings.destinations)) or "none is configured"
        raise CannotDo(f"there is no destination {name!r}; expected one of: {known}")
    return turn.node.settings.destinations[name]


def pause(turn: Turn, name: str, *, because: str, actor: str) -> dict[str, Any]:
    """Send nothing to a destination, and ask nothing of it, until it is resumed; what is being sent is finished."""
    known_destination(turn, name)
    row = turn.session.get(schema.Pause, name)
    if row is not None:
        raise CannotDo(f"{name} is paused already, by {row.paused_by} since {row.since:%Y-%m-%d %H:%M} UTC")
    row = schema.Pause(destination=name, since=turn.now, paused_by=actor, because=because)
    turn.session.add(row)
    note(turn.session, row, reason="paused", actor=actor, at=turn.now, data=because)
    return describe_destination(turn, name)


def resume(turn: Turn, name: str, *, because: str, actor: str) -> dict[str, Any]:
    """Let a paused destination go on; the time it was paused does not count against what waits for it."""
    known_destination(turn, name)
    row = turn.session.get(schema.Pause, name)
    if row is None:
        raise CannotDo(f"{name} is not paused")
    note(turn.session, row, reason="resumed", actor=actor, at=turn.now, data=because)
    for delivery in deliveries.in_state(turn.session, DeliveryState.QUEUED):
        if delivery.destination == name:
            delivery.first_due += turn.now - max(row.since, delivery.first_due)
    turn.session.delete(row)
    turn.session.flush()
    return describe_destination(turn, name)


def list_destinations(turn: Turn) -> list[dict[str, Any]]:
    """Every configured destination: what it has to prove, whether it is paused, and what waits for it."""
    return [describe_destination(turn, name) for name in sorted(turn.node.settings.destinations)]


def address_of(destination: AnyDestination) -> dict[str, Any]:
    """Where a destination is and what it is called there."""
    if isinstance(destination, WebDestination):
        return {"address": destination.url, "ae_title": None}
    return {"address": f"{destination.host}:{destination.port}", "ae_title": destination.ae_title}


def describe_destination(turn: Turn, name: str) -> dict[str, Any]:
    """One destination as people see it."""
    settings, row = known_destination(turn, name), turn.session.get(schema.Pause, name)
    counts = turn.session.execute(
        select(schema.Delivery.state, func.count())
        .where(schema.Delivery.state.in_(list(DeliveryState)), schema.Delivery.destination == name)
        .group_by(schema.Delivery.state)
    )
    return {
        "name": name,
        **address_of(settings),
        "objects": list(settings.objects),
        "proof": settings.proof,
        "paused": row is not None,
        "since": row.since.isoformat() if row is not None else None,
        "by": row.paused_by if row is not None else None,
        "because": row.because if row is not None else None,
        "deliveries": {str(state): number for state, number in counts},
    }


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
        "instance": row.instance_id,
        "destination": row.destination,
        "state": row.state,
        "proof": row.proof,
        "proven": row.state in DELIVERED[schema.Proof(row.proof)],
        "status": row.status_hex,
        "warning": warning_of(int(row.status_hex, 16)) if row.status_hex else None,
        "tries": row.tries,
        "reason_code": row.reason_code,
        "reason": row.reason,
        "next": row.not_before.isoformat() if row.not_before else None,
    }


def history(turn: Turn, subject: str, row_id: int | str) -> list[dict[str, Any]]:
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


def list_jobs(turn: Turn, *, state: str | None, limit: int | None = JOB_LIMIT) -> list[dict[str, Any]]:
    """The newest jobs first.

    limit : how many at most; None for all
    """
    if state is not None and state not in set(JobState):
        raise CannotDo(f"there is no job state {state!r}; expected one of {', '.join(JobState)}")
    query = select(schema.Job).options(load_only(*BRIEF)).order_by(schema.Job.id.desc()).limit(limit)
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
        "delivery_warnings": warnings(turn),
        "commitments": counts(schema.Commitment.state),
        "paused": sorted(deliveries.pauses(turn.session)),
        "associations": counts(schema.Association.state),
        "quarantined": quarantined(turn),
        "conflicts": len(studies.conflicts(turn.session)),
        "coerced": turn.session.scalar(select(func.count()).select_from(schema.Event).where(schema.COERCED)),
    }


def warnings(turn: Turn) -> list[dict[str, Any]]:
    """Deliveries that were accepted with a warning, counted by destination and status."""
    rows = turn.session.execute(
        select(schema.Delivery.destination, schema.Delivery.status_hex, func.count())
        .where(schema.NO_PLAIN_SUCCESS, schema.Delivery.status_hex.in_([f"{status:04X}" for status in STORE_WARNINGS]))
        .group_by(schema.Delivery.destination, schema.Delivery.status_hex)
    )
    return [
        {"destination": name, "status": status, "warning": warning_of(int(status or "0", 16)), "instances": number}
        for name, status, number in rows
    ]


def quarantined(turn: Turn) -> list[dict[str, Any]]:
    """Unreadable objects, counted by sender and reason."""
    rows = turn.session.execute(
        select(schema.Quarantine.calling_ae, schema.Quarantine.code, func.count()).group_by(
            schema.Quarantine.calling_ae, schema.Quarantine.code
        )
    )
    return [{"calling_ae": sender, "code": code, "objects": number} for sender, code, number in rows]
