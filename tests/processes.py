"""Programs and processes around a test: finding, starting, watching and ending them, free ports, waiting.

A missing program skips the test aloud; where CI is set it is a failure instead.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import psutil
import pytest

DEBIAN_PACKAGES = {
    "storescu": "dcmtk",
    "storescp": "dcmtk",
    "echoscu": "dcmtk",
    "dcmdump": "dcmtk",
    "Orthanc": "orthanc",
    "dciodvfy": "dicom3tools",
    "strace": "strace",
    "chromium": "chromium",
}
# Without TCP_NODELAY, Nagle's algorithm and delayed acknowledgements cost DCMTK up to 40 ms per message.
ENVIRONMENT = {"TCP_NODELAY": "1", "LC_ALL": "C.UTF-8"}

Result = TypeVar("Result")


def program(name: str) -> str:
    """The path of an installed program; else the test is skipped (fails under CI), naming the Debian package."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        missing(f"{name} is missing: apt-get install --no-install-recommends {DEBIAN_PACKAGES.get(name, name)}")
    return path


def missing(what: str) -> NoReturn:
    """Skips the test aloud; fails it under CI, where everything is to be there."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


_ports_given: set[int] = set()


def free_port() -> int:
    """A TCP port on which nobody listens and which this process has not been given before.

    From below Linux's ephemeral range, so that no outgoing connection can take it before its server does.
    """
    for port in random.SystemRandom().sample(range(20000, 32000), 1000):
        if port in _ports_given:
            continue
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            _ports_given.add(port)
            return port
    raise RuntimeError("found no free port between 20000 and 32000")


def wait_until(condition: Callable[[], Result], timeout: float, *, every: float = 0.02) -> Result:
    """The first true result of `condition`, asked every `every` seconds; TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{getattr(condition, '__name__', 'condition')} not fulfilled within {timeout} s")
        time.sleep(every)
    return result


def process_tree(pid: int) -> list[psutil.Process]:
    """The living processes of a tree, its root first; empty when the root is gone or a zombie."""
    try:
        root = psutil.Process(pid)
        if root.status() == psutil.STATUS_ZOMBIE:
            return []
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def rss_bytes(pid: int, *, tree: bool = False) -> int:
    """Resident memory of a process, or of it and all its descendants (shared pages then count for each)."""
    total = 0
    for process in process_tree(pid) if tree else [psutil.Process(pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def listens(pid: int, port: int) -> bool:
    """Whether the process or a descendant has a listening TCP socket on the port."""
    for process in process_tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return True
    return False


@dataclass
class Server:
    """A program that listens on `port`, with a log file. It dies with the thread that started it, at the latest.

    `wrapper` is put before the command (strace and its options, for example).
    """

    name: str
    command: Sequence[str]
    port: int
    log: Path
    wrapper: Sequence[str] = ()
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    def start(self, timeout: float = 30) -> None:
        """Returns when the port is listening; RuntimeError with the log's end when the program dies before."""
        die_with_us = [program("setpriv"), "--pdeathsig", "KILL", "--"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*die_with_us, *self.wrapper, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | ENVIRONMENT,
            )
        wait_until(self._listens_or_died, timeout)

    def _listens_or_died(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self._process.returncode}: {self.log_tail()}")
        return listens(self._process.pid, self.port)

    def log_tail(self, characters: int = 2000) -> str:
        return self.log.read_text(errors="replace")[-characters:]

    def stop(self, signal_number: int = signal.SIGTERM, timeout: float = 20) -> None:
        """End it and everything it started; by SIGKILL when it has not gone by itself in time."""
        if self._process is None:
            return
        tree = process_tree(self._process.pid)
        # A tracer that is told to end leaves its tracee behind: tell the program itself.
        for process in tree[1:] if self.wrapper else tree[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(timeout)
        self._process = None

    def kill(self) -> None:
        """SIGKILL, as a power cut for the process would."""
        self.stop(signal.SIGKILL)
