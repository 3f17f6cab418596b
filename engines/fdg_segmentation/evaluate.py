"""The paper's metrics and AutoPET's, study by study and in sum, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from engines import evaluation
from engines.contract import Case, Engine, Json
from engines.evaluation import Score
from engines.metrics import bootstrap_interval

SEED = 20260302
"""Of the bootstrap: the same scores give the same intervals."""


@dataclass(frozen=True)
class Report:
    """Scores of studies; one value per patient counts in every mean."""

    scores: tuple[Score, ...]

    @property
    def processed(self) -> list[Score]:
        """Without the refused ones."""
        return [score for score in self.scores if score.refusal is None]

    def values(self, name: str) -> list[float]:
        """A number of every processed study where it is defined: Dice of an empty truth is not."""
        found = [_VALUES[name](score) for score in self.processed]
        return [value for value in found if value is not None and isfinite(value)]

    def summary(self) -> Json:
        """Numbers of studies and, of every value, mean, 95 % bootstrap interval, median and n."""
        refused = [score.refusal for score in self.scores if score.refusal is not None]
        counts = [score.lesions for score in self.processed if score.lesions is not None]
        return {
            "studies": len(self.scores),
            "refused": {code: refused.count(code) for code in sorted(set(refused))},
            "with_lesions": sum(count.true > 0 for count in counts),
            "lesions": {
                "true": sum(count.true for count in counts),
                "found": sum(count.found for count in counts),
                "predicted": sum(count.predicted for count in counts),
                "correct": sum(count.correct for count in counts),
            },
            **{name: _described(self.values(name)) for name in _VALUES},
        }


def evaluate(
    model: Engine,
    cases: Iterable[Case],
    parameters: Mapping[str, Json] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Run an engine over cases with a truth on the grid of their PET.

    Raises
    ------
    ValueError, engines.errors.Stopped, engines.errors.BadParameters
        As `evaluation.evaluate`.
    """
    return Report(tuple(evaluation.evaluate(model, cases, parameters or {}, should_stop)))


def _positive(score: Score) -> bool:
    return score.lesions is not None and score.lesions.true > 0


_VALUES: Mapping[str, Callable[[Score], float | None]] = {
    "dice": lambda score: score.dice,
    "hausdorff_95_mm": lambda score: score.hausdorff_95_mm,
    "false_positive_ml": lambda score: score.false_positive_ml,
    "false_positive_ml_of_negatives": lambda score: None if _positive(score) else score.false_positive_ml,
    "false_negative_ml": lambda score: score.false_negative_ml if _positive(score) else None,
    "lesion_sensitivity": lambda score: score.lesions.sensitivity if score.lesions else None,
    "lesion_f1": lambda score: score.lesions.f1 if score.lesions else None,
    "mtv_error_ml": lambda score: score.mtv.absolute_ml if score.mtv else None,
    "mtv_error_relative": lambda score: score.mtv.relative if score.mtv else None,
    "tlg_error_relative": lambda score: score.tlg.relative if score.tlg else None,
}
"""Dice, HD95, FNV, lesion scores and relative errors are those of studies with a lesion; FPV that of all."""


def _described(values: Sequence[float]) -> Json:
    if not values:
        return {"n": 0}
    interval = bootstrap_interval(values, seed=SEED)
    mean, median = float(np.mean(values)), float(np.median(values))
    return {"n": len(values), "mean": mean, "low": interval.low, "high": interval.high, "median": median}
