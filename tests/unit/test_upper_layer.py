"""The acceptor's encodings against pynetdicom's, and its reading against whatever bytes there are."""

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from pynetdicom import build_context
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_RELEASE_RP, P_DATA_TF

from dicom_io import dimse
from dicom_io.offer import TRANSFER_SYNTAXES, VERIFICATION, is_storage, is_uid, negotiate
from dicom_io.upper_layer import (
    ABORT_BY_USER,
    ABORT_UNEXPECTED,
    LOCAL_LIMIT_EXCEEDED,
    RELEASE_RP,
    Acceptor,
    BoundedStream,
    PeerGone,
    ProposedContext,
    ProtocolViolation,
    TooSlow,
    decode_associate_request,
    encode_associate_accept,
    encode_associate_reject,
    encode_command,
)
from tests.wire.listening import associate_request, echo_request, store_request

PET = "1.2.840.10008.5.1.4.1.1.128"
EXPLICIT, IMPLICIT, JPEG_LS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.80"


def test_a_request_of_pynetdicom_is_understood() -> None:
    request = decode_associate_request(associate_request("PETCT1", "TRACERD", maximum_length=16384)[6:])
    assert (request.calling_ae, request.called_ae) == ("PETCT1", "TRACERD")
    assert request.protocol_version == 1
    assert request.application_context == "1.2.840.10008.3.1.1.1"
    assert request.maximum_length == 16384
    assert [context.context_id for context in request.contexts] == [1, 3]
    assert request.contexts[1] == ProposedContext(3, PET, (EXPLICIT,))


def test_pynetdicom_understands_what_we_accept() -> None:
    request = decode_associate_request(associate_request()[6:])
    results = [negotiate(context) for context in request.contexts]
    encoded = encode_associate_accept(request, results, Acceptor(131072, "1.2.3.4", "NAME"))
    pdu = A_ASSOCIATE_AC()
    pdu.decode(encoded)
    assert len(encoded) == 6 + pdu.pdu_length
    primitive = pdu.to_primitive()
    accepted = {context.context_id: context for context in primitive.presentation_context_definition_results_list}
    assert {context_id: context.result for context_id, context in accepted.items()} == {1: 0, 3: 0}
    assert accepted[3].transfer_syntax == [EXPLICIT]
    assert primitive.maximum_length_received == 131072
    assert primitive.implementation_class_uid == "1.2.3.4"
    assert encoded[10:74] == associate_request()[10:74]  # the titles, called first, are sent back


def test_pynetdicom_understands_our_last_words() -> None:
    reject = A_ASSOCIATE_RJ()
    reject.decode(encode_associate_reject(LOCAL_LIMIT_EXCEEDED))
    assert (reject.result, reject.source, reject.reason_diagnostic) == (2, 3, 2)
    A_RELEASE_RP().decode(RELEASE_RP)
    for encoded, source, reason in ((ABORT_BY_USER, 0, 0), (ABORT_UNEXPECTED, 2, 2)):
        abort = A_ABORT_RQ()
        abort.decode(encoded)
        assert (abort.source, abort.reason_diagnostic) == (source, reason)


def test_too_many_contexts_are_refused() -> None:
    def request(contexts: int) -> bytes:
        syntaxes = b"\x30\0\0\x01" + b"1" + b"\x40\0\0\x01" + b"1"
        item = b"\x20\0" + struct.pack(">H", 4 + len(syntaxes)) + bytes(4) + syntaxes
        return bytes(68) + item * contexts

    assert len(decode_associate_request(request(128)).contexts) == 128
    with pytest.raises(ProtocolViolation, match="too-many"):
        decode_associate_request(request(129))


@given(st.data())
def test_a_mangled_request_is_refused_or_understood_but_nothing_else(data: st.DataObject) -> None:
    body = bytearray(associate_request()[6:])
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))]
    with contextlib.suppress(ProtocolViolation):
        for context in decode_associate_request(bytes(body)).contexts:
            assert negotiate(context).result in {0, 3, 4}


