"""The witness must be right about what it saw and must change nothing: bytes crafted by hand, and DCMTK's for real."""

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

from tests.peers import Sender, StoreScp, storescu, wait_until
from tests.proxy import RecordingProxy
from tests.wiretap import Association, Minutes, Moment, Reader, accepted_transfer_syntaxes

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
PET = "1.2.840.10008.5.1.4.1.1.128"


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve PET-like slices of 128 × 128 voxels: 32 KiB each, several PDUs of 16 KiB."""
    folder, rng = tmp_path_factory.mktemp("slices"), np.random.default_rng(7)
    return [_slice(folder / f"{number:02}.dcm", rng) for number in range(12)]


def _slice(path: Path, rng: np.random.Generator) -> Path:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = PositronEmissionTomographyImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.Modality = "PROXY", "PT"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 128, 128, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = rng.integers(0, 2**16, (128, 128), dtype=np.uint16).tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


def _data_set_bytes(path: Path) -> bytes:
    """What follows the File Meta Information: preamble of 128 bytes, DICM, (0002,0000) of 12 bytes, what it counts."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<L", content, 128 + 4 + 8)
    return content[128 + 4 + 12 + length :]


@contextmanager
def _between(tmp_path: Path, *, bit_preserving: bool = True) -> Iterator[tuple[StoreScp, RecordingProxy]]:
    archive = StoreScp(tmp_path / "archive", bit_preserving=bit_preserving, options=["--fork"])
    with archive, RecordingProxy(("127.0.0.1", archive.port)) as proxy:
        yield archive, proxy


def test_records_what_dcmtk_sent_over_four_associations(tmp_path: Path, slices: list[Path]) -> None:
    with _between(tmp_path) as (archive, proxy):
        sending = storescu(slices, proxy.port, associations=4, calling_ae="PETCT9", called_ae="ARCHIVE", shuffle_seed=1)
        received = archive.received()
        stores = proxy.stores()
    assert sorted(sending.acknowledged) == sorted(slices)
    assert {store.association for store in stores} == {1, 2, 3, 4}
    assert {store.sop_instance_uid for store in stores} == {pydicom.dcmread(path).SOPInstanceUID for path in slices}
    for store in stores:
        # storescp --bit-preserving keeps the data set exactly as it came over the wire.
        kept = _data_set_bytes(received[store.sop_instance_uid])
        assert store.data_set_sha256 == hashlib.sha256(kept).hexdigest()
        assert store.data_set_bytes == len(kept)
        assert (store.calling_ae, store.called_ae) == ("PETCT9", "ARCHIVE")
        assert (store.sop_class_uid, store.transfer_syntax_uid) == (PET, EXPLICIT_LITTLE)
        assert store.succeeded
        began, ended = store.request_began, store.request_ended
        answered, forwarded = store.response_began, store.response_forwarded
        assert ended is not None
        assert answered is not None
        assert forwarded is not None
        assert began <= ended <= answered <= forwarded
        assert abs(began.utc_ns / 1e9 - time.time()) < 60
    assert proxy.faults == []


def test_transfer_syntax_is_the_one_the_archive_accepted(tmp_path: Path, slices: list[Path]) -> None:
    with _between(tmp_path) as (_, proxy):
        storescu(slices[:1], proxy.port, options=("--propose-implicit",))
        [store] = proxy.stores()
    assert store.transfer_syntax_uid == "1.2.840.10008.1.2"


def test_held_response_opens_the_window_between_stored_and_known(tmp_path: Path, slices: list[Path]) -> None:
    release = threading.Event()
    with _between(tmp_path) as (archive, proxy):
        proxy.hold_response(release)
        transmission = Sender(proxy.port).start(slices[:2])
        [store] = proxy.wait_for(lambda stores: bool(stores) and stores[0].status == 0, timeout=10)
        assert store.response_forwarded is None
        assert list(archive.received()) == [store.sop_instance_uid]
        time.sleep(0.2)
        assert len(proxy.stores()) == 1, "the sender went on without its answer"
        proxy.hold_response(None)
        release.set()
        assert len(transmission.wait(timeout=10).acknowledged) == 2


