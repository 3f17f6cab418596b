"""What hostile and broken peers do, in a process of its own.

``python -m tests.wire.attacks SECONDS PLAIN_PORT TLS_PORT``

Every attack comes from an address of its own, so that none is kept out because another has used up the places of its
address. In the end it prints, per attack and door, how often it connected and how many bytes it got rid of.
"""

import contextlib
import json
import os
import random
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.wire.listening import LOOPBACK, associate_request, fragment, store_request

STRANGER, SILENT, GREEDY, SLOW, NOISY = (f"127.0.0.{last}" for last in (2, 3, 4, 5, 6))
HOSTILE = (SILENT, GREEDY, SLOW, NOISY)
"""On the allow-list; the stranger is not."""

SIX_BYTES = bytes.fromhex("01 00 000000ff")
SIX_BYTES_OF_TLS = bytes.fromhex("16 0301 0200 01")
"""The beginning of a TLS record that holds a ClientHello of 512 bytes."""
FOUR_GIB = bytes.fromhex("01 00 ffffffff")
STORE_COMMAND, STORE_DATA = store_request(bytes(1000))
MANY_FRAGMENTS = fragment(bytes(16384), is_last=False) * 4
TINY_FRAGMENTS = fragment(b"x", is_last=False) * 5000


@dataclass
class Attack:
    """One kind of peer at one door: `deed` is done on a new connection again and again until the time is over."""

    name: str
    source: str
    deed: "Callable[[Attack, socket.socket], None]"
    peers: int
    port: int
    ends: float
    tls: ssl.SSLContext | None = None
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.ends

    def start(self) -> list[threading.Thread]:
        threads = [threading.Thread(target=self.run) for _ in range(self.peers)]
        for thread in threads:
            thread.start()
        return threads

    def run(self) -> None:
        while not self.is_over:
            with contextlib.suppress(OSError), self.connect() as connection:
                self.counts["connections"] += 1
                self.deed(self, connection)
            time.sleep(0.05)

    def connect(self) -> socket.socket:
        connection = socket.create_connection((LOOPBACK, self.port), 5, (self.source, 0))
        return self.tls.wrap_socket(connection) if self.tls else connection

    def send(self, connection: socket.socket, content: bytes) -> None:
        connection.sendall(content)
        self.counts["bytes"] += len(content)

    def associate(self, connection: socket.socket) -> None:
        self.send(connection, associate_request())
        if connection.recv(65536)[:1] == b"\x02":
            self.counts["associations"] += 1


def silence(attack: Attack, connection: socket.socket) -> None:
    """Six bytes and no more; at a TLS door, of a handshake that is never continued."""
    attack.send(connection, SIX_BYTES_OF_TLS if attack.name.endswith("tls") else SIX_BYTES)
    connection.settimeout(0.5)
    while not attack.is_over:
        with contextlib.suppress(TimeoutError):
            if not connection.recv(100):
                return


def four_gib(attack: Attack, connection: socket.socket) -> None:
    """A PDU that claims 4 GiB, and as much of it as anybody takes."""
    attack.send(connection, FOUR_GIB)
    while not attack.is_over:
        attack.send(connection, bytes(65536))


def endless(attack: Attack, connection: socket.socket) -> None:
    attack.associate(connection)
    attack.send(connection, STORE_COMMAND)
    while not attack.is_over:
        attack.send(connection, MANY_FRAGMENTS)


def endless_and_tiny(attack: Attack, connection: socket.socket) -> None:
    attack.associate(connection)
    attack.send(connection, STORE_COMMAND)
    while not attack.is_over:
        attack.send(connection, TINY_FRAGMENTS)


def trickle(attack: Attack, connection: socket.socket) -> None:
    """One byte a second of the very first PDU."""
    drip(attack, connection, associate_request())


def trickle_of_an_object(attack: Attack, connection: socket.socket) -> None:
    attack.associate(connection)
    attack.send(connection, STORE_COMMAND)
    drip(attack, connection, STORE_DATA)


def drip(attack: Attack, connection: socket.socket, content: bytes) -> None:
    for byte in content:
        attack.send(connection, bytes([byte]))
        time.sleep(1)
        if attack.is_over:
            return


def noise(attack: Attack, connection: socket.socket) -> None:
    """HTTP, the beginning of a TLS greeting, a mangled request, random bytes."""
    rng = random.Random(attack.counts["connections"])
    mangled = bytearray(associate_request())
    for _ in range(8):
        mangled[rng.randrange(len(mangled))] = rng.randrange(256)
    http, greeting = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes.fromhex("160301020001000001fc0303")
    attack.send(connection, rng.choice((http, greeting, bytes(mangled), rng.randbytes(1000))))
    connection.settimeout(0.5)
    connection.recv(1000)


def attacks(plain: int, secured: int, ends: float) -> list[Attack]:
    """Everything at once. Behind the TLS handshake go those that need an association to hurt."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    at_once = []
    for door, port, inside in (("plain", plain, None), ("tls", secured, tls)):
        at_once += [
            Attack(f"silence of strangers, {door}", STRANGER, silence, 50, port, ends),
            Attack(f"silence, {door}", SILENT, silence, 50, port, ends),
            Attack(f"four GiB, {door}", NOISY, four_gib, 3, port, ends, inside),
            Attack(f"noise, {door}", NOISY, noise, 3, port, ends),
            Attack(f"endless, {door}", GREEDY, endless, 2, port, ends, inside),
            Attack(f"endless and tiny, {door}", GREEDY, endless_and_tiny, 2, port, ends, inside),
            Attack(f"trickle, {door}", SLOW, trickle, 3, port, ends),
            Attack(f"trickle of an object, {door}", SLOW, trickle_of_an_object, 3, port, ends, inside),
        ]
    return at_once


def main() -> None:
    os.nice(10)  # they are on other machines: here they must not take the processors away
    seconds, plain, secured = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    at_once = attacks(plain, secured, time.monotonic() + seconds)
    threads = [thread for attack in at_once for thread in attack.start()]
    for thread in threads:
        thread.join()
    print(json.dumps({attack.name: attack.counts for attack in at_once}))


if __name__ == "__main__":
    main()
