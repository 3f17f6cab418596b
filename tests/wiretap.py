"""Reads DICOM associations along, byte by byte as they pass, and keeps the minutes of every C-STORE.

PDUs: PS3.8 section 9.3; C-STORE messages: PS3.7 sections 6.3.1 and 9.3.1. Nothing here touches a socket.
"""

import hashlib
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

NEGOTIATION_BYTES_MAX = 1 << 20
COMMAND_BYTES_MAX = 1 << 16
C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
A_ASSOCIATE_RQ, A_ASSOCIATE_AC, P_DATA_TF = 0x01, 0x02, 0x04


class Moment(NamedTuple):
    """One instant on two clocks: `time.monotonic()` in seconds, `time.time_ns()` in ns since 1970 (UTC)."""

    monotonic: float
    utc_ns: int

    @classmethod
    def now(cls) -> Self:
        return cls(time.monotonic(), time.time_ns())


@dataclass(frozen=True)
class Store:
    """One C-STORE as the wire carried it; what has not happened yet is None."""

    number: int
    association: int
    calling_ae: str
    called_ae: str
    to_target: bool
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str | None
    request_began: Moment
    request_ended: Moment | None = None
    data_set_bytes: int = 0
    data_set_sha256: str | None = None
    response_began: Moment | None = None
    response_forwarded: Moment | None = None
    status: int | None = None

    @property
    def succeeded(self) -> bool:
        """The receiver answered 0x0000; whether the sender learnt it is `response_forwarded`."""
        return self.status == 0x0000


class NotDicom(Exception):
    """The stream stopped looking like DICOM; it is forwarded unread from there on."""


@dataclass(frozen=True)
class Event:
    """Something the reader recognised: bytes of this chunk before `offset` may go first, it is whole at `end`."""

    kind: Literal["data set", "request", "response"]
    store: int
    offset: int
    end: int


