"""The receiving door: C-ECHO and C-STORE, bytes → spool, nothing else.

This parent opens the doors and keeps processes behind them (`dicom_io.acceptor`) that inherit the sockets; it never
reads from a peer itself. A process that dies is replaced; if the parent dies, the kernel ends the others.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from config.load import ConfigError, load
from config.settings import Door, Settings
from dicom_io.errors import DicomError
from dicom_io.ledger import clear_ledger, is_of_process, record_lost
from dicom_io.logs import configure_logs
from dicom_io.orders import DoorUnusable, Orders, tls_context
from dicom_io.seats import Seats
from dicom_io.spool import Spool

BACKLOG = 1024
"""Connections the kernel keeps for us. When it is full a SYN is dropped, and a peer that behaves waits a second."""
STOP_S = 30.0
LOCK_WAIT_S = 2.0
RESTART_FIRST_S = 0.1
RESTART_MAX_S = 5.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class ProcessFailed(DicomError):
    """A listener process ended before it could accept anybody."""

    code = "listener-process-failed"
    hint = "The log lines before this one say why."


def serve(settings: Settings, data: Path, ready: Callable[[], None] | None = None) -> None:
    """Receive until SIGTERM or SIGINT: blocks, and belongs in the main thread of a process without other threads.

    ready : called once every door is open and served

    Raises
    ------
    DoorUnusable, dicom_io.spool.SpoolUnusable, ProcessFailed
        Nothing can be received; nothing is left running.
    """
    spool = Spool(data.absolute())
    spool.prepare()
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(_sole_listener(spool))
        log = structlog.get_logger()
        log.info("listener-starts", left_in_tmp=spool.clear_tmp(), associations_lost=clear_ledger(spool))
        doors = settings.listener.doors
        sockets = [stack.enter_context(_open(door)) for door in doors]
        limits = settings.listener.limits
        seats = Seats.create(limits.associations, limits.associations_per_peer)
        orders = Orders(settings, spool.data, os.getpid(), tuple(each.fileno() for each in sockets), seats.descriptor)
        stack.enter_context(_signals_blocked())
        crew = Crew(orders, seats, lock)
        stack.callback(crew.kill)
        crew.start()
        log.info("listening", doors=[f"{door.host}:{door.port}" for door in doors], processes=len(crew.processes))
        if ready is not None:
            ready()
        crew.tend()
        for each in sockets:
            each.close()
        crew.stop()
        log.info("listener-stopped")


@contextlib.contextmanager
def _sole_listener(spool: Spool) -> Iterator[int]:
    """Hold ``run/listener.lock``; its descriptor is inherited, so it is free only when the last process is gone."""
    descriptor = os.open(spool.data / "run" / "listener.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        ends = time.monotonic() + LOCK_WAIT_S
        while not _locks(descriptor):
            if time.monotonic() > ends:
                raise DoorUnusable("run/listener.lock: another listener serves this data folder")
            time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(door: Door) -> socket.socket:
    """A listening socket at the door's address; TLS files are tried here, where a fault can still be told."""
    if door.tls is not None:
        tls_context(door.tls)
    try:
        family, _, _, _, address = socket.getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM)[0]
        # "::" is every address of both families, which is what doors_that_collide takes it for.
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=address[0] == "::")
    except OSError as error:
        raise DoorUnusable(f"{door.host}:{door.port}: expected to listen there, got {error.strerror}") from error


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Signals wait until they are asked for: nothing can interrupt between looking and acting."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(slots=True)
class Post:
    """One of the processes that ought to run; `due` is when (monotonic clock) to start it again after its death."""

    process: subprocess.Popen[bytes]
    started: float
    delay_s: float = RESTART_FIRST_S
    due: float | None = None


class Crew:
    """The processes behind the doors."""

    def __init__(self, orders: Orders, seats: Seats, lock: int) -> None:
        self._orders = orders
        self._spool = Spool(orders.data)
        self._seats = seats
        self._inherited = (*orders.sockets, orders.seats, lock)
        self._posts: list[Post] = []
        self._log = structlog.get_logger()

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """The processes that run, or did until a moment ago."""
        return [post.process for post in self._posts if post.due is None]

    def start(self) -> None:
        """Start every process and wait until each says that it accepts connections."""
        for _ in range(self._orders.settings.listener.processes):
            self._posts.append(Post(self._spawn(subprocess.PIPE), time.monotonic()))
        for process in self.processes:
            assert process.stdout is not None  # noqa: S101 - asked for above
            with process.stdout as stdout:
                if stdout.readline() != b"ready\n":
                    raise ProcessFailed("a listener process ended before it was ready")

    def tend(self) -> None:
        """Replace processes that die until somebody asks us to stop."""
        while True:
            due = [post.due for post in self._posts if post.due is not None]
            wait_s = max(0.0, min(due) - time.monotonic()) if due else 3600.0
            received = signal.sigtimedwait(SIGNALS, wait_s)
            if received is not None and received.si_signo != signal.SIGCHLD:
                return
            for post in self._posts:
                if post.due is None and post.process.poll() is not None:
                    self._bury(post)
                elif post.due is not None and time.monotonic() >= post.due:
                    post.process, post.started, post.due = self._spawn(subprocess.DEVNULL), time.monotonic(), None
                    self._log.info("process-started", process=post.process.pid)

    def stop(self) -> None:
        """Let the processes finish what they receive, for `STOP_S` at most or until we are asked a second time."""
        ends = time.monotonic() + STOP_S
        for process in self.processes:
            process.terminate()
        while any(process.poll() is None for process in self.processes) and time.monotonic() < ends:
            received = signal.sigtimedwait(SIGNALS, max(0.0, ends - time.monotonic()))
            if received is not None and received.si_signo != signal.SIGCHLD:
                break

    def kill(self) -> None:
        """End what is left, and write down what it leaves behind."""
        for post in self._posts:
            if post.due is None:
                post.process.kill()
                post.process.wait()
                self._clear_up(post.process.pid)

    def _spawn(self, stdout: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicom_io.acceptor"],
            stdin=subprocess.PIPE,
            stdout=stdout,
            pass_fds=self._inherited,
        )
        assert process.stdin is not None  # noqa: S101 - asked for above
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(self._orders.to_json().encode())
        return process

    def _bury(self, post: Post) -> None:
        """A process died: end its associations, free its seats, and decide when to start the next one."""
        now = time.monotonic()
        lived_s = now - post.started
        post.delay_s = RESTART_FIRST_S if lived_s > RESTART_MAX_S else min(RESTART_MAX_S, 2 * post.delay_s)
        post.due = now + post.delay_s
        lost = self._clear_up(post.process.pid)
        self._log.error("process-died", process=post.process.pid, status=post.process.returncode, associations=lost)

    def _clear_up(self, pid: int) -> int:
        self._seats.vacate(pid)
        self._spool.clear_tmp(lambda name: is_of_process(name, pid))
        return record_lost(self._spool, pid)


def main() -> int:
    """`python -m dicom_io.listener --config FILE`: exit 0 stopped as asked, 1 cannot receive, 2 configuration."""
    parser = argparse.ArgumentParser(description="Receive DICOM objects into the spool of a node.")
    parser.add_argument("--config", type=Path, required=True)
    configure_logs()
    try:
        settings = load(parser.parse_args().config)
        serve(settings, settings.data)
    except ConfigError as error:
        sys.stderr.write("".join(f"{fault}\n" for fault in error.faults))
        return 2
    except DicomError as error:
        sys.stderr.write(f"{error}. {error.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
