"""Score an engine that finds lesions against the truth, study by study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.contract import Case, Engine, Json, Products
from engines.errors import CannotProcess
from engines.metrics import (
    LesionCount,
    VolumeError,
    count_lesions,
    dice,
    false_negative_ml,
    false_positive_ml,
    hausdorff_95_mm,
    mtv_error,
    tlg_error,
)


@dataclass(frozen=True, slots=True)
class Score:
    """One study. The numbers are None where the engine refused it; `refusal` then holds the code of the reason.

    dice, hausdorff_95_mm, false_positive_ml, false_negative_ml, lesions, mtv, tlg : everything the engine found
        against the truth
    dice_chosen : only the found lesion that overlaps the truth most, as if a reader had clicked on it;
        0 where none overlaps
    """

    group: str
    refusal: str | None = None
    dice: float | None = None
    dice_chosen: float | None = None
    hausdorff_95_mm: float | None = None
    false_positive_ml: float | None = None
    false_negative_ml: float | None = None
    lesions: LesionCount | None = None
    mtv: VolumeError | None = None
    tlg: VolumeError | None = None


def evaluate(
    engine: Engine, cases: Iterable[Case], parameters: Mapping[str, Json], should_stop: Callable[[], bool]
) -> Iterator[Score]:
    """A score per case, as they come. Cases need a truth on the grid of the PET.

    Raises
    ------
    ValueError
        A case without truth.
    engines.errors.Stopped, engines.errors.BadParameters
        From the engine; only refusals (`CannotProcess`) become scores.
    """
    for case in cases:
        if case.truth is None:
            raise ValueError(f"case {case.group}: expected a truth to score against, got none")
        try:
            products = engine(case.volumes, parameters, should_stop)
        except CannotProcess as reason:
            yield Score(case.group, refusal=reason.code)
            continue
        yield scored(case, case.truth.array > 0, products)


def scored(case: Case, truth: NDArray[np.bool_], products: Products) -> Score:
    """What an engine found in a case against its truth (z, y, x)."""
    labels = np.zeros(truth.shape, dtype=np.uint16) if products.label_map is None else products.label_map.array
    pet = case.volumes["pet"]
    found = labels > 0
    return Score(
        group=case.group,
        dice=dice(found, truth),
        dice_chosen=dice(_most_overlapping(labels, truth), truth),
        hausdorff_95_mm=hausdorff_95_mm(found, truth, pet.spacing_mm),
        false_positive_ml=false_positive_ml(found, truth, pet.voxel_volume_ml),
        false_negative_ml=false_negative_ml(found, truth, pet.voxel_volume_ml),
        lesions=count_lesions(found, truth),
        mtv=mtv_error(found, truth, pet.voxel_volume_ml),
        tlg=tlg_error(found, truth, pet.array, pet.voxel_volume_ml),
    )


def _most_overlapping(labels: NDArray[np.uint16], truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    overlaps = np.bincount(labels[truth], minlength=1)
    overlaps[0] = 0
    chosen: NDArray[np.bool_] = labels == overlaps.argmax() if overlaps.any() else np.zeros(truth.shape, dtype=bool)
    return chosen
