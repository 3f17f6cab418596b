"""`tracerd serve` with one more engine, which needs no SUV: python -m tests.flow.serve_misreading CONFIG [MUTATION]

MUTATION names a function of tests/misreading.py that breaks the reading of SUV in this process.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from config.load import load
from daemon import app, logs, worker
from engines import registry
from engines.contract import Measurement, Products, Quantity, Slot, Volume
from engines.registry import ENGINES
from tests import misreading


class HighestActivity:
    """The highest activity concentration of a PET."""

    name = "highest_activity"
    version = "1"
    weights_sha256 = None
    inputs: Mapping[str, Slot] = {"pet": Slot("PT", Quantity.ACTIVITY_BQML)}
    defaults: Mapping[str, Any] = {}

    def check(self, parameters: Mapping[str, Any]) -> list[str]:
        return []

    def __call__(
        self, volumes: Mapping[str, Volume], parameters: Mapping[str, Any], should_stop: Callable[[], bool]
    ) -> Products:
        highest = float(volumes["pet"].array.max())
        return Products("highest voxel", measurements=(Measurement("highest activity", highest, "Bq/ml"),))


def attempt(document: dict[str, Any]) -> dict[str, Any]:
    """What a worker runs in this test: the real attempt, with one more engine known."""
    registry.ENGINES = {**ENGINES, HighestActivity.name: HighestActivity}
    return worker.attempt(document)


if __name__ == "__main__":
    logs.configure()
    registry.ENGINES = {**ENGINES, HighestActivity.name: HighestActivity}
    path, *mutations = sys.argv[1:]
    for mutation in mutations:
        getattr(misreading, mutation)(setattr)
    sys.exit(app.serve(load(Path(path)), Path(path), function=attempt))
