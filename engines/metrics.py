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
    """Predicted minus true volume [mL], and relative to the true volume (nan where that is empty).

    Of TLG it is the error of SUV × mL [g].
    """

    absolute_ml: float
    relative: float


@dataclass(frozen=True, slots=True)
class LesionCount:
    """Lesions are 18-connected components; two of them match where they share a voxel.

    true, found : lesions of the truth, and those of them that the prediction touches
    predicted, correct : lesions of the prediction, and those of them that touch the truth
    """

    true: int
    found: int
    predicted: int
    correct: int

    @property
    def sensitivity(self) -> float:
        """Share of the true lesions that were found; nan where there are none."""
        return self.found / self.true if self.true else nan

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that are right; nan where there are none."""
        return self.correct / self.predicted if self.predicted else nan

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and precision, 0 where nothing was found; nan where there is no true lesion."""
        if not self.true or not self.correct:
            return 0.0 if self.true else nan
        return 2.0 * self.sensitivity * self.precision / (self.sensitivity + self.precision)


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


def tlg_error(predicted: Mask, truth: Mask, suv: NDArray[np.float32], voxel_ml: float) -> VolumeError:
    """Error of the total lesion glycolysis, Σ SUV × volume [g]."""
    _expect_same_grid(predicted, truth)
    true_g = float(suv[truth].sum(dtype=np.float64)) * voxel_ml
    error_g = float(suv[predicted].sum(dtype=np.float64)) * voxel_ml - true_g
    return VolumeError(error_g, error_g / true_g if true_g else nan)


def count_lesions(predicted: Mask, truth: Mask) -> LesionCount:
    """How many lesions were found, and how many of those found are right."""
    _expect_same_grid(predicted, truth)
    both = predicted & truth
    (true, found), (said, correct) = (_components_touching(mask, both) for mask in (truth, predicted))
    return LesionCount(true, found, said, correct)


def hausdorff_95_mm(predicted: Mask, truth: Mask, spacing_mm: tuple[float, float, float]) -> float:
    """95th percentile of the distances between two surfaces [mm], the larger one of both directions (as MONAI's HD95).

    A surface is the voxels of a mask with a face to what is outside of it; nan where a mask is empty.
    """
    _expect_same_grid(predicted, truth)
    if not predicted.any() or not truth.any():
        return nan
    touched = [np.flatnonzero((predicted | truth).any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(index[0], index[-1] + 1) for index in touched)
    surfaces = [_surface(np.pad(mask[box], 1)) for mask in (predicted, truth)]
    directed = []
    for one, other in (surfaces, surfaces[::-1]):
        distance: NDArray[np.float64] = ndimage.distance_transform_edt(~other, sampling=spacing_mm)
        directed.append(float(np.percentile(distance[one], 95)))
    return max(directed)


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


def _components_touching(mask: Mask, both: Mask) -> tuple[int, int]:
    """Number of components of a mask, and of those that hold a voxel of `both`."""
    labels, count = ndimage.label(mask, _EIGHTEEN)
    return int(count), int(np.count_nonzero(np.unique(labels[both])))


def _surface(mask: Mask) -> Mask:
    surface: Mask = mask & ~ndimage.binary_erosion(mask)
    return surface


def _expect_same_grid(a: Mask, b: Mask) -> None:
    if a.shape != b.shape:
        raise ValueError(f"two masks of one grid have one shape, got {a.shape} and {b.shape}")
