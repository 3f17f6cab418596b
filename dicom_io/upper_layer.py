"""The DICOM upper layer protocol on one socket (PS3.8 9.3): bounded reading, and the PDUs an acceptor reads and writes.

Nothing here believes a length: a claim is compared with its limit before a byte of it is read, memory is one fixed
buffer, and no read outlives its deadline however slowly the bytes trickle in.
"""

from __future__ import annotations

import mmap
import select
import socket
import ssl
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from time import monotonic

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
PDU_HEADER_BYTES = 6
PDV_HEADER_BYTES = 6
FIXED_REQUEST_BYTES = 68
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""How a socket that does not block says that it would have to wait."""


class PduType(IntEnum):
    """PS3.8 tables 9-11 to 9-26."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class ProtocolViolation(Exception):
    """The peer broke the protocol or a limit of ours; `code` is the short reason."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class PeerGone(Exception):
    """The connection ended without a word."""


class PeerAborted(Exception):
    """The peer sent A-ABORT."""


class TooSlow(Exception):
    """A deadline passed."""


class BoundedStream:
    """Reads of one socket through one fixed buffer, each before `deadline` (seconds of the monotonic clock).

    The socket does not block: the kernel is asked to wait only when there is nothing to read, or no room to write.
    """

    def __init__(self, connection: socket.socket, buffer_bytes: int) -> None:
        self.deadline = monotonic()
        connection.settimeout(0)
        self._connection = connection
        self._buffer = memoryview(mmap.mmap(-1, buffer_bytes))  # takes memory only as far as it is filled
        self._start = 0
        self._end = 0

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes, at most the size of the buffer."""
        if self._start + count > len(self._buffer):
            kept = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, len(kept)
            self._buffer[: self._end] = kept
        while self._end - self._start < count:
            self._fill()
        self._start += count
        return bytes(self._buffer[self._start - count : self._start])

    def chunks(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes as they arrive; each view is valid until the next one is asked for."""
        while count > 0:
            if self._start == self._end:
                self._start = self._end = 0
                self._fill()
            view = self._buffer[self._start : min(self._end, self._start + count)]
            self._start += len(view)
            count -= len(view)
            yield view

    def wait(self, wake: int) -> bool:
        """Wait for the first byte of what comes next; False when the file descriptor `wake` is readable instead."""
        pending = self._connection.pending() if isinstance(self._connection, ssl.SSLSocket) else 0
        if self._end > self._start or pending:
            return True
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(wake, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(max(0.0, self.deadline - monotonic()) * 1000)}
        if not ready:
            raise TooSlow
        return ready != {wake}

    def drain(self, most: int) -> None:
        """Read and forget until the peer closes, so that our last word is not lost in a reset; at most `most` bytes."""
        try:
            for _ in self.chunks(most):
                pass
        except (PeerGone, TooSlow):
            return

    def send(self, encoded: bytes, seconds: float) -> None:
        """Send all of it within so many seconds."""
        rest, ends = memoryview(encoded), monotonic() + seconds
        while rest:
            try:
                rest = rest[self._connection.send(rest) :]
            except NOT_NOW as reason:
                self._await(reason, select.POLLOUT, ends)
            except OSError:
                raise PeerGone from None

    def _fill(self) -> None:
        received = None
        while received is None:
            if self.deadline <= monotonic():
                raise TooSlow
            try:
                # Peers that leave Nagle's algorithm on wait for the acknowledgement of each small PDU, up to 40 ms.
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                received = self._connection.recv_into(self._buffer[self._end :])
            except NOT_NOW as reason:
                self._await(reason, select.POLLIN, self.deadline)
            except OSError:
                raise PeerGone from None
        if not received:
            raise PeerGone
        self._end += received

    def _await(self, reason: OSError, event: int, ends: float) -> None:
        """Until the socket is ready for what it could not do at once; TLS may have to write in order to read."""
        if isinstance(reason, ssl.SSLError):
            event = select.POLLIN if isinstance(reason, ssl.SSLWantReadError) else select.POLLOUT
        poll = select.poll()
        poll.register(self._connection, event)
        if not poll.poll(max(0.0, ends - monotonic()) * 1000):
            raise TooSlow


def read_pdu_header(stream: BoundedStream) -> tuple[int, int]:
    """Type and length [bytes] of the next PDU; A-ABORT is raised as `PeerAborted`."""
    kind, length = struct.unpack(">BxL", stream.take(PDU_HEADER_BYTES))
    if kind == PduType.ABORT:
        raise PeerAborted
    return kind, length


# --- A-ASSOCIATE --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context as the peer proposes it (PS3.8 9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextResult:
    """Our answer to a proposed context: 0 accepted, 3 abstract, 4 transfer syntaxes not supported (PS3.8 9.3.3.2)."""

    context_id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Role:
    """SCP/SCU role selection for one SOP class (PS3.7 D.3.3.4): which roles the requestor proposes for itself."""

    sop_class_uid: str
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2).

    titles : the 64 bytes that an A-ASSOCIATE-AC has to repeat
    maximum_length : bytes of a P-DATA-TF PDU the peer takes, 0 = any
    """

    protocol_version: int
    called_ae: str
    calling_ae: str
    titles: bytes
    application_context: str
    contexts: tuple[ProposedContext, ...]
    maximum_length: int
    roles: tuple[Role, ...] = ()


def decode_associate_request(body: bytes) -> AssociateRequest:
    """Decode the body (everything after the length) of an A-ASSOCIATE-RQ.

    Raises
    ------
    ProtocolViolation
        Lengths disagree, or more than 128 presentation contexts, which odd one-byte identifiers cannot number, or
        more than 128 role selections.
    """
    if len(body) < FIXED_REQUEST_BYTES:
        raise ProtocolViolation("associate-request-short")
    application_context, maximum_length, contexts = "", 0, []
    roles: tuple[Role, ...] = ()
    for kind, item in _items(body[FIXED_REQUEST_BYTES:]):
        if kind == 0x10:
            application_context = _name(item)
        elif kind == 0x20:
            contexts.append(_proposed_context(item))
        elif kind == 0x50:
            maximum_length, roles = _maximum_length(item), _roles(item)
        if len(contexts) > 128:
            raise ProtocolViolation("too-many-presentation-contexts")
    return AssociateRequest(
        protocol_version=int.from_bytes(body[:2], "big"),
        called_ae=_ae_title(body[4:20]),
        calling_ae=_ae_title(body[20:36]),
        titles=body[4:FIXED_REQUEST_BYTES],
        application_context=application_context,
        contexts=tuple(contexts),
        maximum_length=maximum_length,
        roles=roles,
    )


def _items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(encoded):
        if position + 4 > len(encoded):
            raise ProtocolViolation("item-header-short")
        kind, length = struct.unpack_from(">BxH", encoded, position)
        position += 4 + length
        if position > len(encoded):
            raise ProtocolViolation("item-longer-than-its-container")
        yield kind, encoded[position - length : position]


def _proposed_context(item: bytes) -> ProposedContext:
    if len(item) < 4:
        raise ProtocolViolation("presentation-context-short")
    names: dict[int, list[str]] = {0x30: [], 0x40: []}
    for kind, value in _items(item[4:]):
        if kind in names:
            names[kind].append(_name(value))
    if len(names[0x30]) != 1 or not names[0x40]:
        raise ProtocolViolation("presentation-context-syntaxes")
    return ProposedContext(item[0], names[0x30][0], tuple(names[0x40]))


def _maximum_length(user_information: bytes) -> int:
    for kind, value in _items(user_information):
        if kind == 0x51 and len(value) == 4:
            return int.from_bytes(value, "big")
    return 0


def _roles(user_information: bytes) -> tuple[Role, ...]:
    """The role selection items (PS3.7 table D.3-9)."""
    roles: list[Role] = []
    for kind, value in _items(user_information):
        if kind != 0x54:
            continue
        length = int.from_bytes(value[:2], "big")
        if len(value) != length + 4 or len(roles) == 128:
            raise ProtocolViolation("role-selection")
        roles.append(Role(_name(value[2 : 2 + length]), scu=value[-2] == 1, scp=value[-1] == 1))
    return tuple(roles)


def _name(value: bytes) -> str:
    return value.strip(b"\x00 ").decode("ascii", "replace")


def _ae_title(value: bytes) -> str:
    """An AE title without padding; what PS3.5 6.2 forbids in one becomes '?', so that it can be shown and compared."""
    kept = value.strip(b"\x00 ")
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else "?" for byte in kept)


