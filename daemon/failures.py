"""What happens next when a step fails: one table, read by index.py, execute.py and deliver.py.

A failure that is not in the table is a BUG: it fails loudly, is tried again within the cap of attempts and ends as a
dead letter, while everything beside it goes on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy.exc import OperationalError

from dicom_io import errors as dicom
from engines import errors as engine


class Disposition(StrEnum):
    """What the node does after a failure."""

    REJECT = "reject"
    """The input can never work: no retry, the reason is shown."""
    RETRY = "retry"
    """The world may heal: back off and try again, up to the cap."""
    HOLD = "hold"
    """A person must decide: parked and shown."""
    BUG = "bug"
    """Something we did not foresee: counts as an attempt, then a dead letter."""
    STOP = "stop"
    """The work was given up on request: put back, nothing counted."""


DISPOSITIONS: dict[type[Exception], Disposition] = {
    dicom.UnreadableObject: Disposition.REJECT,
    dicom.GeometryRefused: Disposition.REJECT,
    dicom.QuantityRefused: Disposition.REJECT,
    dicom.PixelsRefused: Disposition.REJECT,
    dicom.RegionsRefused: Disposition.REJECT,
    dicom.SelfTestFailed: Disposition.HOLD,
    dicom.PeerUnreachable: Disposition.RETRY,
    dicom.PeerRefused: Disposition.REJECT,
    engine.CannotProcess: Disposition.REJECT,
    engine.BadParameters: Disposition.HOLD,
    engine.UnknownEngine: Disposition.HOLD,
    engine.NoEngine: Disposition.REJECT,
    engine.NoGpu: Disposition.HOLD,
    engine.CaseRefused: Disposition.REJECT,
    engine.WeightsRefused: Disposition.HOLD,
    engine.Stopped: Disposition.STOP,
}

HINTS = {
    "worker-died": "The worker process died (often out of memory). See execute.memory_bytes and the size of the study.",
    "time-limit": "The attempt took longer than execute.time_limit_s; where it stood is in trace.txt of the attempt.",
    "bug": "A fault of tracerd itself: the traceback is in the log under this job's id. Please report it.",
}


def disposition(error: BaseException) -> Disposition:
    """The table's answer for an exception; the nearest class in its line of ancestors decides, else BUG."""
    for cls in type(error).__mro__:
        if cls in DISPOSITIONS:
            return DISPOSITIONS[cls]
    return Disposition.BUG


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure as it travels between processes and into the job's row: text only, without patient data."""

    disposition: Disposition
    code: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception. The message of an unforeseen one is withheld: it may quote what it was given."""
        kind = disposition(error)
        if kind is Disposition.BUG:
            return cls(kind, "bug", f"unforeseen {type(error).__name__}", HINTS["bug"])
        code = getattr(error, "code", type(error).__name__)
        return cls(kind, str(code), str(error), str(getattr(error, "hint", "")))

    def to_json(self) -> dict[str, str]:
        """As plain text fields."""
        return {"disposition": self.disposition, "code": self.code, "message": self.message, "hint": self.hint}

    @classmethod
    def from_json(cls, document: dict[str, str]) -> Failure:
        """The reverse of `to_json`."""
        return cls(Disposition(document["disposition"]), document["code"], document["message"], document["hint"])


STOPPING = (OSError, MemoryError, OperationalError)
"""The node itself cannot go on (disk, memory, database): end, start again, recover."""


def contain(work: Callable[[], object]) -> Exception | None:
    """Do one unit of work (an object, a study) so that a fault in it does not stop the others; returns the fault.

    Raises
    ------
    OSError, MemoryError, sqlalchemy.exc.OperationalError
        Faults of the node, not of the unit.
    """
    try:
        work()
    except STOPPING:
        raise
    except Exception as error:  # noqa: BLE001 - outer edge of a unit of work
        return error
    return None


def pause_since(began: datetime, now: datetime, *, first_s: float, max_s: float, rng: random.Random) -> timedelta:
    """Wait before the next try of something that nobody counts: as long again as it has lasted, within the limits.

    began : when it was first tried
    """
    wait_s = min(max_s, max(first_s, (now - began).total_seconds()))
    return timedelta(seconds=wait_s * rng.uniform(0.75, 1.25))


def back_off(tries: int, *, first_s: float, max_s: float, rng: random.Random) -> timedelta:
    """Wait before the next try: doubled each time, capped, with jitter of ±25 % so that queues do not march in step.

    tries : tries made so far (≥ 1)
    """
    wait_s = min(max_s, first_s * 2.0 ** (tries - 1))
    return timedelta(seconds=wait_s * rng.uniform(0.75, 1.25))
