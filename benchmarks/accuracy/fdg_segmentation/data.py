"""Cohorts as the engine learns from them: prepared once, kept beside the studies, read in moments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engines import durable
from engines.contract import Case
from engines.fdg_segmentation.preprocessing import Example, Spacing, example
from engines.simulation.cohort import cohort

COHORTS = Path("build/cohorts")
"""Where the studies are kept unless --cohorts says otherwise: those of `make cohorts`."""


def prepared(name: str, spacing_mm: Spacing, cache: Path, patients: int | None = None) -> list[Example]:
    """The first patients of a cohort; one that nothing may be chosen by is refused."""
    chosen = cohort(name)
    spacing = "x".join(f"{mm:g}" for mm in spacing_mm)
    folder = cache / f"{chosen.name}-{chosen.sha256[:16]}-prepared-{spacing}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed}.npz" for seed in chosen.seeds[:patients]]
    if not all(path.exists() for path in paths):
        for path, case in zip(paths, cases(name, cache, patients), strict=True):
            if not path.exists():
                _keep(path, example(case, spacing_mm))
    return [_kept(path) for path in paths]


def cases(name: str, cache: Path, patients: int | None = None, *, for_evaluation: bool = False) -> Iterator[Case]:
    """The studies of a cohort as they are."""
    for study in cohort(name).studies(cache, patients=patients, for_evaluation=for_evaluation):
        yield study.case


def _keep(path: Path, made: Example) -> None:
    durable.replace(path, lambda file: np.savez(file, allow_pickle=False, image=made.image, truth=made.truth))


def _kept(path: Path) -> Example:
    with np.load(path, allow_pickle=False) as arrays:
        return Example(arrays["image"], arrays["truth"], f"seed {path.stem}")