@dataclass(frozen=True, slots=True)
class Acceptor:
    """What an A-ASSOCIATE-AC says about us."""

    maximum_length: int
    implementation_class_uid: str
    implementation_version_name: str


def encode_associate_accept(
    request: AssociateRequest, results: list[ContextResult], acceptor: Acceptor, roles: Iterable[Role] = ()
) -> bytes:
    """A-ASSOCIATE-AC (PS3.8 9.3.3). Asynchronous operations and user identity stay unanswered.

    roles : those we grant; a role selection that is not answered leaves the requestor SCU (PS3.7 D.3.3.4)
    """
    contexts = b"".join(
        _item(0x21, struct.pack(">BxBx", each.context_id, each.result) + _item(0x40, each.transfer_syntax.encode()))
        for each in results
    )
    user_information = (
        _item(0x51, struct.pack(">L", acceptor.maximum_length))
        + _item(0x52, acceptor.implementation_class_uid.encode("ascii"))
        + b"".join(_item(0x54, _role(role)) for role in roles)
        + _item(0x55, acceptor.implementation_version_name.encode("ascii"))
    )
    body = (
        struct.pack(">H2x", 1)
        + request.titles
        + _item(0x10, APPLICATION_CONTEXT.encode("ascii"))
        + contexts
        + _item(0x50, user_information)
    )
    return _pdu(PduType.ASSOCIATE_AC, body)


