"""Many at once, many one after the other, and one that is large: all are kept, nobody starves, memory stays flat.

`benchmarks/speed/receive_load.py` is the same with more of everything, and says how long it takes.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import psutil
import pydicom
import pytest
from pydicom.uid import EnhancedPETImageStorage

from benchmarks.memory import Growth
from tests.wire.listening import RELEASE, Listening, RawPeer, data_set_of, encoded, pet_slice, store_request

PEERS, SLICES, SLICE_BYTES = 24, 20, 80_000
MIB = 2**20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Listening]:
    limits = {"associations_per_peer": PEERS, "message_bytes": "65 MiB"}
    with Listening(tmp_path / "node", limits=limits) as listening:
        yield listening


def uid(peer: int, number: int) -> str:
    return f"1.2.826.0.1.3680043.10.2.{peer}.{number}"


def series(peer: int, count: int) -> list[bytes]:
    """Data sets that nobody else sends."""
    slices = []
    for number in range(1, count + 1):
        dataset = pet_slice(size=SLICE_BYTES)
        dataset.SOPInstanceUID = uid(peer, number)
        dataset.PixelData = os.urandom(SLICE_BYTES)
        slices.append(encoded(dataset))
    return slices


def send(peer: RawPeer, data_sets: Sequence[bytes], number: int) -> None:
    for index, data_set in enumerate(data_sets, start=1):
        peer.send(*store_request(data_set, sop_instance_uid=uid(number, index)))
        assert peer.status() == (0, "")


def kept(node: Listening) -> dict[str, bytes]:
    """SOP Instance UID → data set, of what is in the inbox; every file once."""
    found = {}
    for path in node.inbox:
        found[str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)] = data_set_of(
            path.read_bytes()
        )
    assert len(found) == len(node.inbox)
    return found


def acceptor(node: Listening) -> psutil.Process:
    (process,) = node.children
    return process


def test_many_associations_at_once_all_get_their_turn(node: Listening) -> None:
    sent = {number: series(number, SLICES) for number in range(PEERS)}
    everybody = threading.Barrier(PEERS)

    def scanner(number: int) -> None:
        with RawPeer(node.port, timeout=120) as peer:
            peer.associate()
            everybody.wait(60)
            send(peer, sent[number], number)
            peer.send(RELEASE)
            assert peer.pdu() == (6, bytes(4))

    with Growth(acceptor(node).pid) as memory, ThreadPoolExecutor(PEERS) as pool:
        list(pool.map(scanner, range(PEERS)))
    assert kept(node) == {
        uid(number, index): data for number in sent for index, data in enumerate(sent[number], start=1)
    }
    ended = node.ended(PEERS)
    assert {(each["stored"], each["refused"], each["outcome"]) for each in ended} == {(SLICES, 0, "released")}
    # Each association has a buffer of 256 KiB and a thread; no object is ever held.
    assert memory.bytes < PEERS * 2 * MIB
    # Names begin with the time of arrival. When half of all has come, nobody may be behind a third of the median.
    half = node.inbox[: PEERS * SLICES // 2]
    turns = Counter(path.name.split("-", 1)[1].rpartition("-")[0] for path in half)
    counts = [turns[each["id"]] for each in ended]
    assert min(counts) * 3 >= median(counts), sorted(counts)


def test_many_short_associations_leave_nothing_behind(node: Listening) -> None:
    """One object each, as some scanners send; eight at a time."""
    [data_set] = series(0, 1)

    def scanner(number: int) -> None:
        with RawPeer(node.port, timeout=60) as peer:
            peer.associate()
            peer.send(*store_request(data_set, sop_instance_uid=uid(number, 1)))
            assert peer.status() == (0, "")
            peer.send(RELEASE)
            assert peer.pdu() == (6, bytes(4))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(scanner, range(50)))
        before = len(node.ended(50)), acceptor(node).num_fds()
        with Growth(acceptor(node).pid) as memory:
            list(pool.map(scanner, range(50, 200)))
    ended = node.ended(200)
    assert before[0] == 50
    assert {(each["stored"], each["outcome"]) for each in ended} == {(1, "released")}
    assert len(node.inbox) == len({each["id"] for each in ended}) == 200
    assert {data_set_of(path.read_bytes()) for path in node.inbox} == {data_set}
    assert acceptor(node).num_fds() <= before[1]
    assert memory.bytes < 4 * MIB


def test_a_large_multi_frame_object_passes_through_a_small_buffer(node: Listening) -> None:
    dataset = pet_slice()
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedPETImageStorage, uid(0, 1)
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 256, 256, 512
    dataset.PixelData = os.urandom(MIB) * 64
    data_set = encoded(dataset)
    with RawPeer(node.port, timeout=120) as peer:
        peer.associate()
        send(peer, [pet_slice().PixelData], 1)  # what a first object needs is no growth
        with Growth(acceptor(node).pid) as memory:
            send(peer, [data_set], 0)
        too_large = data_set + bytes(2 * MIB)
        with pytest.raises((AssertionError, ConnectionError)):
            send(peer, [too_large], 2)
    large = max(node.inbox, key=lambda path: path.stat().st_size)
    assert data_set_of(large.read_bytes()) == data_set
    assert len(node.inbox) == 2
    assert memory.bytes < 4 * MIB
