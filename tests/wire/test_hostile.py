"""Broken and hostile peers cost an association, not the node.

For a minute all attacks of `tests.wire.attacks` run at once against a plain and a TLS door, while a peer that behaves
asks C-ECHO at both. Then they go, and the node has to be what it was.
"""

import json
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from pynetdicom import AE

from tests.peers import echoscu
from tests.processes import wait_until
from tests.wire.attacks import FOUR_GIB, HOSTILE, MANY_FRAGMENTS, SIX_BYTES, SIX_BYTES_OF_TLS, STORE_COMMAND
from tests.wire.certificates import make
from tests.wire.listening import (
    CALLED,
    CALLING,
    LOOPBACK,
    REPOSITORY,
    VERIFICATION,
    Listening,
    RawPeer,
    associate_request,
    associated,
    data_set_of,
    echo_request,
    fragment,
    pet_slice,
    store_request,
)

ATTACK_S = 60.0
"""How long the attacks last, on both doors at once."""
ECHO_S = 1.0
"""Within this time a C-ECHO of somebody else is answered, the association included, throughout."""
GROWTH_BYTES = 50 * 1024 * 1024
"""What each process of the listener may grow by."""
CALM_S = 60.0
"""Time after which the threads are back to their number."""

PEERS = [{"name": "petct1", "ae_title": CALLING, "addresses": [LOOPBACK, *HOSTILE]}]


@dataclass
class Echoes:
    """A peer that behaves: a new association and a C-ECHO, twice a second."""

    port: int
    tls: ssl.SSLContext | None = None
    seconds: list[float] = field(default_factory=list)
    failures: int = 0

    def run(self, is_over: threading.Event) -> None:
        ae = AE(ae_title=CALLING)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
        ae.add_requested_context(VERIFICATION)
        while not is_over.wait(0.5):
            began = time.monotonic()
            tls: Any = (self.tls, None) if self.tls else None
            association = ae.associate(LOOPBACK, self.port, ae_title=CALLED, tls_args=tls)
            if association.is_established and association.send_c_echo().get("Status") == 0:
                self.seconds.append(time.monotonic() - began)
                association.release()
            else:
                self.failures += 1


@contextmanager
def echoing(*echoes: Echoes) -> Iterator[None]:
    is_over = threading.Event()
    threads = [threading.Thread(target=each.run, args=(is_over,)) for each in echoes]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def all_processes(node: Listening) -> list[psutil.Process]:
    return [node.parent, *node.children]


@dataclass
class Watch:
    """The processes of a listener before an attack, and the most memory each has had since [bytes]."""

    node: Listening

    def __post_init__(self) -> None:
        self.processes = all_processes(self.node)
        self.rss = {process.pid: process.memory_info().rss for process in self.processes}
        self.threads = {process.pid: process.num_threads() for process in self.processes}
        self.highest = dict(self.rss)

    def look(self) -> None:
        for process in self.processes:  # one that died raises psutil.NoSuchProcess, and the test fails
            self.highest[process.pid] = max(self.highest[process.pid], process.memory_info().rss)

    @property
    def growth(self) -> list[int]:
        return [self.highest[pid] - rss for pid, rss in self.rss.items()]

    def is_calm(self) -> bool:
        return all(process.num_threads() <= self.threads[process.pid] for process in self.processes)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("certificates"))


@pytest.mark.slow
def test_all_attacks_at_once_do_not_keep_others_from_the_node(tmp_path: Path, certificates: Path) -> None:
    tls = {"certificate": str(certificates / "node.pem"), "key": str(certificates / "node.key")}
    trusting = ssl.create_default_context(cafile=certificates / "ca.pem")
    trusting.check_hostname = False
    # An object may have 64 MiB here, so that the endless ones reach the end of what is allowed within the minute.
    with Listening(tmp_path, doors=[{}, {"tls": tls}], peers=PEERS, limits={"message_bytes": "64 MiB"}) as node:
        plain, secured = node.ports
        echoes = [Echoes(plain), Echoes(secured, trusting)]
        with echoing(*echoes):  # so that what every first time costs is not taken for growth
            wait_until(lambda: all(len(each.seconds) > 2 for each in echoes), 20)
        watch = Watch(node)
        command = [sys.executable, "-m", "tests.wire.attacks", str(ATTACK_S), str(plain), str(secured)]
        with echoing(*echoes), subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as attackers:
            while attackers.poll() is None:
                watch.look()
                time.sleep(0.5)
            assert attackers.stdout is not None
            counts = json.loads(attackers.stdout.read())
        wait_until(watch.is_calm, CALM_S, every=0.2)
        watch.look()

        assert [each.failures for each in echoes] == [0, 0]
        assert all(len(each.seconds) > ATTACK_S / 2 for each in echoes)
        assert max(max(each.seconds) for each in echoes) < ECHO_S
        assert max(watch.growth) < GROWTH_BYTES
        assert all_processes(node) == watch.processes  # nobody died and was replaced
        assert_they_tried(counts)
        wait_until(lambda: node.tmp == [], 5)
        assert not node.inbox and not node.ledger("associations")
        with associated(plain) as association:
            assert association.send_c_store(pet_slice()).Status == 0
        assert len(node.log.read_bytes()) < 2_000_000  # nor did they fill the disk by way of the log