def test_held_response_of_a_killed_sender_is_never_forwarded(tmp_path: Path, slices: list[Path]) -> None:
    release = threading.Event()
    with _between(tmp_path) as (archive, proxy):
        proxy.hold_response(release)
        transmission = Sender(proxy.port).start(slices[:2])
        proxy.wait_for(lambda stores: bool(stores) and stores[0].status == 0, timeout=10)
        transmission.kill()
        assert transmission.wait(timeout=10).acknowledged == []
        release.set()
        assert len(archive.received()) == 1


def test_response_delayed_by_seconds(tmp_path: Path, slices: list[Path]) -> None:
    with _between(tmp_path) as (_, proxy):
        proxy.hold_response(0.3)
        storescu(slices[:1], proxy.port)
        [store] = proxy.stores()
    assert store.response_began is not None
    assert store.response_forwarded is not None
    assert 0.3 <= store.response_forwarded.monotonic - store.response_began.monotonic < 2


def test_callbacks_come_before_the_bytes(tmp_path: Path, slices: list[Path]) -> None:
    seen: list[tuple[str, int, int | None]] = []
    # Without --bit-preserving, storescp writes a file only when the data set is whole.
    with _between(tmp_path, bit_preserving=False) as (archive, proxy):
        proxy.on_request_complete = lambda store: seen.append(("request", len(archive.files()), store.status))
        proxy.on_response = lambda store: seen.append(("response", len(archive.files()), store.status))
        storescu(slices[:2], proxy.port)
    assert seen == [("request", 0, None), ("response", 1, 0), ("request", 1, None), ("response", 2, 0)]


@pytest.mark.parametrize(
    ("point", "stored", "acknowledged"),
    [("data set", 2, 2), ("before response", 3, 2), ("after response", 3, 3)],
)
def test_cut_at_the_third_store(tmp_path: Path, slices: list[Path], point: str, stored: int, acknowledged: int) -> None:
    with _between(tmp_path, bit_preserving=False) as (archive, proxy):
        proxy.cut_after(3, point)  # type: ignore[arg-type]  # the three literals above
        first = storescu(slices, proxy.port)
        assert len(first.acknowledged) == acknowledged
        wait_until(lambda: len(archive.files()) == stored, timeout=5)
        again = storescu(first.unacknowledged, proxy.port)
        assert len(again.acknowledged) == 12 - acknowledged
        assert len(archive.received()) == 12
        assert proxy.associations == 2


def test_paused_passes_nothing_and_resumes(tmp_path: Path, slices: list[Path]) -> None:
    with _between(tmp_path) as (archive, proxy):
        proxy.pause()
        transmission = Sender(proxy.port).start(slices[:3])
        wait_until(lambda: proxy.associations == 1, timeout=5)
        time.sleep(0.2)
        assert proxy.paused
        assert archive.files() == []
        proxy.resume()
        assert len(transmission.wait(timeout=10).acknowledged) == 3


def test_error_in_a_callback_cuts_and_reaches_the_test(tmp_path: Path, slices: list[Path]) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("not what the test expected")

    def exercise() -> None:
        with _between(tmp_path) as (_, proxy):
            proxy.on_request_complete = refuse
            acknowledged.extend(storescu(slices[:1], proxy.port).acknowledged)

    acknowledged: list[Path] = []
    with pytest.raises(AssertionError, match="not what the test expected"):
        exercise()
    assert acknowledged == []


