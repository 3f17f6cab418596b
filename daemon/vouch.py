"""Storage commitment for what scanners sent us: every object is read again before we say that we keep it.

A request is answered when all that was spooled before it is indexed. A scanner may delete its copy on our word, so the
word is about bytes: the file is there, it is the current copy, and its digest is still the one it was indexed with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from config.destinations import AE_TITLE, DimseDestination, Retry
from daemon.failures import Failure, back_off, contain
from daemon.node import Node, Turn
from db import commitments, schema, studies
from db.moves import move, note
from db.states import CommitmentState, InstanceState
from dicom_io.commitment import PROCESSING_FAILURE, Reference, Statement, tell
from dicom_io.errors import PeerRefused, UnreadableObject
from dicom_io.headers import Reading
from dicom_io.sandbox import Sandbox
from dicom_io.statuses import NO_SUCH_OBJECT_INSTANCE

ACTOR = "vouch"
READER_MEMORY_BYTES = 2 * 2**30
READER_TIMEOUT_S = 30.0
CLASS_INSTANCE_CONFLICT = 0x0119
DUPLICATE_TRANSACTION_UID = 0x0131
OPEN_MAX = 1000
"""Requests of one peer that wait for their answer; more are a fault of the peer."""
BLOCK_BYTES = 2**20


NO_ADDRESS = PeerRefused("no report_to is configured for the peer", code="no-address")


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy of an instance we can speak for.

    sha256 : of the file where it is a result of ours, of the decoded data set where it was received
    """

    instance_id: int
    path: Path
    sha256: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """One instance of a request: already refused, or kept as long as its copy is sound."""

    reference: Reference
    copy: Copy | None = None


def take(node: Node, request: Statement) -> None:
    """Write a peer's request down; it is answered by `answer`.

    The same request again (a peer that lost the report) is answered again; another one under a Transaction UID that was
    used before is answered with failure reason 0x0131 for each of its instances.
    """
    peer = request.calling_ae or ""
    with node.turn() as turn:
        known = commitments.by_transaction(turn.session, request.transaction_uid)
        if known is None:
            if waiting(turn, peer) >= OPEN_MAX:
                node.log.warning("commitment-requests-too-many", waiting=OPEN_MAX)
                return
            commitments.add(
                turn.session,
                request.transaction_uid,
                role=schema.CommitmentRole.SCP,
                peer=peer,
                items=items_of(request),
                at=turn.now,
            )
        elif known.role == schema.CommitmentRole.SCP and known.peer == peer:
            ask_again(turn, known, request)
        else:
            node.log.warning("commitment-request-ignored", reason="its Transaction UID belongs to somebody else")


def items_of(request: Statement, failure: int | None = None) -> list[dict[str, object]]:
    """The instances of a request as a row keeps them."""
    return [
        {
            "sop_class": one.sop_class_uid,
            "sop_instance": one.sop_instance_uid,
            "failure": failure,
            "called_ae": request.called_ae,
        }
        for one in request.referenced
    ]


def waiting(turn: Turn, peer: str) -> int:
    """How many requests of a peer have not been answered."""
    query = select(func.count()).where(
        schema.Commitment.peer == peer,
        schema.Commitment.role == schema.CommitmentRole.SCP,
        schema.Commitment.state == CommitmentState.ASKED,
    )
    return turn.session.scalar(query) or 0


def ask_again(turn: Turn, known: schema.Commitment, request: Statement) -> None:
    """A Transaction UID came a second time: answered once more, also where the first answer is on its way."""
    asked = {item["sop_instance"] for item in known.items}
    same = asked == {one.sop_instance_uid for one in request.referenced}
    known.items = items_of(request, None if same else DUPLICATE_TRANSACTION_UID)
    known.tries, known.not_before, known.requested = 0, None, turn.now
    reason = "asked again" if same else "Transaction UID used twice"
    if known.state == CommitmentState.ASKED:
        note(turn.session, known, reason=reason, actor=ACTOR, at=turn.now)
    else:
        move(turn.session, known, CommitmentState.ASKED, reason=reason, actor=ACTOR, at=turn.now)


def answer(node: Node) -> bool:
    """Look at what one request is about and report to the peer; True when there was one."""
    with node.glance() as glance:
        request = commitments.next_report(glance.session, glance.now)
        if request is None:
            return False
        claims = [claim(glance, item) for item in request.items]
    damaged = damages([one.copy for one in claims if one.copy is not None])
    if damaged and request.tries == 0:
        complain(node, damaged)
    verdicts = [verdict(one, damaged) for one in claims]
    report = Statement(
        request.transaction_uid,
        tuple(one for one in verdicts if one.failure is None),
        tuple(one for one in verdicts if one.failure is not None),
    )
    address = address_of(node, request)
    fault = NO_ADDRESS if address is None else contain(lambda: tell(address, report))
    with node.turn() as turn:
        told = turn.session.get_one(schema.Commitment, request.id)
        if told.requested == request.requested:  # else it was asked again meanwhile, and is answered again
            settle(turn, told, report, fault, None if address is None else address.retry)
    return True


