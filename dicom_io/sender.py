"""C-STORE SCU (PS3.4 B): stored files go out byte for byte, and every instance gets its own verdict."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from config.settings import Destination
from dicom_io.errors import PeerRefused, PeerUnreachable
from dicom_io.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

# Switches of the whole pynetdicom module: files are sent by path without being decoded, and its event handlers and
# loggers, which print identifiers, are silent.
_config.STORE_SEND_CHUNKED_DATASET = True
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)

VERIFICATION: Final = "1.2.840.10008.1.1"
CONTEXTS_MAX: Final = 128
PDU_BYTES_MIN: Final = 128
COMMENT_CHARACTERS_MAX: Final = 64
SLOWEST_BYTES_PER_S: Final = 125_000
"""A link of 1 Mbit/s: the answer to a large object may take as long as sending it takes."""
NEGOTIATION_S: Final = 30.0
"""Longest wait for an answer to A-ASSOCIATE-RQ, A-RELEASE-RQ and for a peer to hang up after A-ABORT."""

Context = tuple[str, str]
"""SOP class UID and transfer syntax UID."""

ACCEPTED_STATUSES: Final = {
    0x0000: "success",
    0x0111: "duplicate",
    0xB000: "coerced",
    0xB006: "elements-discarded",
    0xB007: "does-not-match-class",
}
"""PS3.4 table B.2-1. 0x0111 (PS3.7 C) say archives that have this UID already; we never send other bytes under it."""

PERMANENT_STATUSES: Final = {
    0x0106: "invalid-attribute-value",
    0x0115: "invalid-argument-value",
    0x0117: "invalid-sop-instance",
    0x0119: "class-instance-conflict",
    0x0120: "missing-attribute",
    0x0122: "sop-class-not-supported",
    0x0124: "not-authorised",
    0x0211: "unrecognised-operation",
    0x0212: "mistyped-argument",
}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A stored Part 10 file and what its File Meta says."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str

    @property
    def context(self) -> Context:
        """The presentation context it needs."""
        return self.sop_class_uid, self.transfer_syntax_uid


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one instance; accepted where `error` is None.

    status : the peer's C-STORE status, None where there was no answer
    error : short code of why it is not accepted; permanent : repeating it will not help
    comment : the peer's Error Comment (0000,0902): its words, perhaps with identifiers, not for logs
    """

    sop_instance_uid: str
    status: int | None
    error: str | None
    permanent: bool = False
    comment: str = ""


def send(files: Sequence[Outgoing], destination: Destination) -> Iterator[Sent]:
    """Send files in one association, in their order; yields a verdict per file as soon as it is known.

    A presentation context that the peer rejects fails only its own files. Once the association is lost, the rest are
    "association-lost", not permanent.

    Raises
    ------
    PeerUnreachable
        Before the first verdict: no connection, no answer, or rejected for now.
    PeerRefused
        Before the first verdict: rejected for good.
    """
    contexts = list(dict.fromkeys(file.context for file in files))[:CONTEXTS_MAX]
    if not contexts:
        return
    with _association(destination, contexts) as association:
        usable = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
        for number, file in enumerate(files):
            if file.context not in contexts:
                yield Sent(file.sop_instance_uid, None, "too-many-contexts")
            elif file.context not in usable:
                yield Sent(file.sop_instance_uid, None, "context-rejected", permanent=True)
            else:
                yield _store(association, file, number % 0xFFFF + 1, float(destination.timeout_s))


def echo(destination: Destination) -> float:
    """C-ECHO; the seconds from connecting to the answer.

    Raises
    ------
    PeerUnreachable, PeerRefused
        As `send`; also where the answer is missing or not success.
    """
    started = time.monotonic()
    with _association(destination, [(VERIFICATION, ImplicitVRLittleEndian)]) as association:
        if not association.is_established:
            raise PeerRefused("the peer does not offer verification", code="context-rejected")
        status = association.send_c_echo().get("Status")
    if status is None:
        raise PeerUnreachable("no answer to C-ECHO", code="no-response")
    if status != 0x0000:
        raise PeerRefused(f"C-ECHO answered 0x{status:04X}", code="echo-refused")
    return time.monotonic() - started


def judge(status: int) -> tuple[str | None, bool]:
    """A C-STORE status → (error code or None where accepted, permanent). Statuses of no table are transient."""
    if status in ACCEPTED_STATUSES:
        return None, False
    if status in PERMANENT_STATUSES:
        return PERMANENT_STATUSES[status], True
    if 0xA700 <= status <= 0xA7FF:
        return "out-of-resources", False
    if 0xA900 <= status <= 0xA9FF:
        return "does-not-match-class", True
    if 0xC000 <= status <= 0xCFFF:
        return "cannot-understand", True
    return "unknown-status", False


