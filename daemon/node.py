"""The collaborators of a running node, built once in app.py and handed to every step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Condition, Event
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import event
from sqlalchemy.orm import Session, UOWTransaction

from config.settings import Settings
from daemon.verification import Verification
from db.schema import Delivery, Job, Pause
from db.session import Store
from db.states import DeliveryState, JobState
from dicom_io.sandbox import Sandbox
from dicom_io.spool import Spool

TRACERD_VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the node keeps its files; every path in the database is relative to `data`."""

    data: Path

    @property
    def store(self) -> Path:
        """Indexed objects by day of arrival."""
        return self.data / "store"

    @property
    def results(self) -> Path:
        """results/<job>/<attempt>/"""
        return self.data / "results"

    @property
    def quarantine(self) -> Path:
        """Objects that could not be read."""
        return self.data / "quarantine"

    @property
    def models(self) -> Path:
        """SHA256.safetensors and SHA256.yaml of each model"""
        return self.data / "models"

    @property
    def run(self) -> Path:
        """Sockets and marks of the running processes."""
        return self.data / "run"

    @property
    def control_socket(self) -> Path:
        """Where the running daemon takes commands."""
        return self.run / "control.sock"

    @property
    def database(self) -> Path:
        """The one owner of state."""
        return self.data / "node.db"

    @property
    def lock(self) -> Path:
        """Held by the one daemon of this data folder."""
        return self.data / "node.lock"

    def create(self) -> None:
        """Make what is missing; only our own user may look inside."""
        self.data.mkdir(parents=True, exist_ok=True)
        self.data.chmod(0o700)
        for folder in (self.store, self.results, self.quarantine, self.models, self.run):
            folder.mkdir(exist_ok=True)

    def relative(self, path: Path) -> str:
        """A path as the database stores it."""
        return path.relative_to(self.data).as_posix()


class Bell:
    """Wakes the steps that wait for rows to change, so that an idle node does nothing."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._strokes = 0

    @property
    def strokes(self) -> int:
        """How often it has rung."""
        return self._strokes

    def ring(self) -> None:
        """Something changed."""
        with self._condition:
            self._strokes += 1
            self._condition.notify_all()

    def wait(self, heard: int, seconds: float) -> None:
        """Until it rings once more than `heard`, or for some seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._strokes != heard, seconds)


class Bells:
    """A bell for each concern: a change wakes the step that has to do with it, and no other one."""

    def __init__(self) -> None:
        self._bells: dict[str, Bell] = {}

    def of(self, concern: str) -> Bell:
        """The bell of a concern, the same one for everybody who asks."""
        return self._bells.setdefault(concern, Bell())


TO_RUN = "jobs"
"""The concern of whoever runs jobs."""


def to_send(destination: str) -> str:
    """The concern of whoever sends to a destination."""
    return f"deliveries to {destination}"


def concern(row: object) -> str | None:
    """Who has something to do because of a row as it is now; None where nobody waits for it."""
    if isinstance(row, Job) and row.state in {JobState.WAITING, JobState.CANCELLING}:
        return TO_RUN
    if isinstance(row, Pause) or (isinstance(row, Delivery) and row.state == DeliveryState.QUEUED):
        return to_send(row.destination)
    return None


@dataclass(frozen=True, slots=True)
class Node:
    """Everything a step may use. Clock and random source are here so that nothing reads them on the side."""

    settings: Settings
    folders: Folders
    spool: Spool
    store: Store
    sandbox: Sandbox
    timezone: ZoneInfo
    installation_id: str
    ruleset: str
    clock: Callable[[], datetime]
    rng: random.Random
    log: Any
    stopping: Event
    bells: Bells
    verification: Verification | None = None
    """Of SUV, by the process that serves; None in one that only looks or commands."""

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """One write transaction: committed when the block ends well, rolled back when it does not."""
        concerns: set[str | None] = set()

        def remember(session: Session, _: UOWTransaction) -> None:
            concerns.update(concern(row) for row in (*session.new, *session.dirty, *session.deleted))

        with self.store.write() as session:
            event.listen(session, "after_flush", remember)
            yield Turn(self, session, self.clock())
        for one in concerns - {None}:
            self.bells.of(str(one)).ring()

    @contextmanager
    def glance(self) -> Iterator[Turn]:
        """One snapshot to read from; nothing can be changed through it."""
        with self.store.read() as session:
            yield Turn(self, session, self.clock())


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a step: the node, its open transaction and the time it began."""

    node: Node
    session: Session
    now: datetime


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(tz=UTC)
