"""Accuracy on simulated patients that nothing was chosen by: fdg-test, and fdg-shift of a second hospital.

    python -m benchmarks.accuracy.fdg_segmentation.accuracy [--cohorts build/cohorts] [--studies N]

scores the shipped weights and every threshold method, writes accuracy.json beside this file and the figure
docs/img/fdg_segmentation.png. `make table` writes the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.accuracy.fdg_segmentation import figure
from benchmarks.accuracy.fdg_segmentation.data import COHORTS
from benchmarks.accuracy.threshold_sarcoma import METHODS
from benchmarks.machine import REPOSITORY, command, provenance
from engines import models
from engines.contract import Case, Engine
from engines.errors import CannotProcess
from engines.evaluation import Score, scored
from engines.fdg_segmentation.evaluate import SEED, Report
from engines.fdg_segmentation.infer import FdgSegmentation
from engines.registry import engine
from engines.simulation.cohort import cohort

RESULT = REPOSITORY / "benchmarks" / "accuracy" / "fdg_segmentation" / "accuracy.json"
FIGURE = REPOSITORY / "docs" / "img" / "fdg_segmentation.png"
OURS, ALONE = "fdg_segmentation", "fdg_segmentation, PET alone"
OWN: dict[str, dict[str, Any]] = {OURS: {}, ALONE: {"without_ct": "pet-only"}}
"""Parameters by name; where a PET may do without, its CT is not given."""


def never() -> bool:
    return False


def score_of(tool: Engine, case: Case, parameters: dict[str, Any]) -> tuple[Score, float]:
    """Score and seconds."""
    assert case.truth is not None
    volumes = {slot: each for slot, each in case.volumes.items() if slot != "ct" or "without_ct" not in parameters}
    began = time.perf_counter()
    try:
        products = tool(volumes, parameters, never)
    except CannotProcess as reason:
        return Score(case.group, refusal=reason.code), time.perf_counter() - began
    seconds = time.perf_counter() - began
    return scored(case, case.truth.array > 0, products), seconds


def measured(name: str, cohorts: Path, studies: int | None, tools: dict[str, tuple[Engine, dict[str, Any]]]) -> Any:
    """Some methods on every study of a cohort."""
    scores: dict[str, list[Score]] = {each: [] for each in tools}
    seconds: dict[str, list[float]] = {each: [] for each in tools}
    for study in cohort(name).studies(cohorts, for_evaluation=True, patients=studies):
        for method, (tool, parameters) in tools.items():
            score, took = score_of(tool, study.case, parameters)
            scores[method].append(score)
            seconds[method].append(round(took, 2))
        print(name, study.seed, *(f"{method} {each[-1].dice}" for method, each in scores.items()), flush=True)
    return {
        method: {
            "parameters": parameters,
            "summary": Report(tuple(scores[method])).summary(),
            "seconds": seconds[method],
            "studies": [asdict(score) for score in scores[method]],
        }
        for method, (_, parameters) in tools.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy on simulated patients.")
    parser.add_argument("--cohorts", type=Path, default=COHORTS)
    parser.add_argument("--studies", type=int, default=None, help="only the first of each cohort; default all")
    parser.add_argument("--part", choices=("test", "shift"), default=None, help="only this cohort, the other as it was")
    parser.add_argument(
        "--methods", choices=("ours", "thresholds"), default=None, help="only these, others as they were"
    )
    given = parser.parse_args()
    ours = FdgSegmentation()
    tools: dict[str, tuple[Engine, dict[str, Any]]] = {}
    if given.methods != "thresholds":
        tools |= {name: (ours, parameters) for name, parameters in OWN.items()}
    if given.methods != "ours":
        tools |= {name: (engine("threshold_segmentation"), parameters) for name, parameters in METHODS.items()}
    cohorts = json.loads(RESULT.read_text())["cohorts"] if RESULT.exists() else {}
    where = provenance(REPOSITORY, packages=["torch", "monai", "numpy", "scipy"])
    for part in [given.part] if given.part else ["test", "shift"]:
        name = f"fdg-{part}"
        made = measured(name, given.cohorts, given.studies, tools)
        kept = cohorts.get(name, {"methods": {}})["methods"]
        every = kept | {method: entry | {"commit": where["commit"]} for method, entry in made.items()}
        order = [method for method in (*OWN, *METHODS) if method in every]
        cohorts[name] = {"sha256": cohort(name).sha256, "methods": {method: every[method] for method in order}}
    result = {
        "benchmark": "fdg_segmentation",
        "weights": models.card_of(ours.weights).to_json(),
        "command": command("benchmarks.accuracy.fdg_segmentation.accuracy", sys.argv[1:]),
        "bootstrap": {"seed": SEED, "unit": "patient"},
        **where,
        "cohorts": cohorts,
    }
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if OURS in cohorts.get("fdg-test", {"methods": {}})["methods"]:
        figure.draw(cohorts["fdg-test"]["methods"][OURS]["studies"], given.cohorts, ours, FIGURE)


if __name__ == "__main__":
    main()