def _store(association: Association, file: Outgoing, message_id: int, timeout_s: float) -> Sent:
    """One C-STORE on an association that may be gone."""
    if not association.is_established:
        return Sent(file.sop_instance_uid, None, "association-lost")
    try:
        with file.path.open("rb") as stream:
            size = stream.seek(0, 2)
    except OSError:
        return Sent(file.sop_instance_uid, None, "file-unreadable")
    association.dimse_timeout = timeout_s + size / SLOWEST_BYTES_PER_S
    started = time.monotonic()
    try:
        response = association.send_c_store(file.path, msg_id=message_id)
    except RuntimeError:  # pynetdicom's word for an association that ended since we looked
        return Sent(file.sop_instance_uid, None, "association-lost")
    except OSError:
        association.abort()  # half of a message is out: nothing else can follow it
        return Sent(file.sop_instance_uid, None, "file-unreadable")
    if "Status" not in response:
        silent = time.monotonic() - started >= association.dimse_timeout
        association.abort()
        return Sent(file.sop_instance_uid, None, "no-response" if silent else "association-lost")
    error, permanent = judge(response.Status)
    comment = str(response.get("ErrorComment", ""))[:COMMENT_CHARACTERS_MAX]
    return Sent(file.sop_instance_uid, response.Status, error, permanent, comment)


@contextmanager
def _association(destination: Destination, contexts: Iterable[Context]) -> Iterator[Association]:
    """An association, released at the end; not established where the peer rejected every context."""
    timeout_s = float(destination.timeout_s)
    entity = AE(ae_title=destination.calling_ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = entity.acse_timeout = min(timeout_s, NEGOTIATION_S)
    entity.dimse_timeout = entity.network_timeout = timeout_s
    connected = threading.Event()
    try:
        association = entity.associate(
            destination.host,
            destination.port,
            contexts=_presentation_contexts(contexts),
            ae_title=destination.ae_title,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, _prepare_socket, [timeout_s, connected]),
                (evt.EVT_ABORTED, _stop_waiting),
                (evt.EVT_RELEASED, _stop_waiting),
            ],
            tls_args=_tls(destination),
        )
    except socket.gaierror as error:
        raise PeerUnreachable(f"the host name does not resolve: {error.strerror}", code="host-unknown") from error
    try:
        _check_answer(association, connected=connected.is_set())
        yield association
    finally:
        if association.is_established:
            association.release()


def _presentation_contexts(contexts: Iterable[Context]) -> list[PresentationContext]:
    return [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in contexts]


def _prepare_socket(event: Event, timeout_s: float, connected: threading.Event) -> None:
    """No waiting for a full segment (Nagle), and no read or write that outlives the time-out without progress."""
    wrapper = event.assoc.dul.socket
    if wrapper is not None and wrapper.socket is not None:
        wrapper.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapper.socket.settimeout(timeout_s)
        connected.set()


def _stop_waiting(event: Event) -> None:
    """Wake a C-STORE that waits for its answer on an association that ended while it was being sent.

    Otherwise it would wait for the whole time-out: pynetdicom's reactor may have taken the notice meant for it.
    """
    event.assoc.dimse.msg_queue.put((None, None))


def _check_answer(association: Association, *, connected: bool) -> None:
    """Raise unless the peer accepted the association, be it without any of the contexts."""
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        message = f"association rejected: {answer.reason_str}"
        if answer.result == 1:
            raise PeerRefused(message, code="association-rejected")
        raise PeerUnreachable(message, code="association-rejected")
    if not association.is_established and not association.rejected_contexts:
        if connected:
            raise PeerUnreachable("connected, but no answer to the association request", code="no-response")
        raise PeerUnreachable("no connection: refused, timed out, or TLS failed", code="no-connection")
    maximum = association.acceptor.maximum_length or 0
    if association.is_established and 0 < maximum < PDU_BYTES_MIN:
        association.abort()
        raise PeerRefused(
            f"the peer takes PDUs of {maximum} bytes, expected at least {PDU_BYTES_MIN}", code="pdu-length"
        )


def _tls(destination: Destination) -> tuple[ssl.SSLContext, str] | None:
    """TLS ≥ 1.2 that checks the peer's certificate and host name against the configured CA (PS3.15 B.12)."""
    if destination.tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=destination.tls.ca)
        if destination.tls.certificate is not None:
            context.load_cert_chain(destination.tls.certificate, destination.tls.key)
    except OSError as error:
        raise PeerUnreachable(f"TLS files of the destination: {error.strerror}", code="tls-files") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context, destination.host