def assert_they_tried(counts: dict[str, dict[str, int]]) -> None:
    """The attacks were what they claim to be, or the test before says nothing."""
    for door in ("plain", "tls"):
        assert counts[f"silence of strangers, {door}"]["connections"] >= 1000  # closed at once, every time
        assert counts[f"silence, {door}"]["connections"] >= 50
        assert counts[f"four GiB, {door}"]["connections"] >= 20
        assert counts[f"noise, {door}"]["connections"] >= 20
        assert counts[f"endless, {door}"]["associations"] >= 2
        assert counts[f"endless, {door}"]["bytes"] >= 128 * 1024 * 1024  # past the largest object, more than once
        assert counts[f"endless and tiny, {door}"]["bytes"] >= 1_000_000
        assert counts[f"trickle, {door}"]["bytes"] >= ATTACK_S / 2
        assert counts[f"trickle of an object, {door}"]["associations"] >= 3


# --- one rule after the other, with short limits ----------------------------------------------------------------------

QUICK = {"handshake_s": 1, "read_s": 1, "idle_s": 1, "message_s": 2, "association_s": 3, "message_bytes": "1 MiB"}


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Listening]:
    tls = {"certificate": str(certificates / "node.pem"), "key": str(certificates / "node.key")}
    with Listening(tmp_path_factory.mktemp("listener") / "node", limits=QUICK, doors=[{}, {"tls": tls}]) as node:
        yield node


def lifetime(peer: RawPeer, repeated: bytes = b"", every: float = 0.25, limit: float = 10) -> float:
    """Seconds until the listener hangs up on a peer that says one thing again and again."""
    began = time.monotonic()
    peer.socket.settimeout(every)
    while time.monotonic() - began < limit:
        try:
            peer.send(repeated)
            if not peer.socket.recv(65536):
                return time.monotonic() - began
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - began
    return limit


def test_silence_ends_with_the_time_for_the_handshake(impatient: Listening) -> None:
    plain, secured = impatient.ports
    for port, first_words in ((plain, b""), (plain, SIX_BYTES), (secured, b""), (secured, SIX_BYTES_OF_TLS)):
        with RawPeer(port) as peer:
            peer.send(first_words)
            assert 0.7 < lifetime(peer) < 4, (port == plain, first_words)


def test_a_trickle_gains_no_time(impatient: Listening) -> None:
    for port in impatient.ports:
        with RawPeer(port) as peer:
            peer.send(associate_request()[:60] if port == impatient.port else b"\x16\x03\x01\x02\x00")
            assert 0.7 < lifetime(peer, b"\x01") < 4


def test_no_pdu_may_take_longer_than_its_time(impatient: Listening) -> None:
    with RawPeer(impatient.port) as peer:
        peer.associate()
        peer.send(STORE_COMMAND, fragment(bytes(1000))[:20])
        assert 0.7 < lifetime(peer, b"\0") < 4


def test_no_message_may_take_longer_than_its_time(impatient: Listening) -> None:
    with RawPeer(impatient.port) as peer:
        peer.associate()
        peer.send(STORE_COMMAND)
        assert 1.7 < lifetime(peer, fragment(b"x", is_last=False)) < 5
    wait_until(lambda: impatient.tmp == [], 5)


def test_no_association_may_last_longer_than_its_time(impatient: Listening) -> None:
    with RawPeer(impatient.port) as peer:
        peer.associate()
        assert 2.7 < lifetime(peer, echo_request()) < 6


def test_an_idle_association_is_dropped(impatient: Listening) -> None:
    with RawPeer(impatient.port) as peer:
        peer.associate()
        assert 0.7 < lifetime(peer) < 4