def _role(role: Role) -> bytes:
    uid = role.sop_class_uid.encode("ascii")
    return struct.pack(">H", len(uid)) + uid + bytes((role.scu, role.scp))


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _pdu(kind: PduType, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


@dataclass(frozen=True, slots=True)
class Rejection:
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21), and our word for it."""

    result: int
    source: int
    reason: int
    code: str


PROTOCOL_VERSION_NOT_SUPPORTED = Rejection(1, 2, 2, "protocol-version")
APPLICATION_CONTEXT_NOT_SUPPORTED = Rejection(1, 1, 2, "application-context")
CALLING_AE_NOT_RECOGNIZED = Rejection(1, 1, 3, "calling-ae-not-recognized")
CALLED_AE_NOT_RECOGNIZED = Rejection(1, 1, 7, "called-ae-not-recognized")
LOCAL_LIMIT_EXCEEDED = Rejection(2, 3, 2, "local-limit-exceeded")


def encode_associate_reject(rejection: Rejection) -> bytes:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return _pdu(PduType.ASSOCIATE_RJ, bytes((0, rejection.result, rejection.source, rejection.reason)))


RELEASE_RP = _pdu(PduType.RELEASE_RP, bytes(4))
ABORT_BY_USER = _pdu(PduType.ABORT, bytes((0, 0, 0, 0)))
"""A-ABORT, source: service user (PS3.8 9.3.8): we have to stop, the peer did nothing wrong."""
ABORT_UNEXPECTED = _pdu(PduType.ABORT, bytes((0, 0, 2, 2)))
"""A-ABORT, source: service provider, reason: unexpected PDU."""


# --- P-DATA-TF ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fragment:
    """Header of one presentation data value (PS3.8 9.3.5.1 and annex E.2); its `length` bytes follow in the stream."""

    context_id: int
    is_command: bool
    is_last: bool
    length: int


def encode_command(context_id: int, encoded: bytes, maximum_length: int) -> bytes:
    """A whole command set as P-DATA-TF PDUs, none longer than the peer's `maximum_length` (0 = any)."""
    size = max(1, maximum_length - PDV_HEADER_BYTES) if maximum_length else len(encoded)
    pdus = []
    for start in range(0, len(encoded), size):
        piece = encoded[start : start + size]
        control = 0b11 if start + size >= len(encoded) else 0b01
        pdus.append(_pdu(PduType.P_DATA, struct.pack(">LBB", len(piece) + 2, context_id, control) + piece))
    return b"".join(pdus)