def complain(node: Node, damaged: Mapping[int, str]) -> None:
    """Stored objects are not what they were: known to the operator before the peer hears of it."""
    node.log.critical("stored-objects-damaged", instances=sorted(damaged), hint="Look at the disk; send them again.")
    with node.turn() as turn:
        for instance_id, words in damaged.items():
            row = turn.session.get_one(schema.Instance, instance_id)
            note(turn.session, row, reason="damaged", actor=ACTOR, at=turn.now, data=words)


def claim(turn: Turn, item: Mapping[str, Any]) -> Claim:
    """What the database says about one instance of a request."""
    reference = Reference(item["sop_class"], item["sop_instance"], item["failure"])
    if reference.failure is not None:
        return Claim(reference)
    held = studies.copies(turn.session, reference.sop_instance_uid)
    if any(row.state == InstanceState.CONFLICTING for row in held):
        return Claim(replace(reference, failure=PROCESSING_FAILURE))  # which of them was meant, a person has to say
    current = next((row for row in held if row.state == InstanceState.CURRENT), None)
    if current is None:
        return Claim(replace(reference, failure=NO_SUCH_OBJECT_INSTANCE))
    if current.sop_class_uid != reference.sop_class_uid:
        return Claim(replace(reference, failure=CLASS_INSTANCE_CONFLICT))
    path = turn.node.folders.data / current.path
    return Claim(reference, Copy(current.id, path, current.content_sha256, ours=current.job_id is not None))


def verdict(one: Claim, damaged: Mapping[int, str]) -> Reference:
    """What the peer is told about one instance."""
    if one.copy is not None and one.copy.instance_id in damaged:
        return replace(one.reference, failure=PROCESSING_FAILURE)
    return one.reference


def damages(copies: Iterable[Copy]) -> dict[int, str]:
    """Id of each instance whose file is not what was stored → in which way."""
    received = [copy for copy in copies if not copy.ours]
    found = {copy.instance_id: file_damage(copy) for copy in copies if copy.ours}
    if received:
        with Sandbox(READER_MEMORY_BYTES, READER_TIMEOUT_S) as sandbox:
            readings = sandbox.read_many(copy.path for copy in received)
            for copy, reading in zip(received, readings, strict=True):
                found[copy.instance_id] = content_damage(copy, reading)
    return {instance_id: words for instance_id, words in found.items() if words}


def content_damage(copy: Copy, reading: Reading | UnreadableObject) -> str:
    """What is wrong with a received object that was read again; nothing where it is sound."""
    if isinstance(reading, UnreadableObject):
        return reading.code
    return "" if reading.content_sha256 == copy.sha256 else "digest-differs"


def file_damage(copy: Copy) -> str:
    """What is wrong with a result of ours; nothing where it is sound."""
    digest = hashlib.sha256()
    try:
        with copy.path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    except OSError:
        return "unreadable-file"
    return "" if digest.hexdigest() == copy.sha256 else "digest-differs"


def address_of(node: Node, request: schema.Commitment) -> DimseDestination | None:
    """Where the peer of a request listens, as the configuration says."""
    for peer in node.settings.peers:
        if peer.ae_title == request.peer and peer.report_to is not None:
            return DimseDestination(
                host=peer.report_to.host,
                port=peer.report_to.port,
                tls=peer.report_to.tls,
                ae_title=peer.ae_title,
                calling_ae_title=request.items[0]["called_ae"] or AE_TITLE,
                retry=peer.report_to.retry,
            )
    return None


def settle(
    turn: Turn, request: schema.Commitment, report: Statement, fault: Exception | None, retry: Retry | None
) -> None:
    """The peer has heard us, or is told again later, or has to ask again.

    retry : None where there is no address to report to
    """
    request.tries += 1
    kept, failed = len(report.referenced), len(report.failed)
    if fault is None:
        state = CommitmentState.CONFIRMED if not failed else CommitmentState.PARTLY
        request.reason = f"{kept} of {kept + failed} kept"
        state = state if kept else CommitmentState.REFUSED
        move(turn.session, request, state, reason=request.reason, actor=ACTOR, at=turn.now)
        return
    request.reason = Failure.of(fault).code
    turn.node.log.warning("report-not-delivered", commitment=request.id, code=request.reason, tries=request.tries)
    if retry is None or turn.now - request.requested > timedelta(seconds=retry.give_up_after_s):
        move(turn.session, request, CommitmentState.TIMED_OUT, reason=request.reason, actor=ACTOR, at=turn.now)
        return
    wait = back_off(request.tries, first_s=retry.first_s, max_s=retry.max_s, rng=turn.node.rng)
    request.not_before = turn.now + wait
