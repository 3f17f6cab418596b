"""Stored bytes → destinations, instance by instance, until the destination has answered for each.

A delivery is `sending` from before the first byte until the answer is recorded. A crash in between leaves it so, and
the next start sends the same bytes again: a PACS then holds one instance either way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta

from config.destinations import AnyDestination, Destination
from daemon import profile
from daemon.failures import Disposition, Failure, back_off
from daemon.node import Node, Turn
from db import deliveries, jobs, schema
from db.moves import move
from db.states import DeliveryState, JobState
from dicom_io.exchange import send
from dicom_io.sender import Outgoing, Sent
from dicom_io.statuses import NOT_TAKEN

ACTOR = "deliver"
BATCH = 200
"""Instances of one association; a long queue of originals is sent in several."""


SENDS = frozenset({schema.JobMode.CLINICAL, schema.JobMode.CANARY})
"""Modes of jobs whose results leave the node."""


def destinations_of(node: Node, job: schema.Job) -> dict[str, AnyDestination]:
    """Whom the results of a job are for, as far as they are still configured."""
    known = node.settings.destinations
    wanted = job.destinations if job.mode in SENDS else []
    return {name: known[name] for name in wanted if name in known}


def enqueue(
    turn: Turn, instance_ids: Iterable[int], name: str, *, job: schema.Job | None, released: bool = False
) -> None:
    """Add the missing deliveries of instances to a destination; `release: by-person` makes them wait for one.

    released : a person has let the job's results go already
    """
    destination = turn.node.settings.destinations[name]
    held = destination.release == "by-person" and job is not None and not released
    deliveries.enqueue(
        turn.session,
        instance_ids,
        destination=name,
        job_id=job.id if job else None,
        proof=schema.Proof(destination.proof),
        state=DeliveryState.HELD if held else DeliveryState.QUEUED,
        at=turn.now,
    )


def send_results(turn: Turn, job: schema.Job, name: str) -> None:
    """Queue what a destination gets of a job's results."""
    wanted = profile.sent(turn.node.settings.destinations[name])
    enqueue(turn, produced(turn, job, wanted), name, job=job)


def produced(turn: Turn, job: schema.Job, wanted: Collection[str]) -> list[int]:
    """The instances of some kinds that a job produced, in the order in which they were written."""
    kind = kinds(job)
    return [row.id for row, _ in jobs.results(turn.session, job.id) if kind[row.sop_uid] in wanted]


def kinds(job: schema.Job) -> dict[str, str]:
    """The kind of each object that a job produced, by its SOP Instance UID."""
    return {output["sop_uid"]: output["kind"] for output in (job.manifest or {}).get("outputs", ())}


def add_destinations(turn: Turn, job: schema.Job, names: Iterable[str]) -> None:
    """Another rule wants the same results elsewhere: send them there too, at once if they exist already."""
    new = [name for name in names if name not in job.destinations]
    if not new:
        return
    job.destinations = [*job.destinations, *new]
    if job.state == JobState.DONE:
        for name in new:
            send_results(turn, job, name)


def withdraw(turn: Turn, job: schema.Job, *, reason: str) -> None:
    """Take back what of a replaced job has not been sent yet."""
    open_states = (DeliveryState.HELD, DeliveryState.QUEUED, DeliveryState.FAILED, DeliveryState.DEAD)
    for delivery in deliveries.of_job(turn.session, job.id, open_states):
        move(turn.session, delivery, DeliveryState.WITHDRAWN, reason=reason, actor=ACTOR, at=turn.now)


def recover(turn: Turn) -> int:
    """After a restart nobody knows what became of deliveries in flight: the same bytes go again."""
    unknown = deliveries.in_state(turn.session, DeliveryState.SENDING)
    for delivery in unknown:
        move(turn.session, delivery, DeliveryState.QUEUED, reason="node restarted", actor=ACTOR, at=turn.now)
    return len(unknown)


