"""How many connections there are, of everybody and of each address, counted across all listener processes.

Every connection takes a seat before a byte is read from it, hence half-open ones count too. The table lives in memory
that the processes share and that ends with them; the seats of a process that died are freed by its parent.
"""

from __future__ import annotations

import fcntl
import ipaddress
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SEAT = struct.Struct("<LB16s3x")
_WAITING = 0
_ADMITTED = 1


class Seats:
    """The seats of one listener. `descriptor` is inherited by the children, which make a `Seats` of their own of it.

    associations, per_address : how many may be admitted; twice as many may be connected, so that who comes too late
    still hears "local limit exceeded" and so that half-open connections cannot keep admitted peers out
    """

    def __init__(self, descriptor: int, associations: int, per_address: int) -> None:
        self.descriptor = descriptor
        self._associations = associations
        self._per_address = per_address
        self._count = 2 * associations
        os.ftruncate(descriptor, self._count * _SEAT.size)
        self._table = mmap.mmap(descriptor, self._count * _SEAT.size)
        self._threads = threading.Lock()

    @classmethod
    def create(cls, associations: int, per_address: int) -> Seats:
        """An empty table in memory."""
        return cls(os.memfd_create("tracerd-seats"), associations, per_address)

    def take(self, address: str) -> int | None:
        """A seat for a new connection, or None when there is none left for this address or at all."""
        packed = _packed(address)
        if self._free_seat(packed) is None:  # looked at without the lock, so that a flood is turned away cheaply
            return None
        with self._locked():
            seat = self._free_seat(packed)
            if seat is not None:
                self._write(seat, os.getpid(), _WAITING, packed)
            return seat

    def admit(self, seat: int) -> bool:
        """Whether the connection in this seat may have an association; then it counts as one until `leave`."""
        with self._locked():
            process, _, packed = _SEAT.unpack_from(self._table, seat * _SEAT.size)
            admitted = [where for _, (_, state, where) in self._occupied() if state == _ADMITTED]
            if len(admitted) >= self._associations or admitted.count(packed) >= self._per_address:
                return False
            self._write(seat, process, _ADMITTED, packed)
            return True

    def leave(self, seat: int) -> None:
        """The connection in this seat has ended."""
        with self._locked():
            self._write(seat, 0, _WAITING, bytes(16))

    def vacate(self, process: int) -> None:
        """Free every seat of a process that died."""
        with self._locked():
            for seat in [seat for seat, (owner, _, _) in self._occupied() if owner == process]:
                self._write(seat, 0, _WAITING, bytes(16))

    def _free_seat(self, packed: bytes) -> int | None:
        taken = {seat: where for seat, (_, _, where) in self._occupied()}
        if sum(where == packed for where in taken.values()) >= 2 * self._per_address:
            return None
        return next((seat for seat in range(self._count) if seat not in taken), None)

    def _occupied(self) -> Iterator[tuple[int, tuple[int, int, bytes]]]:
        for seat, (process, state, where) in enumerate(_SEAT.iter_unpack(self._table)):
            if process:
                yield seat, (process, state, where)

    def _write(self, seat: int, process: int, state: int, where: bytes) -> None:
        _SEAT.pack_into(self._table, seat * _SEAT.size, process, state, where)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Against threads of this process and, by a lock the kernel frees with its owner, against the others."""
        with self._threads:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self.descriptor, fcntl.LOCK_UN)


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed.rjust(16, b"\x00")
