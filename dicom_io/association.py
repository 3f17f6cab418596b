"""One association, from the first byte of its request to the closed connection, in one thread that only ever waits.

This is the acceptor's half of the DICOM upper layer (PS3.8 9.2) for Verification, Storage and Storage Commitment.
pynetdicom's acceptor polls with two threads per association, collects whole messages in memory and has no limit on
what a peer claims; here every read has a deadline and a bound, and data sets go from the socket's buffer straight to
the spool.
"""

from __future__ import annotations

import math
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from config.settings import Door, Settings
from dicom_io import dimse
from dicom_io.admission import Complaints, peers_at, rejection_of
from dicom_io.ledger import OpenAssociation, Outcome, Tally, association_id, record_end, record_open
from dicom_io.offer import (
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    granted,
    is_storage,
    negotiate,
)
from dicom_io.reception import Reception, place
from dicom_io.seats import Seats
from dicom_io.spool import ACTION, EVENT, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Origin, Spool
from dicom_io.upper_layer import (
    ABORT_BY_USER,
    ABORT_UNEXPECTED,
    LOCAL_LIMIT_EXCEEDED,
    PDV_HEADER_BYTES,
    RELEASE_RP,
    Acceptor,
    AssociateRequest,
    BoundedStream,
    Fragment,
    PduType,
    PeerAborted,
    PeerGone,
    ProposedContext,
    ProtocolViolation,
    Rejection,
    TooSlow,
    decode_associate_request,
    encode_associate_accept,
    encode_associate_reject,
    encode_command,
    read_pdu_header,
)

BUFFER_BYTES = 256 * 1024
ASSOCIATE_BYTES_MAX = 128 * 1024
"""Longest A-ASSOCIATE-RQ: 128 contexts with 30 transfer syntaxes each have 115 KB."""
OTHER_DATA_SET_BYTES_MAX = 1024 * 1024
"""Longest data set of a request that is not C-STORE; it is read and forgotten."""
COMMITMENT_BYTES_MAX = 4 * 1024 * 1024
"""Longest storage commitment request or report: some thirty thousand instances with long UIDs."""
SMALL_FRAGMENT_BYTES = 512
SMALL_FRAGMENTS_FREE = 64
SMALL_FRAGMENTS_PER_PAUSE = 16
SMALL_FRAGMENTS_MAX = 10_000
PAUSE_S = 0.004
"""A message in crumbs costs time for each: after the free ones we pause between them, after too many we end it."""
COMMITMENT_SUFFIXES = {dimse.N_ACTION_RQ: ACTION, dimse.N_EVENT_REPORT_RQ: EVENT}
LINGER_S = 2.0
"""How long we wait for the peer to close after our last word (the ARTIM timer of PS3.8 9.1.5) …"""
LINGER_BYTES = 1024 * 1024
"""… and how much we let it say meanwhile."""


@dataclass(frozen=True, slots=True)
class Host:
    """What all associations of one process share; `stopping` is a descriptor that is readable once it has to end."""

    settings: Settings
    spool: Spool
    seats: Seats
    stopping: int
    log: Any
    complaints: Complaints


@dataclass(frozen=True, slots=True)
class Caller:
    """Who connected: to which door, from where, when (monotonic clock, seconds), and the seat that was taken."""

    door: Door
    address: str
    port: int
    arrived: float
    seat: int


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