def deliver(node: Node, name: str) -> int:
    """Send what is due to one destination over one association; returns how many instances were tried."""
    destination = node.settings.destinations[name]
    with node.glance() as look:
        if not deliveries.is_due(look.session, name, now=look.now):
            return 0
    with node.turn() as turn:
        taken = deliveries.take(turn.session, name, now=turn.now, limit=BATCH)
        outgoing = [outgoing_file(node, instance) for _, instance in taken]
        waiting = {instance.sop_uid: delivery.id for delivery, instance in taken}
    if not taken:
        return 0
    for sent in too_large(outgoing, destination):
        settle(node, waiting.pop(sent.sop_instance_uid), destination, sent)
    outgoing = [file for file in outgoing if file.sop_instance_uid in waiting]
    try:
        for sent in send(outgoing, destination):
            settle(node, waiting.pop(sent.sop_instance_uid), destination, sent)
    except Exception as error:  # noqa: BLE001 - outer edge of one association: no destination may stop the node
        failure = Failure.of(error)
        node.log.warning("not-delivered", destination=name, code=failure.code, instances=len(waiting))
        permanent = failure.disposition is Disposition.REJECT
        for uid, delivery_id in waiting.items():
            answer = Sent(uid, status=None, error=failure.code, permanent=permanent, comment=failure.message)
            settle(node, delivery_id, destination, answer)
    return len(taken)


def too_large(files: Iterable[Outgoing], destination: Destination) -> Iterator[Sent]:
    """The verdict on what is larger than a destination may be sent."""
    limit = destination.object_bytes_max
    for file in files:
        if limit is not None and file.size > limit:
            words = f"{file.size} bytes, at most {limit} are sent"
            yield Sent(file.sop_instance_uid, None, "too-large", permanent=True, comment=words)


def outgoing_file(node: Node, instance: schema.Instance) -> Outgoing:
    """The stored file of an instance as the sender wants it."""
    return Outgoing(
        path=node.folders.data / instance.path,
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        size=instance.size,
        ours=instance.job_id is not None,
    )


def settle(node: Node, delivery_id: int, destination: Destination, sent: Sent) -> None:
    """Record one answer: accepted, try again later, refused for good, or given up."""
    with node.turn() as turn:
        delivery = turn.session.get_one(schema.Delivery, delivery_id)
        delivery.status_hex = None if sent.status is None else f"{sent.status:04X}"
        delivery.reason_code = sent.error
        delivery.reason = sent.comment or sent.error or ""
        delivery.sent_at = turn.now
        state = next_state(delivery, destination, sent, now=turn.now)
        if state == DeliveryState.ACCEPTED:
            delivery.accepted_at = turn.now
            delivery.proof_tries, delivery.transaction_uid = 0, None
        if state == DeliveryState.QUEUED:
            retry = destination.retry
            wait = back_off(delivery.tries, first_s=retry.first_s, max_s=retry.max_s, rng=node.rng)
            delivery.not_before = turn.now + wait
        reason = delivery.status_hex or sent.error or ""
        move(turn.session, delivery, state, reason=reason, actor=ACTOR, at=turn.now)
        if state == DeliveryState.FAILED:
            fall_back(turn, delivery)


def fall_back(turn: Turn, delivery: schema.Delivery) -> None:
    """Send another form of what a destination does not take, where the site names one and it was written."""
    destination = turn.node.settings.destinations.get(delivery.destination)
    if destination is None or delivery.job_id is None or delivery.reason_code not in NOT_TAKEN:
        return
    job = turn.session.get_one(schema.Job, delivery.job_id)
    kind = kinds(job)[turn.session.get_one(schema.Instance, delivery.instance_id).sop_uid]
    other = profile.instead(destination, kind)
    replacements = produced(turn, job, {other}) if other is not None else []
    if replacements:
        enqueue(turn, replacements, delivery.destination, job=job, released=True)
        delivery.reason = f"{delivery.reason}; {other} instead"
        move(turn.session, delivery, DeliveryState.WITHDRAWN, reason=f"{other} instead", actor=ACTOR, at=turn.now)


def next_state(delivery: schema.Delivery, destination: Destination, sent: Sent, *, now: datetime) -> DeliveryState:
    """Where an answer takes a delivery."""
    if sent.error is None:
        return DeliveryState.ACCEPTED
    if sent.permanent:
        return DeliveryState.FAILED
    if now - delivery.first_due > timedelta(seconds=destination.retry.give_up_after_s):
        return DeliveryState.DEAD
    return DeliveryState.QUEUED
