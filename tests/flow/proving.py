"""One study through one node to many archives at once, until every delivery is proven or has failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.flow.running import FDG_RULE, RunningNode
from tests.peers import Orthanc
from tests.processes import wait_until

SLICES, RESULTS = 4, 2
ALL = SLICES + RESULTS
"""Instances of the study, and what comes of it: SEG and SR."""


@dataclass
class World:
    """The node after everything it could do for one study, and the archive among its destinations that is real."""

    node: RunningNode
    orthanc: Orthanc

    def deliveries(self, destination: str) -> list[tuple[str, str | None, str | None]]:
        return self.node.rows(
            "select state, reason_code, status_hex from delivery where destination = ? order by id", destination
        )

    def unfinished(self) -> int:
        """Deliveries that have neither reached their proof nor failed."""
        return self.node.rows(
            "select count(*) from delivery where state != proof and state not in ('failed', 'dead', 'withdrawn')"
        )[0][0]

    def wait_until_proven(self, count: int, timeout: float) -> None:
        """Wait until there are `count` deliveries or more, and none is unfinished."""
        try:
            wait_until(lambda: self.node.rows("select count(*) from delivery")[0][0] >= count, 20, every=0.2)
            wait_until(lambda: not self.unfinished(), timeout, every=0.2)
        except TimeoutError:
            rows = self.node.rows("select destination, state, reason_code, count(*) from delivery group by 1, 2, 3")
            raise AssertionError(f"{rows}\n{self.node.log.read_text()[-3000:]}") from None


def rules_to(names: Sequence[str]) -> list[dict[str, Any]]:
    """Rules for one and the same job, each with as many destinations as a rule may have."""
    shares = [names[start : start + 16] for start in range(0, len(names), 16)]
    return [
        {**FDG_RULE, "name": f"fdg {number}", "send_to": share, "forward": "originals"}
        for number, share in enumerate(shares)
    ]


def retry(*, gives_up: bool) -> dict[str, float]:
    """A patience of seconds where a dead letter is expected, so that a slow machine makes none elsewhere."""
    return {"first_s": 0.2, "max_s": 1, "give_up_after_s": 4 if gives_up else 600}


def all_of(state: str, code: str | None = None) -> dict[tuple[str, str | None], int]:
    """How it ends where all instances end alike."""
    return {(state, code): ALL}