class Association:
    """One peer's association; `hold` runs it to its end."""

    def __init__(self, connection: socket.socket, caller: Caller, host: Host) -> None:
        self._caller = caller
        self._host = host
        self._limits = host.settings.listener.limits
        self._stream = BoundedStream(connection, BUFFER_BYTES)
        self._contexts: dict[int, Context] = {}
        self._has_report_address = False
        self._peer_maximum_length = 0
        self._pdu_left = 0
        self._small_fragments = 0
        self._association_ends = math.inf
        self._message_ends = math.inf
        self._messages = 0
        self._tally = Tally()
        self._refusals: Counter[str] = Counter()

    def hold(self) -> None:
        """Run the association to its end. What a peer does raises nothing; defects of ours and a full disk may."""
        opened: OpenAssociation | None = None
        outcome = Outcome.LOST
        try:
            opened = self._open()
            if opened is not None:
                outcome = self._serve(opened)
        except PeerAborted:
            outcome = Outcome.ABORTED
        except PeerGone:
            outcome = Outcome.LOST
        except TooSlow:
            outcome = Outcome.TIMEOUT
            self._abort("too-slow", ABORT_BY_USER)
        except ProtocolViolation as violation:
            outcome = Outcome.ABORTED
            self._abort(violation.code, ABORT_UNEXPECTED)
        finally:
            if opened is not None:
                self._close(opened, outcome)

    # --- opening ------------------------------------------------------------------------------------------------

    def _open(self) -> OpenAssociation | None:
        """Negotiate; None when the request was rejected."""
        self._stream.deadline = self._caller.arrived + self._limits.handshake_s
        if not self._stream.wait(self._host.stopping):
            return None
        request = self._receive_request()
        peers = peers_at(self._host.settings, self._caller.address)
        rejection = rejection_of(request, self._caller.door, peers, self._host.settings)
        if rejection is None and not self._host.seats.admit(self._caller.seat):
            rejection = LOCAL_LIMIT_EXCEEDED
        if rejection is not None:
            self._reject(rejection)
            return None
        peer = next((peer for peer in peers if peer.ae_title == request.calling_ae), None)
        self._has_report_address = peer is not None and peer.report_to is not None
        return self._accept(request, peer.name if peer is not None else None)

    def _receive_request(self) -> AssociateRequest:
        kind, length = read_pdu_header(self._stream)
        if kind != PduType.ASSOCIATE_RQ:
            raise ProtocolViolation("not-an-associate-request")
        if length > ASSOCIATE_BYTES_MAX:
            raise ProtocolViolation("associate-request-too-long")
        return decode_associate_request(self._stream.take(length))

    def _reject(self, rejection: Rejection) -> None:
        self._host.complaints.add(rejection.code, self._caller.address)
        self._send(encode_associate_reject(rejection))
        self._linger()

    def _accept(self, request: AssociateRequest, peer: str | None) -> OpenAssociation:
        results = [negotiate(context) for context in request.contexts]
        self._contexts = _accepted(request.contexts, {r.context_id: r.transfer_syntax for r in results if not r.result})
        self._peer_maximum_length = request.maximum_length
        self._association_ends = monotonic() + self._limits.association_s
        now = time.time_ns()
        opened = OpenAssociation(
            id=association_id(now, os.getpid(), self._caller.seat),
            pid=os.getpid(),
            calling_ae=request.calling_ae,
            called_ae=request.called_ae,
            peer=self._caller.address,
            port=self._caller.port,
            opened_ns=now,
        )
        self._host.log.info("association-opened", association=opened.id, peer=peer, address=opened.peer)
        with self._noting_failure(opened):
            record_open(self._host.spool, opened)
        acceptor = Acceptor(self._limits.pdu_bytes, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)
        self._send(encode_associate_accept(request, results, acceptor, granted(request.roles)))
        return opened

    # --- messages -----------------------------------------------------------------------------------------------

    def _serve(self, opened: OpenAssociation) -> Outcome:
        """Answer one message after the other until the peer releases, or we have to stop."""
        while True:
            self._message_ends = math.inf
            self._small_fragments = 0
            self._stream.deadline = min(monotonic() + self._limits.idle_s, self._association_ends)
            if not self._stream.wait(self._host.stopping):
                self._send(ABORT_BY_USER)
                return Outcome.ABORTED
            self._message_ends = monotonic() + self._limits.message_s
            received = self._receive_command()
            if received is None:
                self._send(RELEASE_RP)
                self._linger()
                return Outcome.RELEASED
            self._answer(opened, *received)

    def _receive_command(self) -> tuple[int, dimse.Command] | None:
        """The next command set and its context; None when the peer asks for release."""
        encoded, context_id = b"", 0
        while fragment := self._next_fragment():
            if not fragment.is_command or (encoded and fragment.context_id != context_id):
                raise ProtocolViolation("command-expected")
            context_id = fragment.context_id
            if len(encoded) + fragment.length > dimse.COMMAND_BYTES_MAX:
                raise ProtocolViolation("command-too-long")
            encoded += self._stream.take(fragment.length)
            if fragment.is_last:
                return context_id, dimse.decode_command(encoded)
        if encoded:
            raise ProtocolViolation("release-within-a-message")
        return None

    def _answer(self, opened: OpenAssociation, context_id: int, command: dimse.Command) -> None:
        context = self._contexts.get(context_id)
        if context is None or command.field & dimse.RESPONSE:
            raise ProtocolViolation("unknown-context" if context is None else "unexpected-response")
        if command.field == dimse.C_STORE_RQ:
            status = self._store(opened, context_id, context, command)
            self._count(status)
        elif context.abstract_syntax == STORAGE_COMMITMENT and command.field in COMMITMENT_SUFFIXES:
            status = self._commitment(opened, context_id, context, command)
        else:
            for _ in self._data_set(context_id, command, OTHER_DATA_SET_BYTES_MAX):
                pass
            status = dimse.SUCCESS if command.field == dimse.C_ECHO_RQ else dimse.UNRECOGNIZED_OPERATION
        if command.field != dimse.C_CANCEL_RQ:
            response = dimse.encode_response(command, status)
            self._send(encode_command(context_id, response, self._peer_maximum_length))

    def _store(
        self, opened: OpenAssociation, context_id: int, context: Context, command: dimse.Command
    ) -> dimse.Status:
        """Receive one object; its status is success only once it is durable in the inbox."""
        is_supported = is_storage(context.abstract_syntax) and is_storage(command.sop_class_uid)
        refusal = None if is_supported else dimse.SOP_CLASS_NOT_SUPPORTED
        origin = _origin(opened, context, command.sop_class_uid, command.sop_instance_uid)
        reception = Reception(self._host.spool, self._next_name(opened), origin, self._limits.free_bytes_min)
        data_set = self._data_set(context_id, command, self._limits.message_bytes)
        return self._spool(opened, reception, data_set, refusal)

    def _commitment(
        self, opened: OpenAssociation, context_id: int, context: Context, command: dimse.Command
    ) -> dimse.Status:
        """A storage commitment request, or a report on one of ours: kept like an object and read by the node."""
        refusal = None
        if command.field == dimse.N_ACTION_RQ:
            refusal = None if command.type_id == 1 else dimse.NO_SUCH_ACTION
            refusal = refusal if self._has_report_address else dimse.NO_ADDRESS_FOR_REPORT
        elif command.type_id not in {1, 2}:
            refusal = dimse.NO_SUCH_EVENT_TYPE
        origin = _origin(opened, context, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
        suffix, free_bytes_min = COMMITMENT_SUFFIXES[command.field], self._limits.free_bytes_min
        reception = Reception(self._host.spool, self._next_name(opened), origin, free_bytes_min, suffix=suffix)
        data_set = self._data_set(context_id, command, COMMITMENT_BYTES_MAX)
        return dimse.as_request_status(self._spool(opened, reception, data_set, refusal))

    def _spool(
        self,
        opened: OpenAssociation,
        reception: Reception,
        data_set: Iterator[memoryview],
        refusal: dimse.Status | None,
    ) -> dimse.Status:
        """Read a data set to its end; it is kept unless it is refused."""
        try:
            for piece in data_set:
                reception.write(piece)
            status = reception.finish() if refusal is None else refusal
        finally:
            reception.abandon()
        if reception.fault is not None:
            self._host.log.error("not-stored", association=opened.id, fault=reception.fault)
        return status

    def _next_name(self, opened: OpenAssociation) -> str:
        """Names sort by time: what was answered before has a smaller one."""
        self._messages += 1
        return f"{time.time_ns()}-{opened.id}-{self._messages - 1}"

    def _count(self, status: dimse.Status) -> None:
        if status == dimse.SUCCESS:
            self._tally.stored += 1
        else:
            self._tally.refused += 1
            self._refusals[f"{status.code:04X}"] += 1

    # --- fragments ----------------------------------------------------------------------------------------------

    def _data_set(self, context_id: int, command: dimse.Command, limit: int) -> Iterator[memoryview]:
        """The bytes of the data set that follows a command, piece by piece as they arrive."""
        total, is_complete = 0, not command.has_data_set
        while not is_complete:
            fragment = self._next_fragment()
            if fragment is None or fragment.is_command or fragment.context_id != context_id:
                raise ProtocolViolation("data-set-expected")
            total += fragment.length
            if total > limit:
                raise ProtocolViolation("data-set-too-long")
            yield from self._stream.chunks(fragment.length)
            is_complete = fragment.is_last

    def _next_fragment(self) -> Fragment | None:
        """Header of the next presentation data value; None when the peer asks for release instead."""
        if self._pdu_left == 0:
            self._extend_deadline()
            kind, length = read_pdu_header(self._stream)
            self._extend_deadline()
            if kind == PduType.RELEASE_RQ and length == 4:
                self._stream.take(length)
                return None
            if kind != PduType.P_DATA or not PDV_HEADER_BYTES <= length <= self._limits.pdu_bytes_max:
                raise ProtocolViolation("pdu-type-or-length")
            self._pdu_left = length
        if self._pdu_left < PDV_HEADER_BYTES:
            raise ProtocolViolation("fragment-header-short")
        size, context_id, control = struct.unpack(">LBB", self._stream.take(PDV_HEADER_BYTES))
        is_last = bool(control & 0b10)
        # An empty fragment that is not the last one says nothing: a peer could send such ones for ever.
        if not (2 if is_last else 3) <= size <= self._pdu_left - 4:
            raise ProtocolViolation("fragment-length")
        self._pdu_left -= 4 + size
        if size < SMALL_FRAGMENT_BYTES:
            self._slow_down()
        return Fragment(context_id, is_command=bool(control & 0b01), is_last=is_last, length=size - 2)

    def _slow_down(self) -> None:
        """Pause while a message comes in crumbs: decoding them one by one would keep the interpreter from others."""
        self._small_fragments += 1
        if self._small_fragments > SMALL_FRAGMENTS_MAX:
            raise ProtocolViolation("too-many-small-fragments")
        if self._small_fragments > SMALL_FRAGMENTS_FREE and self._small_fragments % SMALL_FRAGMENTS_PER_PAUSE == 0:
            time.sleep(PAUSE_S)

    def _extend_deadline(self) -> None:
        """The next PDU may take `read_s`, but neither the message nor the association may outlive their own limits."""
        self._stream.deadline = min(monotonic() + self._limits.read_s, self._message_ends, self._association_ends)

    # --- last words ---------------------------------------------------------------------------------------------

    def _send(self, encoded: bytes) -> None:
        self._stream.send(encoded, self._limits.read_s)

    def _abort(self, code: str, pdu: bytes) -> None:
        """End the association of a peer that broke a rule."""
        self._host.complaints.add(code, self._caller.address)
        try:
            self._send(pdu)
        except (PeerGone, TooSlow):
            return
        self._linger()

    def _linger(self) -> None:
        self._stream.deadline = monotonic() + LINGER_S
        self._stream.drain(LINGER_BYTES)

    def _close(self, opened: OpenAssociation, outcome: Outcome) -> None:
        with self._noting_failure(opened):
            record_end(self._host.spool, opened, self._tally, outcome, time.time_ns())
        self._host.log.info(
            "association-ended",
            association=opened.id,
            outcome=str(outcome),
            stored=self._tally.stored,
            refused=dict(self._refusals),
            seconds=round((time.time_ns() - opened.opened_ns) / 1e9, 3),
        )

    @contextmanager
    def _noting_failure(self, opened: OpenAssociation) -> Iterator[None]:
        """On a full disk the ledger cannot be written; C-ECHO and the refusal with 0xA700 still have to work."""
        try:
            yield
        except OSError as error:
            self._host.log.error("ledger-not-written", association=opened.id, at=place(error))  # noqa: TRY400 - codes only


def _accepted(proposed: tuple[ProposedContext, ...], transfer_syntaxes: dict[int, str]) -> dict[int, Context]:
    if len({context.context_id for context in proposed}) != len(proposed):
        raise ProtocolViolation("presentation-context-twice")
    return {
        context.context_id: Context(context.abstract_syntax, transfer_syntaxes[context.context_id])
        for context in proposed
        if context.context_id in transfer_syntaxes
    }


def _origin(opened: OpenAssociation, context: Context, sop_class_uid: str, sop_instance_uid: str) -> Origin:
    return Origin(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=context.transfer_syntax,
        calling_ae=opened.calling_ae,
        called_ae=opened.called_ae,
        peer=_presentation_address(opened.peer, opened.port),
    )


def _presentation_address(address: str, port: int) -> str:
    return f"dicom:[{address}]:{port}" if ":" in address else f"dicom:{address}:{port}"
