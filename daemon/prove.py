"""Accepted → committed → seen: a destination shows that it keeps what it said it took.

Storage commitment first, where the destination is to be asked for it, then C-FIND and perhaps C-GET. The request is in
the database before it is sent, so a report is understood whenever it comes: on the association of the request, on a
later one, after a restart, or after we had stopped waiting.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeGuard

from config.destinations import AnyDestination, DimseDestination
from daemon.deliver import BATCH, fall_back
from daemon.failures import Disposition, Failure, back_off, contain, pause_since
from daemon.node import Node, Turn
from db import commitments, deliveries, schema
from db.moves import move
from db.states import CommitmentState, DeliveryState
from dicom_io import commitment, exchange
from dicom_io.commitment import Reference, Statement
from dicom_io.errors import UnreadableObject
from dicom_io.query import Wanted
from dicom_io.sameness import CONFLICTING
from dicom_io.sandbox import Sandbox
from dicom_io.statuses import NO_SUCH_OBJECT_INSTANCE, failure_word

ACTOR = "prove"
READER_MEMORY_BYTES = 2 * 2**30
READER_TIMEOUT_S = 30.0
NO_REPORT = Failure(Disposition.RETRY, "no-commitment-report", "no storage commitment report came in time", "")
NOT_FOUND = Failure(Disposition.REJECT, "not-found", "it was accepted, but a query does not find it there", "")
NOT_FETCHED = Failure(Disposition.REJECT, "not-fetched", "it is found there, but cannot be fetched", "")
DIFFERENT = Failure(Disposition.REJECT, "content-differs", "the destination holds something else under its UID", "")


def prove(node: Node, name: str) -> int:
    """Do what is due to prove the deliveries of one destination; how many instances or requests it was about."""
    destination = node.settings.destinations[name]
    expired = expire(node, name)
    with node.glance() as glance:
        if not deliveries.any_unproven(glance.session, name):
            return expired
    return expired + ask(node, name, destination) + look(node, name, destination)


def asks_commitment(destination: AnyDestination) -> TypeGuard[DimseDestination]:
    """Whether a destination is asked for storage commitment before it is looked at what it has."""
    return isinstance(destination, DimseDestination) and destination.proving.ask_commitment


# --- storage commitment ---------------------------------------------------------------------------------------------


def ask(node: Node, name: str, destination: AnyDestination) -> int:
    """Ask for the storage commitment of one batch; the transaction is written down before it is sent."""
    if not asks_commitment(destination):
        return 0
    with node.glance() as glance:
        if not deliveries.uncommitted(glance.session, name, now=glance.now, limit=1):
            return 0
    with node.turn() as turn:
        rows = deliveries.uncommitted(turn.session, name, now=turn.now, limit=BATCH)
        if not rows:
            return 0
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        for delivery, _ in rows:
            delivery.transaction_uid, delivery.not_before = transaction_uid, None
        commitments.add(
            turn.session,
            transaction_uid,
            role=schema.CommitmentRole.SCU,
            peer=name,
            items=[{"delivery": delivery.id, "sop_instance": instance.sop_uid} for delivery, instance in rows],
            at=turn.now,
            deadline=turn.now + timedelta(seconds=destination.proving.report_s),
        )
    references = tuple(Reference(instance.sop_class_uid, instance.sop_uid) for _, instance in rows)
    fault = contain(
        lambda: commitment.ask(
            destination,
            Statement(transaction_uid, references),
            wait_s=destination.proving.same_association_s,
            hear=lambda report: hear(node, report),
        )
    )
    if fault is not None:
        failure = Failure.of(fault)
        node.log.warning("commitment-not-asked", destination=name, code=failure.code, instances=len(rows))
        give_up_request(node, transaction_uid, destination, failure)
    return len(rows)


def hear(node: Node, report: Statement) -> None:
    """A storage commitment report: what is kept goes up, what is not there is sent again, the rest has failed."""
    with node.turn() as turn:
        request = commitments.by_transaction(turn.session, report.transaction_uid)
        known = request is not None and request.role == schema.CommitmentRole.SCU
        if request is None or not known or request.state not in {CommitmentState.ASKED, CommitmentState.TIMED_OUT}:
            node.log.warning("report-ignored", known=known, state=request.state if request is not None else None)
            return
        failures = {one.sop_instance_uid: one for one in report.failed}
        kept = {one.sop_instance_uid for one in report.referenced} - set(failures)
        asked = [item["sop_instance"] for item in request.items]
        for item in request.items:
            delivery = turn.session.get_one(schema.Delivery, item["delivery"])
            if delivery.state == DeliveryState.ACCEPTED and not is_older(request, delivery):
                conclude(turn, delivery, item["sop_instance"], kept, failures)
        count = len(kept & set(asked))
        verdict = CommitmentState.CONFIRMED if count == len(asked) else CommitmentState.PARTLY
        verdict = verdict if count else CommitmentState.REFUSED
        reason = f"{count} of {len(asked)} kept"
        move(turn.session, request, verdict, reason=reason, actor=report.calling_ae or request.peer, at=turn.now)


def is_older(request: schema.Commitment, delivery: schema.Delivery) -> bool:
    """Whether an instance was sent and accepted once more after the request."""
    return delivery.accepted_at is not None and delivery.accepted_at > request.requested


def conclude(
    turn: Turn, delivery: schema.Delivery, sop_uid: str, kept: set[str], failures: Mapping[str, Reference]
) -> None:
    """Move one delivery as the report says; what it does not mention is asked about again."""
    destination = turn.node.settings.destinations.get(delivery.destination)
    if destination is None:
        return
    if sop_uid in kept:
        advance(turn, delivery, DeliveryState.COMMITTED)
    elif sop_uid not in failures:
        again(turn, delivery, destination, NO_REPORT)
    elif failures[sop_uid].failure == NO_SUCH_OBJECT_INSTANCE:
        resend(turn, delivery, destination)
    else:
        reason = failures[sop_uid].failure
        words = "not committed" if reason is None else f"not committed, reason 0x{reason:04X}"
        fail(turn, delivery, Failure(Disposition.REJECT, failure_word(reason), words, ""))


def resend(turn: Turn, delivery: schema.Delivery, destination: AnyDestination) -> None:
    """The destination does not have what it accepted: the same bytes go again, until the time for that is over."""
    delivery.reason_code = failure_word(NO_SUCH_OBJECT_INSTANCE)
    delivery.reason = "it was accepted, but the destination says that it does not have it"
    delivery.transaction_uid = None
    if turn.now - delivery.first_due > timedelta(seconds=destination.retry.give_up_after_s):
        state = DeliveryState.DEAD
    else:
        state, retry = DeliveryState.QUEUED, destination.retry
        wait = back_off(max(1, delivery.tries), first_s=retry.first_s, max_s=retry.max_s, rng=turn.node.rng)
        delivery.not_before = turn.now + wait
    move(turn.session, delivery, state, reason=delivery.reason_code, actor=ACTOR, at=turn.now)


def expire(node: Node, name: str) -> int:
    """Requests whose report has not come in time are made again, under another Transaction UID."""
    with node.glance() as glance:
        late = [row.transaction_uid for row in commitments.overdue(glance.session, name, glance.now)]
    for transaction_uid in late:
        give_up_request(node, transaction_uid, node.settings.destinations[name], NO_REPORT)
    return len(late)


def give_up_request(node: Node, transaction_uid: str, destination: AnyDestination, failure: Failure) -> None:
    """No report will come, or none came: its instances are asked about again, or have failed for good."""
    with node.turn() as turn:
        request = commitments.by_transaction(turn.session, transaction_uid)
        if request is None or request.state != CommitmentState.ASKED:
            return  # the report came after all
        permanent = failure.disposition is Disposition.REJECT
        verdict = CommitmentState.REFUSED if permanent else CommitmentState.TIMED_OUT
        request.reason = failure.code
        move(turn.session, request, verdict, reason=failure.code, actor=ACTOR, at=turn.now)
        for delivery in deliveries.of_transaction(turn.session, transaction_uid):
            if delivery.state == DeliveryState.ACCEPTED and permanent:
                fail(turn, delivery, failure)
            elif delivery.state == DeliveryState.ACCEPTED:
                again(turn, delivery, destination, failure)


def again(turn: Turn, delivery: schema.Delivery, destination: AnyDestination, failure: Failure) -> None:
    """Try the same proof once more later: unheard requests are counted, an unreachable peer only costs time."""
    delivery.reason_code, delivery.reason = failure.code, failure.message
    delivery.transaction_uid = None
    since, retry = delivery.accepted_at or turn.now, destination.retry
    if failure.code in {NO_REPORT.code, NOT_FOUND.code, NOT_FETCHED.code}:
        delivery.proof_tries += 1
        over = delivery.proof_tries >= destination.proving.attempts
        wait = back_off(delivery.proof_tries, first_s=retry.first_s, max_s=retry.max_s, rng=turn.node.rng)
    else:
        over = turn.now - since > timedelta(seconds=retry.give_up_after_s)
        wait = pause_since(since, turn.now, first_s=retry.first_s, max_s=retry.max_s, rng=turn.node.rng)
    if not over:
        delivery.not_before = turn.now + wait
        return
    state = DeliveryState.FAILED if failure.disposition is Disposition.REJECT else DeliveryState.DEAD
    delivery.not_before = None
    move(turn.session, delivery, state, reason=failure.code, actor=ACTOR, at=turn.now)


def advance(turn: Turn, delivery: schema.Delivery, rung: DeliveryState) -> None:
    """One rung up; the warning with which it was accepted stays in `status_hex`."""
    delivery.transaction_uid = delivery.not_before = None
    delivery.proof_tries = 0
    delivery.reason_code, delivery.reason = None, None
    move(turn.session, delivery, rung, reason="", actor=ACTOR, at=turn.now)


def fail(turn: Turn, delivery: schema.Delivery, failure: Failure) -> None:
    """The destination does not keep it, and asking again will not change that."""
    delivery.transaction_uid = delivery.not_before = None
    delivery.reason_code, delivery.reason = failure.code, failure.message
    move(turn.session, delivery, DeliveryState.FAILED, reason=failure.code, actor=ACTOR, at=turn.now)
    fall_back(turn, delivery)


# --- seen -----------------------------------------------------------------------------------------------------------


def look(node: Node, name: str, destination: AnyDestination) -> int:
    """Look for one batch at a destination."""
    below = DeliveryState.COMMITTED if asks_commitment(destination) else DeliveryState.ACCEPTED
    with node.glance() as glance:
        rows = deliveries.unseen(glance.session, name, below, now=glance.now, limit=BATCH)
    if not rows:
        return 0
    wanted = {
        delivery.id: Wanted(study.study_uid, series.series_uid, instance.sop_uid, instance.sop_class_uid, instance.size)
        for delivery, instance, series, study in rows
    }
    stored = {instance.sop_uid: node.folders.data / instance.path for _, instance, _, _ in rows}
    missing: dict[str, Failure] = {}
    fault = contain(lambda: missing.update(absences(node, destination, list(wanted.values()), stored)))
    if fault is not None:
        failure = Failure.of(fault)
        node.log.warning("not-looked-for", destination=name, code=failure.code, instances=len(rows))
        missing = dict.fromkeys(stored, failure)
    with node.turn() as turn:
        for delivery_id, one in wanted.items():
            delivery = turn.session.get_one(schema.Delivery, delivery_id)
            if delivery.state == below:
                judge(turn, delivery, destination, missing.get(one.sop_instance_uid))
    return len(rows)


def judge(turn: Turn, delivery: schema.Delivery, destination: AnyDestination, failure: Failure | None) -> None:
    """Seen, looked for again, or failed."""
    if failure is None:
        advance(turn, delivery, DeliveryState.SEEN)
    elif failure.disposition is Disposition.REJECT and failure.code not in {NOT_FOUND.code, NOT_FETCHED.code}:
        fail(turn, delivery, failure)
    else:
        again(turn, delivery, destination, failure)


def absences(
    node: Node, destination: AnyDestination, wanted: Sequence[Wanted], stored: Mapping[str, Path]
) -> dict[str, Failure]:
    """What is wrong with each instance at the destination, by SOP Instance UID; nothing for those that are well.

    stored : SOP Instance UID → the file that was sent
    """
    found = exchange.find(destination, wanted)
    missing = {one.sop_instance_uid: NOT_FOUND for one in wanted if one.sop_instance_uid not in found}
    if destination.proving.verify == "found" or not found:
        return missing
    there = [one for one in wanted if one.sop_instance_uid in found]
    with tempfile.TemporaryDirectory(dir=node.folders.run) as folder:
        fetched = exchange.fetch(destination, there, Path(folder))
        missing |= {one.sop_instance_uid: NOT_FETCHED for one in there if one.sop_instance_uid not in fetched}
        return missing | dict.fromkeys(differing(fetched, stored), DIFFERENT)


def differing(fetched: Mapping[str, Path], stored: Mapping[str, Path]) -> Iterable[str]:
    """Those that are not what was sent: pixels, or anything that gives them a meaning; names may be coerced."""
    if not fetched:
        return []
    with Sandbox(READER_MEMORY_BYTES, READER_TIMEOUT_S) as sandbox:
        return [uid for uid, path in fetched.items() if differs(sandbox, stored[uid], path)]


def differs(sandbox: Sandbox, sent: Path, came: Path) -> bool:
    """Whether two copies of one object contradict each other; what cannot be read is no copy."""
    try:
        return sandbox.compare(sent, came).verdict == CONFLICTING
    except UnreadableObject:
        return True
