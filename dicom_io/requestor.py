"""Associations that we open: negotiation, time-outs, TLS, and what a refusal means (PS3.8 7.1)."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from pynetdicom import AE, _config, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from config.destinations import DimseDestination
from dicom_io.errors import PeerRefused, PeerUnreachable
from dicom_io.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_io.statuses import judge_request
from dicom_io.tls import client_context

# Switches of the whole pynetdicom module: files are sent by path without being decoded, and its event handlers and
# loggers, which print identifiers, are silent.
_config.STORE_SEND_CHUNKED_DATASET = True
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)

PDU_BYTES_MIN: Final = 128
NEGOTIATION_S: Final = 30.0
"""Longest wait for an answer to A-ASSOCIATE-RQ, A-RELEASE-RQ and for a peer to hang up after A-ABORT."""

Context = tuple[str, str]
"""SOP class UID and transfer syntax UID."""
Handlers = Sequence[tuple[Any, Callable[[Event], Any]]]
"""pynetdicom's event and what is called for it."""


@contextmanager
def associated(
    destination: DimseDestination, contexts: Iterable[Context], *, scp_of: Iterable[str] = (), handlers: Handlers = ()
) -> Iterator[Association]:
    """An association, released at the end; not established where the peer rejected every context.

    scp_of : SOP classes in which we want to be the SCP too (role selection, PS3.7 D.3.3.4)
    handlers : of pynetdicom's events, for what the peer asks of us meanwhile

    Raises
    ------
    PeerUnreachable
        No connection, no answer, or rejected for now.
    PeerRefused
        Rejected for good.
    """
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
            ext_neg=[build_role(sop_class, scu_role=True, scp_role=True) for sop_class in scp_of],
            evt_handlers=[
                *handlers,
                (evt.EVT_CONN_OPEN, _prepare_socket, [timeout_s, connected]),
                (evt.EVT_ABORTED, _stop_waiting),
                (evt.EVT_RELEASED, _stop_waiting),
            ],
            tls_args=None if destination.tls is None else (client_context(destination.tls), destination.host),
        )
    except socket.gaierror as error:
        raise PeerUnreachable(f"the host name does not resolve: {error.strerror}", code="host-unknown") from error
    try:
        _check_answer(association, connected=connected.is_set())
        yield association
    finally:
        if association.is_established:
            association.release()


def check(what: str, status: int | None) -> None:
    """Raise unless the final status of an N-ACTION, N-EVENT-REPORT, C-FIND or C-GET is success.

    what : the request, for the message; status : None where no answer came

    Raises
    ------
    PeerUnreachable
        No answer, or a refusal that may pass.
    PeerRefused
        A refusal for good.
    """
    if status is None:
        raise PeerUnreachable(f"{what}: no answer", code="no-response")
    error, permanent = judge_request(status)
    if error is not None:
        raise (PeerRefused if permanent else PeerUnreachable)(f"{what}: answered 0x{status:04X}", code=error)


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