class Minutes:
    """The C-STOREs of all associations, by the time their requests began. Safe to use from several threads."""

    def __init__(self) -> None:
        self._stores: list[Store] = []
        self._changed = threading.Condition()

    def begin(self, store: Store) -> int:
        with self._changed:
            self._stores.append(replace(store, number=len(self._stores)))
            self._changed.notify_all()
            return len(self._stores) - 1

    def amend(self, number: int, **changes: object) -> None:
        with self._changed:
            self._stores[number] = replace(self._stores[number], **changes)  # type: ignore[arg-type]  # names are ours
            self._changed.notify_all()

    def __getitem__(self, number: int) -> Store:
        return self._stores[number]

    def all(self) -> list[Store]:
        with self._changed:
            return list(self._stores)

    def wait_for(self, condition: Callable[[list[Store]], bool], timeout: float) -> list[Store]:
        """All records as soon as they fulfil `condition`; TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(list(self._stores)), timeout):
                answered = sum(store.status is not None for store in self._stores)
                raise TimeoutError(f"after {timeout} s: {len(self._stores)} stores begun, {answered} answered")
            return list(self._stores)


class Association:
    """What the two directions of one connection must know of each other."""

    def __init__(self, minutes: Minutes, number: int) -> None:
        self.number = number
        self.calling_ae = self.called_ae = ""
        self.transfer_syntaxes: dict[int, str] = {}
        self.is_cut = False
        self._minutes = minutes
        self._open: dict[tuple[bool, int], int] = {}

    def request_began(self, command: dict[int, bytes], context: int, began: Moment, *, to_target: bool) -> int:
        (message_id,) = struct.unpack("<H", command.get(0x0110, b"\0\0"))
        store = self._minutes.begin(
            Store(
                number=0,
                association=self.number,
                calling_ae=self.calling_ae,
                called_ae=self.called_ae,
                to_target=to_target,
                message_id=message_id,
                sop_class_uid=_uid(command.get(0x0002, b"")),
                sop_instance_uid=_uid(command.get(0x1000, b"")),
                transfer_syntax_uid=self.transfer_syntaxes.get(context),
                request_began=began,
            )
        )
        self._open[to_target, message_id] = store
        return store

    def request_ended(self, store: int, *, data_set_bytes: int, sha256: str, moment: Moment) -> None:
        self._minutes.amend(store, data_set_bytes=data_set_bytes, data_set_sha256=sha256, request_ended=moment)

    def response_began(self, command: dict[int, bytes], began: Moment, *, to_target: bool) -> int | None:
        (message_id,) = struct.unpack("<H", command.get(0x0120, b"\0\0"))
        (status,) = struct.unpack("<H", command.get(0x0900, b"\xff\xff"))
        store = self._open.pop((not to_target, message_id), None)
        if store is not None:
            self._minutes.amend(store, response_began=began, status=status)
        return store


class Reader:
    """Reads one direction of one connection, chunk by chunk, wherever the chunks are cut."""

    def __init__(self, association: Association, *, to_target: bool) -> None:
        self.association = association
        self.fault: str | None = None
        self._to_target = to_target
        self._at = 0
        self._events: list[Event] = []
        self._held = bytearray()
        self._moment = self._pdu_began = self._message_began = Moment.now()
        self._pdu_offset = 0
        self._pdu_left = 0
        self._command = bytearray()
        self._context = 0
        self._store: int | None = None
        self._hash = hashlib.sha256()
        self._data_set_bytes = 0
        self._take: Callable[[memoryview], None]
        self._gather(6, self._pdu_header)

    def feed(self, chunk: memoryview, moment: Moment) -> list[Event]:
        """What this chunk completes, in order. Reads no further once the stream is not DICOM (`fault` says why)."""
        self._events, self._moment, self._at, self._pdu_offset = [], moment, 0, 0
        try:
            while self._at < len(chunk) and self.fault is None:
                self._step(chunk)
        except NotDicom as fault:
            self.fault = f"association {self.association.number}: {fault}"
        return self._events

    def _step(self, chunk: memoryview) -> None:
        if self._fresh_pdu and not self._held:
            self._pdu_began, self._pdu_offset = self._moment, self._at
        piece = chunk[self._at : self._at + self._wanted]
        self._take(piece)
        self._at += len(piece)
        self._wanted -= len(piece)
        while self._wanted == 0:
            self._then(self._hand_over())

    def _gather(self, count: int, then: Callable[[bytes], None]) -> None:
        """Collect `count` bytes, then call `then` with them."""
        self._wanted, self._then, self._take = count, then, self._hold
        self._fresh_pdu = then == self._pdu_header

    def _stream(self, count: int, take: Callable[[memoryview], None], then: Callable[[bytes], None]) -> None:
        """Show `take` each piece of the next `count` bytes, then call `then`."""
        self._wanted, self._then, self._take, self._fresh_pdu = count, then, take, False

    def _hold(self, piece: memoryview) -> None:
        self._held += piece

    def _pass_over(self, piece: memoryview) -> None:
        pass

    def _hand_over(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held

    def _pdu_header(self, header: bytes) -> None:
        kind, length = struct.unpack(">BxL", header)
        if not 1 <= kind <= 7:
            raise NotDicom(f"PDU type {kind:#04x}")
        if kind in {A_ASSOCIATE_RQ, A_ASSOCIATE_AC}:
            if length > NEGOTIATION_BYTES_MAX:
                raise NotDicom(f"association negotiation of {length} bytes")
            self._gather(length, self._negotiated if kind == A_ASSOCIATE_AC else self._requested)
        elif kind == P_DATA_TF:
            self._pdu_left = length
            self._next_pdv(b"")
        else:
            self._stream(length, self._pass_over, self._next_pdu)

    def _next_pdu(self, _: bytes) -> None:
        self._gather(6, self._pdu_header)

    def _next_pdv(self, _: bytes) -> None:
        if self._pdu_left == 0:
            self._next_pdu(b"")
        elif self._pdu_left < 6:
            raise NotDicom("PDV header does not fit its PDU")
        else:
            self._gather(6, self._pdv_header)

    def _pdv_header(self, header: bytes) -> None:
        length, self._context, control = struct.unpack(">LBB", header)
        fragment = length - 2
        if not 0 <= fragment <= self._pdu_left - 6:
            raise NotDicom(f"PDV of {length} bytes with {self._pdu_left} left in its PDU")
        self._pdu_left -= 6 + fragment
        is_command, is_last = bool(control & 1), bool(control & 2)
        if is_command:
            if not self._command:
                self._message_began = self._pdu_began
            if len(self._command) + fragment > COMMAND_BYTES_MAX:
                raise NotDicom("command set without end")
            self._gather(fragment, self._command_ended if is_last else self._command_fragment)
        elif self._store is None:
            self._stream(fragment, self._pass_over, self._next_pdv)
        else:
            self._stream(fragment, self._data, self._data_ended if is_last else self._next_pdv)

    def _command_fragment(self, fragment: bytes) -> None:
        self._command += fragment
        self._next_pdv(b"")

    def _command_ended(self, fragment: bytes) -> None:
        command = command_elements(bytes(self._command) + fragment)
        self._command = bytearray()
        self._store = None
        field_value = command.get(0x0100)
        if field_value == struct.pack("<H", C_STORE_RQ):
            self._store = self.association.request_began(
                command, self._context, self._message_began, to_target=self._to_target
            )
            self._hash, self._data_set_bytes = hashlib.sha256(), 0
        elif field_value == struct.pack("<H", C_STORE_RSP):
            answered = self.association.response_began(command, self._message_began, to_target=self._to_target)
            if answered is not None:
                self._events.append(Event("response", answered, self._pdu_offset, self._at))
        self._next_pdv(b"")

    def _data(self, piece: memoryview) -> None:
        assert self._store is not None
        if self._data_set_bytes == 0:
            middle = self._at + len(piece) // 2
            self._events.append(Event("data set", self._store, middle, middle))
        self._hash.update(piece)
        self._data_set_bytes += len(piece)

    def _data_ended(self, _: bytes) -> None:
        assert self._store is not None
        self.association.request_ended(
            self._store, data_set_bytes=self._data_set_bytes, sha256=self._hash.hexdigest(), moment=self._moment
        )
        self._events.append(Event("request", self._store, self._pdu_offset, self._at))
        self._store = None
        self._next_pdv(b"")

    def _requested(self, body: bytes) -> None:
        self.association.called_ae = body[4:20].decode("ascii", "replace").strip()
        self.association.calling_ae = body[20:36].decode("ascii", "replace").strip()
        self._next_pdu(b"")

    def _negotiated(self, body: bytes) -> None:
        self.association.transfer_syntaxes = accepted_transfer_syntaxes(body)
        self._next_pdu(b"")


def command_elements(command: bytes) -> dict[int, bytes]:
    """Element number → value of a command set (group 0000, Implicit VR Little Endian, PS3.7 section 6.3.1)."""
    elements, at = {}, 0
    while at + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHL", command, at)
        if group != 0 or at + 8 + length > len(command):
            raise NotDicom("command set is not what PS3.7 says")
        elements[element] = command[at + 8 : at + 8 + length]
        at += 8 + length
    return elements


def accepted_transfer_syntaxes(body: bytes) -> dict[int, str]:
    """Presentation context id → transfer syntax UID of an A-ASSOCIATE-AC, PDU header cut off (PS3.8 section 9.3.3)."""
    accepted = {}
    for kind, item in _items(body[68:]):
        if kind == 0x21 and len(item) >= 4 and item[2] == 0:
            accepted[item[0]] = next((_uid(value) for sub, value in _items(item[4:]) if sub == 0x40), "")
    return accepted


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        yield kind, body[at + 4 : at + 4 + length]
        at += 4 + length


def _uid(value: bytes) -> str:
    return value.decode("ascii", "replace").rstrip("\0 ")
