"""Every table of a README that comes from a result file.

    python -m benchmarks.tables

writes them anew; a test checks that README and results agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy import threshold_sarcoma
from benchmarks.accuracy.fdg_segmentation import tables as fdg_segmentation
from benchmarks.machine import REPOSITORY
from benchmarks.readme import rewrite
from benchmarks.speed import growth, inspect, receive_load, write
from benchmarks.speed import tables as speed

SPEED = Path("benchmarks/speed/README.md")
FDG = Path("engines/fdg_segmentation/README.md")


@dataclass(frozen=True)
class Table:
    """readme : where it stands; results : path or pattern of the result files, and its mark; make : its Markdown."""

    readme: Path
    results: str
    make: Callable[[Sequence[Mapping[str, Any]]], str]

    def text(self) -> str | None:
        """None where nothing was measured yet."""
        found = [json.loads(path.read_text()) for path in sorted(REPOSITORY.glob(self.results))]
        return self.make(found) if found else None


TABLES = (
    Table(SPEED, "benchmarks/results/receive.json", lambda r: speed.for_readme(dict(r[0]))),
    Table(SPEED, "benchmarks/results/inspect.json", lambda r: inspect.for_readme(r[0])),
    Table(SPEED, "benchmarks/results/receive_load.json", lambda r: receive_load.for_readme(dict(r[0]))),
    Table(SPEED, "benchmarks/results/growth.json", lambda r: growth.for_readme(dict(r[0]))),
    Table(SPEED, "benchmarks/results/write.json", lambda r: write.table(r[0])),
    Table(
        Path("engines/threshold_segmentation/README.md"),
        "benchmarks/results/threshold_sarcoma.json",
        lambda results: threshold_sarcoma.table(dict(results[0])),
    ),
    Table(FDG, "benchmarks/accuracy/fdg_segmentation/accuracy.json", fdg_segmentation.accuracy),
    Table(FDG, "benchmarks/accuracy/fdg_segmentation/ablations/*.json", fdg_segmentation.ablations),
    Table(FDG, "benchmarks/accuracy/fdg_segmentation/sarcoma.json", fdg_segmentation.sarcoma),
    Table(FDG, "benchmarks/accuracy/fdg_segmentation/sarcoma_folds.json", fdg_segmentation.folds),
    Table(FDG, "benchmarks/accuracy/fdg_segmentation/speed.json", fdg_segmentation.speed),
)


def main() -> None:
    for table in TABLES:
        text = table.text()
        if text is not None:
            rewrite(REPOSITORY / table.readme, table.results, text)


if __name__ == "__main__":
    main()
