"""Gaussian blur as a matrix that is its own transpose.

The kernel is the discrete analogue of the Gaussian, exp(−t)·I_n(t) with t = σ² in voxels (Lindeberg 1990, IEEE Trans
Pattern Anal Mach Intell 12:234, eq. 21): its variance is σ² however narrow it is against a voxel, where a sampled
Gaussian falls short. Borders are mirrored, which keeps sums and symmetry.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import ive

from engines.simulation.projector import FWHM_PER_SIGMA, together

FloatArray = NDArray[np.float32]


@lru_cache(maxsize=64)
def kernel(sigma_voxels: float) -> NDArray[np.float64]:
    """Odd number of weights with sum 1 and variance sigma_voxels²."""
    t = sigma_voxels**2
    reach = int(np.ceil(4.0 * sigma_voxels)) + 2
    weights = ive(np.abs(np.arange(-reach, reach + 1)), t)
    return np.asarray(weights / weights.sum())


def blurred(array: FloatArray, fwhm_mm: float, steps_mm: tuple[float | None, ...]) -> FloatArray:
    """Blur along every axis whose step [mm] is given; float32 of the same shape."""
    for axis, step in enumerate(steps_mm):
        if step is not None and fwhm_mm > 0.0:
            array = _along(array, kernel(fwhm_mm / FWHM_PER_SIGMA / step), axis)
    return array


def _along(array: FloatArray, weights: NDArray[np.float64], axis: int) -> FloatArray:
    """One axis at a time, the work divided along another."""
    other = 0 if axis else 1
    parts = np.array_split(array, 4, axis=other)
    return np.concatenate(together(lambda part: correlate1d(part, weights, axis, mode="reflect"), parts), axis=other)