@given(st.binary(max_size=300))
def test_any_bytes_as_a_command_are_refused_or_understood_but_nothing_else(encoded: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        command = dimse.decode_command(encoded)
        dimse.encode_response(command, dimse.SUCCESS)


def command_of(pdu: bytes) -> bytes:
    return pdu[12:]


def test_commands_of_pynetdicom_are_understood() -> None:
    store = dimse.decode_command(command_of(store_request(b"x", sop_instance_uid="1.2.30")[0]))
    assert store == dimse.Command(0x0001, 7, has_data_set=True, sop_class_uid=PET, sop_instance_uid="1.2.30")
    echo = dimse.decode_command(command_of(echo_request()))
    assert (echo.field, echo.message_id, echo.has_data_set, echo.sop_class_uid) == (0x0030, 1, False, VERIFICATION)


@pytest.mark.parametrize("maximum_length", [0, 20, 128, 16384])
def test_pydicom_understands_our_response_in_pieces_of_any_size(maximum_length: int) -> None:
    command = dimse.decode_command(command_of(store_request(b"x", sop_instance_uid="1.2.3")[0]))
    encoded = encode_command(3, dimse.encode_response(command, dimse.DISK_FULL), maximum_length)
    values = []
    while encoded:
        length = 6 + int.from_bytes(encoded[2:6], "big")
        assert not maximum_length or length - 6 <= maximum_length
        pdu = P_DATA_TF()
        pdu.decode(encoded[:length])
        values += pdu.to_primitive().presentation_data_value_list
        encoded = encoded[length:]
    assert {context for context, _ in values} == {3}
    assert [value[0] for _, value in values] == [1] * (len(values) - 1) + [3]
    response = read_dataset(BytesIO(b"".join(value[1:] for _, value in values)), True, True)
    assert (response.CommandField, response.MessageIDBeingRespondedTo, response.Status) == (0x8001, 7, 0xA700)
    assert response.CommandDataSetType == 0x0101
    assert (response.AffectedSOPClassUID, response.AffectedSOPInstanceUID) == (PET, "1.2.3")
    assert response.ErrorComment == "not enough free disk space"


def test_every_comment_fits_its_element() -> None:
    statuses = [value for value in vars(dimse).values() if isinstance(value, dimse.Status)]
    assert len(statuses) == 12
    assert all(len(status.comment) <= 64 for status in statuses)


@pytest.mark.parametrize(
    ("abstract_syntax", "transfer_syntaxes", "answer"),
    [
        (VERIFICATION, (IMPLICIT,), (0, IMPLICIT)),
        (PET, (IMPLICIT, EXPLICIT), (0, EXPLICIT)),
        (PET, (JPEG_LS, "1.2.840.10008.1.2.4.91"), (0, JPEG_LS)),
        (PET, ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"), (4, IMPLICIT)),
        ("1.2.840.10008.5.1.4.1.1.5", (IMPLICIT,), (0, IMPLICIT)),
        ("1.3.12.2.1107.5.9.1", (EXPLICIT,), (0, EXPLICIT)),
        ("1.2.840.10008.5.1.4.1.2.2.1", (IMPLICIT,), (3, IMPLICIT)),
        ("../../etc", (IMPLICIT,), (3, IMPLICIT)),
    ],
)
def test_negotiation(abstract_syntax: str, transfer_syntaxes: tuple[str, ...], answer: tuple[int, str]) -> None:
    result = negotiate(ProposedContext(1, abstract_syntax, transfer_syntaxes))
    assert (result.result, result.transfer_syntax) == answer


def test_no_deflated_and_no_big_endian_syntax_is_offered() -> None:
    assert all(build_context(PET, syntax).transfer_syntax for syntax in TRANSFER_SYNTAXES)
    assert not {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"} & set(TRANSFER_SYNTAXES)
    assert len(set(TRANSFER_SYNTAXES)) == len(TRANSFER_SYNTAXES) == 14


def test_what_is_a_uid() -> None:
    assert is_uid("1.2.840.10008.1.02.3")
    assert is_uid("1" * 64)
    for wrong in ("", "1" * 65, "../../tmp/pwn", "1.2\n", "1.2 ", "a.b", "..", "1,2", "１.２"):
        assert not is_uid(wrong), wrong
    assert not is_storage("") and not is_storage("1.2.840.10008.1.1")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    listening = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listening.getsockname())
    far, _ = listening.accept()
    with listening, near, far:
        yield near, far


def stream_of(connection: socket.socket, seconds: float = 5, size: int = 16) -> BoundedStream:
    stream = BoundedStream(connection, size)
    stream.deadline = time.monotonic() + seconds
    return stream


def test_bytes_come_in_order_whatever_their_pieces(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    sent = bytes(range(256)) * 40
    threading.Thread(target=near.sendall, args=(sent,)).start()
    stream = stream_of(far)
    received = stream.take(5) + b"".join(bytes(view) for view in stream.chunks(1000))
    while len(received) < len(sent):
        received += stream.take(min(13, len(sent) - len(received)))
    assert received == sent


def test_a_trickle_does_not_move_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    stopped = threading.Event()

    def trickle() -> None:
        while not stopped.wait(0.05):
            near.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    began = time.monotonic()
    with pytest.raises(TooSlow):
        stream_of(far, 0.4).take(16)
    assert 0.3 < time.monotonic() - began < 2
    stopped.set()
    thread.join()


def test_an_end_within_what_was_asked_for_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.sendall(b"abc")
    near.close()
    with pytest.raises(PeerGone):
        stream_of(far).take(4)


def test_waiting_ends_when_we_have_to_stop(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    wake = os.eventfd(0)
    stream = stream_of(far)
    threading.Timer(0.2, os.eventfd_write, (wake, 1)).start()
    assert stream.wait(wake) is False
    near.sendall(b"x")
    assert stream.wait(wake) is True  # what has begun is still read
    os.close(wake)
    with pytest.raises(TooSlow):
        stream_of(far, 0).take(16)
