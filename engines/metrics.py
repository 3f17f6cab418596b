"""How good a segmentation is, and how sure we are of that. All masks are boolean (z, y, x) on one grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

_EIGHTEEN = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval with its confidence level (0 … 1)."""

    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True)
class VolumeError:
    """Predicted minus true volume [mL], and relative to the true volume (nan where that is empty)."""

    absolute_ml: float
    relative: float


def dice(predicted: Mask, truth: Mask) -> float:
    """Dice coefficient 2·|A∩B| / (|A|+|B|); nan where the truth is empty, as in AutoPET (Gatidis 2022, Sci Data 9:601).

    Raises
    ------
    ValueError
        The masks differ in shape.
    """
    _expect_same_grid(predicted, truth)
    if not truth.any():
        return nan
    both = np.count_nonzero(predicted & truth)
    return 2.0 * both / (np.count_nonzero(predicted) + np.count_nonzero(truth))


def false_positive_ml(predicted: Mask, truth: Mask, voxel_ml: float) -> float:
    """Volume of the predicted 18-connected components that do not touch the truth [mL] (AutoPET)."""
    return _volume_of_components_without(predicted, truth, voxel_ml)


def false_negative_ml(predicted: Mask, truth: Mask, voxel_ml: float) -> float:
    """Volume of the true 18-connected components that the prediction misses entirely [mL] (AutoPET)."""
    return _volume_of_components_without(truth, predicted, voxel_ml)


def mtv_error(predicted: Mask, truth: Mask, voxel_ml: float) -> VolumeError:
    """Error of the metabolic tumour volume."""
    _expect_same_grid(predicted, truth)
    true_ml = np.count_nonzero(truth) * voxel_ml
    error_ml = np.count_nonzero(predicted) * voxel_ml - true_ml
    return VolumeError(error_ml, error_ml / true_ml if true_ml else nan)


def bootstrap_interval(
    values: Sequence[float],
    *,
    seed: int,
    statistic: Callable[[NDArray[np.float64]], float] = lambda sample: float(np.mean(sample)),
    resamples: int = 10_000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap of a statistic of independent values (Efron & Tibshirani 1993, chapter 13).

    One value per patient: lesions of one patient are not independent. The same seed gives the same interval.

    Raises
    ------
    ValueError
        No values, or one that is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if not sample.size or not np.isfinite(sample).all():
        raise ValueError(f"bootstrap: expected at least one value and all finite, got {sample.size} values")
    drawn = np.random.default_rng(seed).integers(sample.size, size=(resamples, sample.size))
    statistics = np.array([statistic(sample[row]) for row in drawn])
    low, high = np.quantile(statistics, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(low), float(high), level)


def _volume_of_components_without(mask: Mask, other: Mask, voxel_ml: float) -> float:
    """Volume of the components of `mask` that share no voxel with `other` [mL]."""
    _expect_same_grid(mask, other)
    labels, count = ndimage.label(mask, _EIGHTEEN)
    sizes = np.bincount(labels[mask], minlength=count + 1)
    sizes[np.unique(labels[mask & other])] = 0
    return float(sizes.sum() * voxel_ml)


def _expect_same_grid(a: Mask, b: Mask) -> None:
    if a.shape != b.shape:
        raise ValueError(f"two masks of one grid have one shape, got {a.shape} and {b.shape}")
