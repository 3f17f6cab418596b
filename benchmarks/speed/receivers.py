"""The receivers that are compared, each started alone, empty and as it comes: its defaults, nothing tuned."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import sync
from pathlib import Path

import yaml

from tests.peers import Orthanc, Sender, Sending, StoreScp
from tests.processes import Server, free_port, wait_until

CALLED_AE = "TRACERD"
CALLING_AE = "PETCT1"


@dataclass(frozen=True)
class Running:
    """A receiver at work: `stored()` counts the instances it holds; `pid` is the root of its processes."""

    port: int
    pid: int
    stored: Callable[[], int]


@dataclass(frozen=True)
class Receiver:
    """`open(folder, wrapper)` starts it with all its data in `folder`; `keeps` is False for one that throws away."""

    name: str
    what: str
    open: Callable[[Path, Sequence[str]], Iterator[Running]]
    keeps: bool = True

    @contextmanager
    def running(self, folder: Path, wrapper: Sequence[str] = ()) -> Iterator[Running]:
        """Started in a new folder, killed at the end; what it stored stays."""
        folder.mkdir(parents=True)
        yield from self.open(folder, wrapper)


def send(port: int, files: Sequence[Path], associations: int) -> Sending:
    """DCMTK's storescu, one process per association."""
    return Sender(port, calling_ae=CALLING_AE, called_ae=CALLED_AE, associations=associations).send(files)


def check(receiver: Receiver, sending: Sending, stored: int) -> None:
    """RuntimeError unless every instance was acknowledged and is there."""
    expected = len(sending.results) if receiver.keeps else 0
    if sending.unacknowledged or stored != expected:
        missing = len(sending.unacknowledged)
        raise RuntimeError(f"{receiver.name}: {missing} not acknowledged, {stored} stored of {expected}")


class Site:
    """Where runs take place, each in a folder of its own that stays until the end, its files emptied.

    Deleting between the runs would slow the next one down up to tenfold: ext4 searches past every inode that was
    deleted in the last minutes whenever a file is created. For the same reason new folders are spread over the disk
    (`chattr +T`, as ext4 does with top-level folders), where it knows that.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._runs = 0
        spread = subprocess.run(["chattr", "+T", str(work)], capture_output=True, check=False)
        self.is_spread = spread.returncode == 0

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A name for the next run's folder, on a quiet disk."""
        self._runs += 1
        folder = self._work / f"run-{self._runs:04}"
        sync()
        yield folder
        for path in folder.rglob("*"):
            if path.is_file():
                os.truncate(path, 0)


def tracerd(processes: int, **limits: int) -> Callable[[Path, Sequence[str]], Iterator[Running]]:
    """Our listener, with values of `listener.limits` that differ from the defaults."""

    def open_tracerd(folder: Path, wrapper: Sequence[str]) -> Iterator[Running]:
        port, data = free_port(), folder / "data"
        configuration = {
            "data": str(data),
            "timezone": "UTC",
            "listener": {
                "doors": [{"host": "127.0.0.1", "port": port, "ae_titles": [CALLED_AE]}],
                "processes": processes,
                "limits": limits,
            },
            "peers": [{"name": "bench", "ae_title": CALLING_AE, "addresses": ["127.0.0.1/32"]}],
        }
        path = folder / "node.yaml"
        path.write_text(yaml.safe_dump(configuration))
        command = [sys.executable, "-m", "daemon", "serve", "--only", "listener", "--config", str(path)]
        server = Server("tracerd", command, port, folder / "tracerd.log", wrapper)
        try:
            server.start()
            # The port is open before the processes behind it are ready to accept.
            wait_until(lambda: "listening" in server.log_tail(), timeout=30)
            yield Running(port, server.pid, lambda: len(list((data / "spool" / "inbox").glob("*.dcm"))))
        finally:
            server.stop()

    return open_tracerd


def _orthanc(folder: Path, wrapper: Sequence[str]) -> Iterator[Running]:
    # SyncStorageArea true and StorageCompression false are its defaults; said here because they decide the comparison.
    settings = {"SyncStorageArea": True, "StorageCompression": False}
    with Orthanc(folder, settings=settings, wrapper=wrapper) as archive:
        yield Running(archive.dicom_port, archive.pid, archive.count)


def _storescp(*options: str) -> Callable[[Path, Sequence[str]], Iterator[Running]]:
    def open_storescp(folder: Path, wrapper: Sequence[str]) -> Iterator[Running]:
        with StoreScp(folder, bit_preserving=False, options=options, wrapper=wrapper) as archive:
            yield Running(archive.port, archive.pid, lambda: len(archive.files()))

    return open_storescp


RECEIVERS = (
    Receiver("tracerd", "our listener, one process (the default)", tracerd(1)),
    Receiver("tracerd ×2", "our listener, processes: 2", tracerd(2)),
    Receiver("Orthanc", "no plug-ins, SyncStorageArea true (the default)", _orthanc),
    Receiver("storescp", "DCMTK's, as it comes: one association after the other", _storescp()),
    Receiver(
        "sender alone",
        "storescp --fork --ignore: reads and throws away, the sender's own ceiling",
        _storescp("--fork", "--ignore"),
        keeps=False,
    ),
)
