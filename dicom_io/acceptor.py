"""A listener process: accepts connections on inherited sockets and holds each association in a thread of its own.

Started by `dicom_io.listener`, which writes its orders to stdin: ``python -m dicom_io.acceptor``. It dies with its
parent. SIGTERM: accept nobody any more, finish the messages that are being received, end.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import selectors
import signal
import socket
import ssl
import sys
import threading
import time
from types import FrameType

import structlog

from config.settings import Door
from dicom_io.admission import Complaints, recognize
from dicom_io.association import Association, Caller, Host
from dicom_io.logs import configure_logs
from dicom_io.orders import Orders, tls_context
from dicom_io.reception import place
from dicom_io.seats import Seats
from dicom_io.spool import Spool
from dicom_io.upper_layer import ProtocolViolation

GRACE_S = 25.0
"""Time for messages in progress after SIGTERM; the parent ends what is left after 30 s."""
ACCEPT_PAUSE_S = 0.05
ADDRESSES_REMEMBERED = 4096
ACCEPT_AT_ONCE = 16
"""Connections accepted at one door before the other doors get their turn."""
SWITCH_INTERVAL_S = 0.0001
"""How long one thread may keep the interpreter: peers that send tiny fragments must not slow down the others."""
_PR_SET_PDEATHSIG = 1


class Entrance:
    """One listening socket and its door."""

    def __init__(self, listening: socket.socket, door: Door, host: Host) -> None:
        self._listening = listening
        self._door = door
        self._host = host
        self._tls = tls_context(door.tls) if door.tls is not None else None
        self._recognize = functools.lru_cache(ADDRESSES_REMEMBERED)(functools.partial(recognize, host.settings))

    def admit(self) -> bool:
        """Accept one connection, False when there is none: strangers and too many are closed at once."""
        try:
            connection, (address, port, *_) = self._listening.accept()
        except BlockingIOError:  # or another process was faster
            return False
        except OSError:  # no descriptors left: ours or the system's
            self._host.complaints.add("accept-failed", "any")
            time.sleep(ACCEPT_PAUSE_S)
            return False
        address, is_known = self._recognize(address)
        seat = self._host.seats.take(address) if is_known else None
        if seat is None:
            connection.close()
            self._host.complaints.add("too-many-connections" if is_known else "unknown-address", address)
            return True
        caller = Caller(self._door, address, port, time.monotonic(), seat)
        try:
            threading.Thread(target=self._receive, args=(connection, caller), daemon=True).start()
        except RuntimeError:  # the system has no threads left
            connection.close()
            self._host.seats.leave(seat)
            self._host.complaints.add("no-thread", address)
        return True

    def _receive(self, connection: socket.socket, caller: Caller) -> None:
        """The outer edge of a connection: whatever goes wrong costs this connection only."""
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._secured(connection) as secured:
                    Association(secured, caller, self._host).hold()
        except ProtocolViolation as violation:
            self._host.complaints.add(violation.code, caller.address)
        except Exception as error:  # noqa: BLE001 - outer edge: a defect of ours must cost one association, not the node
            fault = type(error).__name__
            self._host.log.error("association-failed", fault=fault, at=place(error))  # noqa: TRY400 - codes only
        finally:
            self._host.seats.leave(caller.seat)

    def _secured(self, connection: socket.socket) -> socket.socket:
        """The connection itself, or TLS over it; the whole TLS handshake has `handshake_s`."""
        if self._tls is None:
            return connection
        connection.settimeout(self._host.settings.listener.limits.handshake_s)
        try:
            return self._tls.wrap_socket(connection, server_side=True)
        except ssl.SSLError as error:
            raise ProtocolViolation(f"tls-{(error.reason or 'failed').lower()}") from None
        except OSError:
            raise ProtocolViolation("tls-handshake-not-finished") from None


def run(orders: Orders) -> None:
    """Serve until SIGTERM; a second SIGTERM ends the process at once."""
    stopping = os.eventfd(0, os.EFD_CLOEXEC)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.eventfd_write(stopping, 1)

    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the parent waits for signals with a mask that we inherit
    host = _host(orders, stopping)
    with contextlib.ExitStack() as until_stopped:
        selector = until_stopped.enter_context(selectors.DefaultSelector())
        selector.register(stopping, selectors.EVENT_READ)
        for descriptor, door in zip(orders.sockets, orders.settings.listener.doors, strict=True):
            listening = until_stopped.enter_context(socket.socket(fileno=descriptor))
            listening.settimeout(0)  # shared with other processes: the one that comes too late must not wait
            selector.register(listening, selectors.EVENT_READ, Entrance(listening, door, host))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        _accept_until_stopped(selector)
    _await_threads(GRACE_S)


def _host(orders: Orders, stopping: int) -> Host:
    limits = orders.settings.listener.limits
    log = structlog.get_logger()
    return Host(
        settings=orders.settings,
        spool=Spool(orders.data),
        seats=Seats(orders.seats, limits.associations, limits.associations_per_peer),
        stopping=stopping,
        log=log,
        complaints=Complaints(log.warning),
    )


def _accept_until_stopped(selector: selectors.BaseSelector) -> None:
    while True:
        for key, _ in selector.select():
            if key.data is None:
                return
            for _ in range(ACCEPT_AT_ONCE):
                if not key.data.admit():
                    break


def _await_threads(seconds: float) -> None:
    ends = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(max(0.0, ends - time.monotonic()))


def main() -> None:
    """Read the orders from stdin and serve."""
    # If the parent is killed nobody must keep the doors; if it already was, the signal would never come.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says SIGTERM
    orders = Orders.from_json(json.loads(sys.stdin.buffer.read()))
    if os.getppid() != orders.parent:
        return
    configure_logs()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    run(orders)


if __name__ == "__main__":
    main()