def test_unreachable_target_is_a_reset_and_a_fault(slices: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        target = closed.getsockname()
    with RecordingProxy(target) as proxy:
        assert storescu(slices[:1], proxy.port).acknowledged == []
        assert "target" in proxy.faults[0]


# ------------------------------------------------------------------------------------------------ bytes crafted by hand


def _pdv(control: int, data: bytes, context: int = 5) -> bytes:
    return struct.pack(">LBB", len(data) + 2, context, control) + data


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def _store_request(message: int, uid: bytes) -> bytes:
    return (
        _element(0x0002, PET.encode() + b"\0")
        + _element(0x0100, struct.pack("<H", 0x0001))
        + _element(0x0110, struct.pack("<H", message))
        + _element(0x1000, uid)
    )


def _store_response(message: int, status: int) -> bytes:
    return (
        _element(0x0100, struct.pack("<H", 0x8001))
        + _element(0x0120, struct.pack("<H", message))
        + _element(0x0900, struct.pack("<H", status))
    )


ASSOCIATE_RQ = _pdu(1, struct.pack(">HH", 1, 0) + b"TRACERD".ljust(16) + b"PETCT1".ljust(16) + bytes(32))
# Presentation contexts 5 (accepted, Explicit VR Little Endian) and 7 (refused).
_SYNTAX = struct.pack(">BxH", 0x40, len(EXPLICIT_LITTLE)) + EXPLICIT_LITTLE.encode()
_CONTEXTS = b"".join(
    struct.pack(">BxHBxBx", 0x21, 4 + len(_SYNTAX), context, result) + _SYNTAX for context, result in [(5, 0), (7, 3)]
)
ASSOCIATE_AC = _pdu(2, struct.pack(">HH", 1, 0) + bytes(64) + _CONTEXTS)
DATA_SETS = [bytes(range(256)) * 3, b"\x5a" * 1001, b"ab"]
# Three requests: the command in three fragments and the data set in PDVs of one and of several PDUs; everything in one
# PDU; an empty last fragment. A C-ECHO in between.
_C = _store_request(1, b"1.2.3.1\0"), _store_request(2, b"1.2.3.2\0"), _store_request(3, b"1.2.3.3\0")
REQUESTS = (
    _pdu(4, _pdv(1, _C[0][:11]) + _pdv(1, _C[0][11:30]))
    + _pdu(4, _pdv(3, _C[0][30:]))
    + _pdu(4, _pdv(0, DATA_SETS[0][:100]) + _pdv(0, b"") + _pdv(0, DATA_SETS[0][100:300]))
    + _pdu(4, _pdv(2, DATA_SETS[0][300:]))
    + _pdu(4, _pdv(3, _C[1]) + _pdv(2, DATA_SETS[1]))
    + _pdu(4, _pdv(3, _element(0x0100, struct.pack("<H", 0x0030))))
    + _pdu(4, _pdv(3, _C[2]))
    + _pdu(4, _pdv(0, DATA_SETS[2]))
    + _pdu(4, _pdv(2, b""))
    + _pdu(5, bytes(4))
)
RESPONSES = (
    _pdu(4, _pdv(3, _store_response(1, 0)))
    + _pdu(4, _pdv(3, _store_response(2, 0xA700)))
    + _pdu(4, _pdv(3, _store_response(3, 0xB000)))
    + _pdu(6, bytes(4))
)


def _chunks(stream: bytes, cuts: list[int]) -> Iterator[memoryview]:
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    for start, end in pairwise(edges):
        yield memoryview(stream)[start:end]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 100_000), max_size=60), st.lists(st.integers(0, 100_000), max_size=20))
def test_cutting_the_stream_anywhere_changes_no_record(there: list[int], back: list[int]) -> None:
    minutes = Minutes()
    association = Association(minutes, 1)
    to_target, to_client = Reader(association, to_target=True), Reader(association, to_target=False)
    events = []
    for reader, stream, cuts in [
        (to_target, ASSOCIATE_RQ, there),
        (to_client, ASSOCIATE_AC, back),
        (to_target, REQUESTS, there),
        (to_client, RESPONSES, back),
    ]:
        for chunk in _chunks(stream, cuts):
            found = reader.feed(chunk, Moment.now())
            assert all(0 <= event.offset <= event.end <= len(chunk) for event in found)
            events += [(event.kind, event.store) for event in found]
    assert (to_target.fault, to_client.fault) == (None, None)
    stores = minutes.all()
    assert [store.sop_instance_uid for store in stores] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert [store.data_set_sha256 for store in stores] == [hashlib.sha256(data).hexdigest() for data in DATA_SETS]
    assert [store.data_set_bytes for store in stores] == [768, 1001, 2]  # 3 × 256; 1001; 2
    assert [store.status for store in stores] == [0x0000, 0xA700, 0xB000]
    assert {(store.calling_ae, store.called_ae, store.transfer_syntax_uid) for store in stores} == {
        ("PETCT1", "TRACERD", EXPLICIT_LITTLE)
    }
    begun = [("data set", number) for number in range(3)], [("request", number) for number in range(3)]
    assert events[:6] == [event for pair in zip(*begun, strict=True) for event in pair]
    assert events[6:] == [("response", number) for number in range(3)]


