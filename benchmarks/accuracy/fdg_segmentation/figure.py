"""A good, a median and a bad case: PET seen from the front, with what was found and what is there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from engines.contract import Case, Engine
from engines.simulation.cohort import cohort

mpl.use("Agg")
import matplotlib.pyplot as plt

TRUTH, FOUND = "#2ca02c", "#d62728"
DARKEST_SUV = 7.0


def chosen(studies: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Index of the studies at the 90th, 50th and lowest rank of Dice, of those with a lesion."""
    ranked = sorted((score["dice"], index) for index, score in enumerate(studies) if _positive(score))
    places = {"good (90th percentile)": round(0.9 * (len(ranked) - 1)), "median": (len(ranked) - 1) // 2, "worst": 0}
    return {name: ranked[place][1] for name, place in places.items()}


def draw(studies: Sequence[dict[str, Any]], cohorts: Path, tool: Engine, path: Path) -> None:
    """Coronal maximum projections of fdg-test."""
    picked = chosen(studies)
    cases = {}
    for index, study in enumerate(cohort("fdg-test").studies(cohorts, for_evaluation=True)):
        if index in picked.values():
            cases[index] = study.case
        if len(cases) == len(set(picked.values())):
            break
    shown, axes = plt.subplots(1, 2 * len(picked), figsize=(15, 5.6))
    for (name, index), pair in zip(picked.items(), axes.reshape(-1, 2), strict=True):
        _case(pair, cases[index], tool, f"{name}: Dice {studies[index]['dice']:.2f}")
    shown.legend(
        handles=[plt.Line2D([], [], color=TRUTH, label="truth"), plt.Line2D([], [], color=FOUND, label="found")],
        loc="lower center",
        ncols=2,
        frameon=False,
    )
    shown.suptitle("FDG PET of simulated patients of fdg-test, maximum along y: alone, and with lesions", fontsize=11)
    shown.tight_layout(rect=(0, 0.04, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    shown.savefig(path, dpi=75)
    plt.close(shown)


def _case(pair: Any, case: Case, tool: Engine, title: str) -> None:
    pet, products = case.volumes["pet"], tool(case.volumes, {}, lambda: False)
    assert case.truth is not None
    found = np.zeros(pet.array.shape, bool) if products.label_map is None else products.label_map.array > 0
    for axis in pair:
        axis.imshow(
            pet.array.max(axis=1), cmap="gray_r", vmin=0, vmax=DARKEST_SUV, origin="lower",
            aspect=pet.spacing_mm[0] / pet.spacing_mm[2],
        )  # fmt: skip
        axis.set_axis_off()
    for mask, colour, width in ((case.truth.array > 0, TRUTH, 1.6), (found, FOUND, 0.9)):
        if mask.any():
            pair[1].contour(mask.any(axis=1), levels=[0.5], colors=colour, linewidths=width)
    pair[0].set_title(title, fontsize=10)


def _positive(score: dict[str, Any]) -> bool:
    return score["refusal"] is None and score["lesions"]["true"] > 0
