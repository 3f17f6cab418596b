"""`tracerd doctor`: what would keep a node from working on this machine, one finding per line."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import sqlite3
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil

from config.load import ConfigError
from config.settings import Door, Settings
from daemon.ask import running_status
from daemon.check import sound_settings
from daemon.node import Folders
from daemon.verification import Verification, verify
from dicom_io.errors import DicomError
from dicom_io.exchange import greet

OLDEST_PYTHON = (3, 11)
PACKAGES = ("pydicom", "pynetdicom", "highdicom", "numpy", "sqlalchemy", "distributed", "pydantic", "fastapi")
PROGRAMS = {"storescp": "dcmtk", "storescu": "dcmtk"}
"""Programs that only `tracerd demo` and the tests use → their Debian package."""
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph", "fuse.glusterfs"}
WAL_RESET_FIXED = (3, 51, 3)
ECHO_TIMEOUT_S = 5.0
TIMEX_BYTES = 512
"""More than any C library's `struct timex`."""
TIME_ERROR = 5


class Verdict(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    verdict: Verdict
    words: str

    def to_json(self) -> dict[str, Any]:
        """As plain text fields."""
        return asdict(self)


def examine(config: Path | None) -> list[Finding]:
    """Look at the machine and, with a configuration, at the node it describes."""
    findings = [*software(), *clock(), *suv("SUV self-test", verify())]
    if config is None:
        return findings
    try:
        settings = sound_settings(config)
    except ConfigError as error:
        return [*findings, *(Finding("configuration", Verdict.FAIL, fault) for fault in error.faults)]
    findings.append(Finding("configuration", Verdict.OK, f"{config} has no fault"))
    status = running_status(settings)
    if status is not None and status.get("suv_self_test"):  # None of an older version
        findings += suv("SUV self-test of the running node", Verification.from_json(status["suv_self_test"]))
    return [*findings, *data_folder(settings), *resources(settings), *network(settings, running=status is not None)]


def software() -> Iterator[Finding]:
    """Versions of Python and the packages, SQLite's known fault, programs."""
    version = ".".join(map(str, sys.version_info[:3]))
    fit = sys.version_info >= OLDEST_PYTHON
    yield Finding(
        "Python", Verdict.OK if fit else Verdict.FAIL, version if fit else f"{version}, expected 3.11 or newer"
    )
    for name in PACKAGES:
        try:
            yield Finding(name, Verdict.OK, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, Verdict.FAIL, "not installed: install tracerd again into its own environment")
    fixed = sqlite3.sqlite_version_info >= WAL_RESET_FIXED
    note = "" if fixed else "; older than 3.51.3: safe because only one connection of one process writes"
    yield Finding("SQLite", Verdict.OK, f"{sqlite3.sqlite_version}{note}")
    for program, package in PROGRAMS.items():
        path = shutil.which(program)
        install = f"not found; only `tracerd demo` needs it: apt-get install --no-install-recommends {package}"
        yield Finding(program, Verdict.OK if path else Verdict.WARN, path or install)


def clock() -> Iterator[Finding]:
    """Whether the kernel calls its clock synchronised (adjtimex(2)); DICOM times are only as good."""
    now = datetime.now(tz=UTC)
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    good = state not in {TIME_ERROR, -1}
    words = f"{now:%Y-%m-%d %H:%M:%S} UTC" + ("" if good else "; not synchronised: run chrony or systemd-timesyncd")
    yield Finding("clock", Verdict.OK if good else Verdict.WARN, words)


def suv(what: str, verification: Verification) -> Iterator[Finding]:
    """Every reference object that is not read as it was made."""
    if not verification.deviations:
        yield Finding(what, Verdict.OK, verification.words)
    for deviation in verification.deviations:
        yield Finding(what, Verdict.FAIL, deviation)


def data_folder(settings: Settings) -> Iterator[Finding]:
    """Rights, kind of file system, and whether everything lies on one of them."""
    folders = Folders(settings.data.resolve())
    place = next(path for path in (folders.data, *folders.data.parents) if path.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("data folder", Verdict.FAIL, f"{place}: expected a folder this user may write to")
        return
    private = place != folders.data or not stat.S_IMODE(place.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
    words = f"{folders.data}" if private else f"{folders.data}: others may look inside; `tracerd serve` closes it"
    yield Finding("data folder", Verdict.OK if private else Verdict.WARN, words)
    kind = file_system_of(place)
    far = kind in NETWORK_FILE_SYSTEMS
    words = f"{kind}: expected a local file system (the database and durable storage need one)" if far else kind
    yield Finding("file system", Verdict.FAIL if far else Verdict.OK, words)
    parts = (folders.data / "spool" / "tmp", folders.data / "spool" / "inbox", folders.store, folders.results)
    devices = {path.stat().st_dev for path in (place, *parts) if path.exists()}
    one = len(devices) == 1
    words = "spool, store and results are on one" if one else "spool and store are on several: objects cannot be linked"
    yield Finding("one file system", Verdict.OK if one else Verdict.FAIL, words)


def file_system_of(path: Path) -> str:
    """Kind of the file system a path lies on, by the longest mount point above it."""
    mounts = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    return str(max(mounts, key=lambda part: len(part.mountpoint)).fstype) if mounts else "unknown"


def resources(settings: Settings) -> Iterator[Finding]:
    """Disk, memory, and the site's zone against the machine's."""
    place = next(path for path in (settings.data.resolve(), *settings.data.resolve().parents) if path.exists())
    disk = shutil.disk_usage(place)
    free, least = disk.free, settings.listener.limits.free_bytes_min
    used_percent = 100.0 * disk.used / disk.total
    high = settings.retention.high_water_percent
    words = f"{gib(free)} free of {gib(disk.total)}"
    if free < least:
        yield Finding("disk", Verdict.FAIL, f"{words}; nothing is accepted below {gib(least)}")
    elif used_percent >= high:
        yield Finding("disk", Verdict.WARN, f"{words}; above {high} % the oldest finished studies are removed")
    else:
        yield Finding("disk", Verdict.OK, words)
    memory, wanted = psutil.virtual_memory().total, settings.execute.workers * settings.execute.memory_bytes
    enough = memory >= wanted
    words = f"{gib(memory)}" if enough else f"{gib(memory)}; the workers may take {gib(wanted)} (execute.memory_bytes)"
    yield Finding("memory", Verdict.OK if enough else Verdict.WARN, words)
    now = datetime.now(tz=UTC)
    here, there = now.astimezone().utcoffset(), now.astimezone(ZoneInfo(settings.timezone)).utcoffset()
    same = here == there
    words = f"{settings.timezone}" + ("" if same else f", {there} from UTC; this machine is at {here}: is that right?")
    yield Finding("time zone", Verdict.OK if same else Verdict.WARN, words)


def network(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Whether the doors can be opened and the destinations answer."""
    yield Finding("daemon", Verdict.OK, "running" if running else "not running")
    for door in settings.listener.doors:
        yield door_finding(door, running=running)
    for name, destination in settings.destinations.items():
        impatient = destination.model_copy(update={"timeout_s": min(destination.timeout_s, ECHO_TIMEOUT_S)})
        try:
            question, took_s = greet(impatient)
            yield Finding(f"destination {name}", Verdict.OK, f"answers {question} in {1000 * took_s:.0f} ms")
        except DicomError as error:
            yield Finding(f"destination {name}", Verdict.WARN, f"{error}. {error.hint}")


def door_finding(door: Door, *, running: bool) -> Finding:
    """Whether a door's address is free, or taken by the node that runs."""
    name = f"door {door.host}:{door.port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        if running:
            return Finding(name, Verdict.OK, "in use while the node runs")
        return Finding(name, Verdict.FAIL, f"cannot be opened: {error.strerror}")
    return Finding(name, Verdict.WARN if running else Verdict.OK, "nobody listens" if running else "free")


def gib(count: int) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.1f} GiB"
