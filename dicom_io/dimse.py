"""The DIMSE messages our acceptor reads and writes: command sets, Implicit VR Little Endian (PS3.7 6.3)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from dicom_io.upper_layer import ProtocolViolation

COMMAND_BYTES_MAX = 16 * 1024
"""Longest command set that is read; a C-STORE-RQ has some 200 bytes."""

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
C_CANCEL_RQ = 0x0FFF
N_EVENT_REPORT_RQ = 0x0100
N_ACTION_RQ = 0x0130
RESPONSE = 0x8000
NO_DATA_SET = 0x0101

_AFFECTED_SOP_CLASS_UID = 0x0002
_REQUESTED_SOP_CLASS_UID = 0x0003
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_REQUESTED_SOP_INSTANCE_UID = 0x1001
_TYPE_ID = {N_EVENT_REPORT_RQ: 0x1002, N_ACTION_RQ: 0x1008}
"""Event Type ID and Action Type ID."""


@dataclass(frozen=True, slots=True)
class Status:
    """Status (0000,0900) with its Error Comment (0000,0902), which has at most 64 characters."""

    code: int
    comment: str = ""


SUCCESS = Status(0x0000)
SOP_CLASS_NOT_SUPPORTED = Status(0x0122, "no storage class or no storage context")
NO_SUCH_EVENT_TYPE = Status(0x0113, "a storage commitment report is of type 1 or 2")
NO_SUCH_ACTION = Status(0x0123, "storage commitment is asked for by action type 1")
NO_ADDRESS_FOR_REPORT = Status(0x0124, "no report_to is configured for this AE title")
UNRECOGNIZED_OPERATION = Status(0x0211, "only C-ECHO, C-STORE, storage commitment")
CLOSED = Status(0xA700, "closed for storage by its operator")
DISK_FULL = Status(0xA700, "not enough free disk space")
NOT_WRITTEN = Status(0xA700, "could not be written durably")
ILLEGAL_UID = Status(0xC000, "SOP Class or Instance UID is not a UID")
EMPTY_DATA_SET = Status(0xC000, "empty data set")
INTERNAL_ERROR = Status(0xC211, "internal error")


def as_request_status(status: Status) -> Status:
    """A status of C-STORE in the words of N-ACTION and N-EVENT-REPORT (PS3.7 C): resource limitation, or failure."""
    if status.code < 0xA000:
        return status
    return Status(0x0213 if status.code == 0xA700 else 0x0110, status.comment)


@dataclass(frozen=True, slots=True)
class Command:
    """A request's command set (PS3.7 9.3 and 10.3), as far as we look at it.

    type_id : Event Type ID or Action Type ID, None where the request has none
    """

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    sop_instance_uid: str
    type_id: int | None = None


def decode_command(encoded: bytes) -> Command:
    """Decode a request's command set.

    Raises
    ------
    ProtocolViolation
        It cannot be decoded, or lacks what is needed to answer it.
    """
    elements = _elements(encoded)
    field = _unsigned_short(elements, _COMMAND_FIELD)
    return Command(
        field=field,
        message_id=0 if field == C_CANCEL_RQ or field & RESPONSE else _unsigned_short(elements, _MESSAGE_ID),
        has_data_set=_unsigned_short(elements, _COMMAND_DATA_SET_TYPE) != NO_DATA_SET,
        sop_class_uid=_uid(elements.get(_AFFECTED_SOP_CLASS_UID) or elements.get(_REQUESTED_SOP_CLASS_UID, b"")),
        sop_instance_uid=_uid(
            elements.get(_AFFECTED_SOP_INSTANCE_UID) or elements.get(_REQUESTED_SOP_INSTANCE_UID, b"")
        ),
        type_id=_unsigned_short(elements, _TYPE_ID[field]) if field in _TYPE_ID else None,
    )


def _elements(encoded: bytes) -> dict[int, bytes]:
    elements: dict[int, bytes] = {}
    position = 0
    while position < len(encoded):
        if position + 8 > len(encoded):
            raise ProtocolViolation("command-element-short")
        group, number, length = struct.unpack_from("<HHL", encoded, position)
        position += 8 + length
        if group != 0 or position > len(encoded):
            raise ProtocolViolation("command-element")
        elements[number] = encoded[position - length : position]
    return elements


def _unsigned_short(elements: Mapping[int, bytes], number: int) -> int:
    value = elements.get(number, b"")
    if len(value) != 2:
        raise ProtocolViolation("command-lacks-an-element")
    return int.from_bytes(value, "little")


def _uid(value: bytes) -> str:
    return value.strip(b"\x00 ").decode("ascii", "replace")


def encode_response(command: Command, status: Status) -> bytes:
    """The command set of the response; it repeats the UIDs only where they are short and ASCII, hence harmless."""
    values = {
        _AFFECTED_SOP_CLASS_UID: _echoed(command.sop_class_uid),
        _COMMAND_FIELD: struct.pack("<H", command.field | RESPONSE),
        _MESSAGE_ID_BEING_RESPONDED_TO: struct.pack("<H", command.message_id),
        _COMMAND_DATA_SET_TYPE: struct.pack("<H", NO_DATA_SET),
        _STATUS: struct.pack("<H", status.code),
        _ERROR_COMMENT: _even(status.comment.encode("ascii"), b" "),
        _AFFECTED_SOP_INSTANCE_UID: _echoed(command.sop_instance_uid),
    }
    if command.type_id is not None:
        values[_TYPE_ID[command.field]] = struct.pack("<H", command.type_id)
    elements = b"".join(_element(number, value) for number, value in values.items() if value)
    return _element(0x0000, struct.pack("<L", len(elements))) + elements


def _echoed(uid: str) -> bytes:
    return _even(uid.encode("ascii"), b"\x00") if uid.isascii() and len(uid) <= 64 else b""


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) % 2)


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0x0000, number, len(value)) + value