@pytest.mark.parametrize(
    "claim",
    [
        FOUR_GIB,
        bytes.fromhex("01 00 00100000"),  # 1 MiB before there is an association
        bytes.fromhex("04 00 00000010"),  # data before there is an association
        bytes.fromhex("63 00 00000010"),  # no PDU at all
    ],
)
def test_a_first_pdu_that_cannot_be_is_cut_off_at_once(impatient: Listening, claim: bytes) -> None:
    with RawPeer(impatient.port) as peer:
        peer.send(claim)
        assert peer.pdu() == (7, bytes((0, 0, 2, 2)))
        assert lifetime(peer) < 4


PDU_OF_2_MIB = struct.pack(">BxL", 4, 2 * 1024 * 1024)
EMPTY_FRAGMENT = fragment(b"", is_last=False)


@pytest.mark.parametrize(
    "wrong",
    [
        PDU_OF_2_MIB,
        struct.pack(">BxL", 4, 0xFFFFFFFF),
        struct.pack(">BxL", 4, 0),
        struct.pack(">BxLLBB", 4, 6, 0xFFFFFFFF, 3, 0),
        struct.pack(">BxLLBB", 4, 6, 1, 3, 0),
        EMPTY_FRAGMENT,
        fragment(b"x", context=1),  # another context than the command's
        fragment(b"x", context=99),
        STORE_COMMAND,  # a command within an object
        associate_request(),
    ],
    ids=lambda wrong: wrong[:12].hex(),
)
def test_what_must_not_follow_a_store_command_ends_the_association(impatient: Listening, wrong: bytes) -> None:
    with RawPeer(impatient.port) as peer:
        peer.associate()
        peer.send(STORE_COMMAND, fragment(b"abcd", is_last=False), wrong)
        assert peer.pdu() == (7, bytes((0, 0, 2, 2)))
    wait_until(lambda: impatient.tmp == [], 5)
    assert impatient.inbox == []


@pytest.mark.parametrize(
    "wrong",
    [
        fragment(b"data", is_last=False),
        fragment(bytes(20_000), is_command=True),  # more than any command set has
        fragment(b"\0\0\0\1\xff\xff\xff\xffxx", is_command=True),
        fragment(b"\0\0\0\1\2\0\0\0\1\0", is_command=True),  # nothing but a CommandField
        store_request(b"x", context=99)[0],
    ],
    ids=["data", "long", "claims 4 GiB", "lacks", "context"],
)
def test_what_is_no_command_ends_the_association(impatient: Listening, wrong: bytes) -> None:
    with RawPeer(impatient.port) as peer:
        peer.associate()
        peer.send(wrong)
        assert peer.pdu() == (7, bytes((0, 0, 2, 2)))


def test_crumbs_are_taken_slowly_and_not_for_ever(tmp_path: Path) -> None:
    with Listening(tmp_path) as node, RawPeer(node.port) as peer:
        peer.associate()
        peer.send(STORE_COMMAND, fragment(b"x", is_last=False) * 2000, fragment(b"x"))
        assert peer.status() == (0, "")
        assert data_set_of(node.inbox[0].read_bytes()) == b"x" * 2001
        # 10 000 of them are too many, whatever else there is in the message.
        peer.send(STORE_COMMAND, MANY_FRAGMENTS, fragment(b"x", is_last=False) * 10_001)
        assert peer.pdu() == (7, bytes((0, 0, 2, 2)))
        wait_until(lambda: node.tmp == [], 5)


def flood(peer: RawPeer, limit: int) -> None:
    for _ in range(limit // len(MANY_FRAGMENTS)):
        peer.send(MANY_FRAGMENTS)


def test_an_object_beyond_the_limit_is_cut_off(impatient: Listening) -> None:
    with RawPeer(impatient.port) as peer:
        peer.associate()
        peer.send(STORE_COMMAND)
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            flood(peer, 64 * 1024 * 1024)
    wait_until(lambda: impatient.tmp == [], 5)
    assert impatient.inbox == []


def test_a_thousand_refused_connections_leave_no_thread_behind(impatient: Listening) -> None:
    wait_until(lambda: impatient.ledger("associations") == [], 5)
    watch = Watch(impatient)
    for _ in range(1000):
        with RawPeer(impatient.port) as peer:
            peer.send(associate_request(calling="STRANGER"))
            assert peer.pdu() == (3, bytes((0, 1, 1, 3)))
    wait_until(watch.is_calm, 10)
    watch.look()
    assert max(watch.growth) < 10 * 1024 * 1024
    assert len(impatient.events("connection-refused")) < 100  # a line now and then with the count, not a thousand
    assert echoscu(impatient.port)