def test_only_accepted_contexts_have_a_transfer_syntax() -> None:
    assert accepted_transfer_syntaxes(ASSOCIATE_AC[6:]) == {5: EXPLICIT_LITTLE}


@pytest.mark.parametrize(
    "lie",
    [
        _pdu(4, struct.pack(">LBB", 1, 5, 3)),  # a PDV of 1 byte has no room for context and control
        _pdu(4, struct.pack(">LBB", 1000, 5, 3) + bytes(10)),  # longer than its PDU
        _pdu(4, bytes(5)),  # too short for a PDV header
        _pdu(4, _pdv(3, b"\x08\0\x16\0\x02\0\0\0ab")),  # a command of group 0008
        _pdu(4, _pdv(3, struct.pack("<HHL", 0, 0x0100, 400) + b"ab")),  # an element longer than its command
        struct.pack(">BxL", 1, 1 << 30),  # an association request of 1 GiB
    ],
)
def test_lies_about_lengths_end_the_reading(lie: bytes) -> None:
    reader = Reader(Association(Minutes(), 1), to_target=True)
    reader.feed(memoryview(lie), Moment.now())
    assert reader.fault is not None


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=400), st.lists(st.integers(0, 100_000), max_size=5))
def test_garbage_is_named_and_never_raises(garbage: bytes, cuts: list[int]) -> None:
    minutes = Minutes()
    reader = Reader(Association(minutes, 1), to_target=True)
    for chunk in _chunks(garbage, cuts):
        reader.feed(chunk, Moment.now())
    if garbage[0] == 0 or garbage[0] > 7:
        assert reader.fault is not None or len(garbage) < 6
    assert minutes.all() == []


def _exchange(proxy: RecordingProxy, outgoing: bytes, server: socket.socket, incoming: bytes) -> tuple[bytes, bytes]:
    """What server and client received when one sent `outgoing` and the other `incoming`, both ending with a FIN."""
    received: dict[str, bytes] = {}

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(incoming)
            connection.shutdown(socket.SHUT_WR)
            received["server"] = _all_of(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.sendall(outgoing)
        client.shutdown(socket.SHUT_WR)
        received["client"] = _all_of(client)
    thread.join(10)
    return received["server"], received["client"]


def _all_of(connection: socket.socket) -> bytes:
    content = b""
    while chunk := connection.recv(65536):
        content += chunk
    return content


@pytest.mark.parametrize("content", [b"GET / HTTP/1.1\r\n\r\n" * 1000, ASSOCIATE_RQ + REQUESTS, bytes(100_000), b""])
def test_every_byte_passes_unchanged_dicom_or_not(content: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, RecordingProxy(server.getsockname()) as proxy:
        assert _exchange(proxy, content, server, content[::-1]) == (content, content[::-1])


def test_it_is_faster_than_what_it_watches() -> None:
    """200 MB/s is twice what one association of any receiver we know takes in; best of three on a shared machine."""
    fragment = bytes(16372)
    body = b"".join(_pdu(4, _pdv(0, fragment)) for _ in range(31)) + _pdu(4, _pdv(2, fragment))
    store = _pdu(4, _pdv(3, _store_request(1, b"1.2.3.1\0"))) + body
    count = 200  # × 32 × 16384 bytes = 105 MB
    rates = [_bytes_per_second(store, count) for _ in range(3)]
    assert max(rates) > 200e6, f"only {max(rates) / 1e6:.0f} MB/s"


def _bytes_per_second(store: bytes, count: int) -> float:
    with socket.create_server(("127.0.0.1", 0)) as server, RecordingProxy(server.getsockname()) as proxy:
        swallow = threading.Thread(target=_swallow, args=(server,))
        swallow.start()
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            for _ in range(count):
                client.sendall(store)
        swallow.join()
        seconds = time.monotonic() - began
        assert len([each for each in proxy.stores() if each.request_ended]) == count
    return count * len(store) / seconds


def _swallow(server: socket.socket) -> None:
    connection, _ = server.accept()
    buffer = bytearray(1 << 20)
    with connection:
        while connection.recv_into(buffer):
            pass
