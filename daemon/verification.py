"""Whether this installation reads SUV as it should: asked at the start, shown by `status` and `doctor`.

A node that does not goes on receiving and serves every engine that needs no SUV; jobs that need one are held.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from daemon.failures import contain
from dicom_io.errors import SelfTestFailed
from engines.contract import Quantity


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of the self-test.

    objects : how many reference objects were read
    deviations : one line for each that was not read as it was made
    """

    objects: int
    milliseconds: int
    deviations: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "deviations": list(self.deviations), "words": self.words}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Verification:
        """The reverse of `to_json`."""
        return cls(document["objects"], document["milliseconds"], tuple(document["deviations"]))

    @property
    def words(self) -> str:
        """The outcome in one line."""
        wrong = len(self.deviations)
        said = f"{wrong} wrong, such as {self.deviations[0]}" if wrong else "all right"
        return f"{self.objects} reference objects in {self.milliseconds} ms, {said}"


def verify() -> Verification:
    """Run the self-test of SUV; that it cannot be run, or stumbles over our own code, is a deviation too."""
    from dicom_io import selftest
    from dicom_io.reference_objects import REFERENCE_OBJECTS

    started = time.monotonic()
    deviations: list[str] = []
    try:
        fault = contain(lambda: deviations.extend(map(str, selftest.run())))
    except OSError as error:
        fault = error
    if fault is not None:
        deviations.append(f"self-test: expected an outcome for every object, got {type(fault).__name__}")
    milliseconds = round(1000.0 * (time.monotonic() - started))
    return Verification(len(REFERENCE_OBJECTS), milliseconds, tuple(deviations))


def require(verification: Verification | None, quantities: Iterable[Quantity]) -> None:
    """Pass unless an engine asks for SUV and the self-test failed (None: this process made none).

    Raises
    ------
    SelfTestFailed
        With how many objects deviate, and one of them.
    """
    if verification is not None and verification.deviations and Quantity.SUVBW in quantities:
        raise SelfTestFailed(f"SUV self-test: {verification.words}")
