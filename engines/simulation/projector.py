"""Parallel-beam projection of a stack of slices: sparse matrices that serve all slices, and their exact transposes.

The lines of response of every slice lie in that slice (2-D acquisition). A line integral is Joseph's: the image is
interpolated linearly where the line crosses each row (or column, whichever it crosses more steeply) of pixel centres
(Joseph 1982, IEEE Trans Med Imaging 1:192). One matrix row is one line of response; the matrices are those of ordered
subsets of angles. With time of flight a row is one line and one interval of it, weighted by the Gaussian of the
timing resolution. Nothing outside the circle inscribed in the image is seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from math import ceil, gcd, pi
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import ndtr

FloatArray = NDArray[np.float32]
LIGHT_MM_PER_PS = 0.299792458
FWHM_PER_SIGMA = 2.3548200450309493  # 2·sqrt(2·ln 2)
THREADS = min(4, len(os.sched_getaffinity(0)))
"""SciPy's and NumPy's inner loops run without the interpreter's lock; no result depends on this number."""
Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Geometry:
    """A square image and the lines through it.

    pixels : image side; pixel_mm : its pixel; the rotation axis goes through the image's centre
    bins : lines per angle, bin_mm apart; angles : over π, in ordered subsets of every `subsets`-th angle
    tof_fwhm_ps : coincidence timing resolution, None = no time of flight; tof_bin_mm : length of an interval
    """

    pixels: int
    pixel_mm: float
    bins: int
    bin_mm: float
    angles: int
    subsets: int = 1
    tof_fwhm_ps: float | None = None
    tof_bin_mm: float = 60.0

    def __post_init__(self) -> None:
        if self.angles % self.subsets:
            raise ValueError(f"angles: expected a multiple of {self.subsets} subsets, got {self.angles}")

    @property
    def tof_bins(self) -> int:
        """Intervals along a line: an odd number that covers the circle of view; 1 without time of flight."""
        if self.tof_fwhm_ps is None:
            return 1
        return 2 * ceil(self.pixels * self.pixel_mm / 2 / self.tof_bin_mm - 0.5) + 1

    @property
    def system(self) -> tuple[Subset, ...]:
        """The matrices of all subsets, kept for the next time (at 3.5 mm some 0.2 GB, on the fine grid 0.3 GB)."""
        return _system(self)

    @property
    def order(self) -> tuple[int, ...]:
        """Subsets in the order they are used: neighbours in time are far apart in angle, about the golden section."""
        step = next(s for s in range(round(0.382 * self.subsets), self.subsets + 1) if gcd(s, self.subsets) == 1)
        return tuple(number * step % self.subsets for number in range(self.subsets))

    @property
    def circle(self) -> FloatArray:
        """1 inside the circle of view, 0 outside: float32 (pixels²,)."""
        y, x = np.mgrid[: self.pixels, : self.pixels] - (self.pixels - 1) / 2
        return np.asarray(np.hypot(x, y) <= self.pixels / 2, np.float32).ravel()

    @property
    def without_tof(self) -> Geometry:
        """The same lines, not divided into intervals."""
        return replace(self, tof_fwhm_ps=None)


@dataclass(frozen=True, eq=False)
class Subset:
    """Some of the angles: rows are (angle, bin, interval), columns are pixels (y, x); entries are lengths [mm]."""

    angles: NDArray[np.int64]
    matrix: csr_matrix

    @classmethod
    def of(cls, geometry: Geometry, angles: NDArray[np.int64]) -> Subset:
        """The matrix of these angles."""
        blocks = [_angle(geometry, pi * angle / geometry.angles) for angle in angles]
        entries, columns, values = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        starts = np.concatenate([[0], np.cumsum(entries)]).astype(np.int32)
        shape = (len(starts) - 1, geometry.pixels**2)
        return cls(angles, csr_matrix((values, columns, starts), shape=shape))

    @cached_property
    def rows(self) -> tuple[csr_matrix, ...]:
        """The matrix cut into as many pieces as work at once."""
        return _pieces(self.matrix)

    @cached_property
    def columns(self) -> tuple[csr_matrix, ...]:
        """The transpose, cut likewise."""
        return _pieces(self.matrix.T.tocsr())

    def forward(self, image: FloatArray) -> FloatArray:
        """Line integrals float32 (lines, slices) of an image (pixels, slices) of the same quantity per mm."""
        return np.concatenate(together(lambda piece: piece @ image, self.rows))

    def back(self, lines: FloatArray) -> FloatArray:
        """The transpose: float32 (pixels, slices) of (lines, slices)."""
        return np.concatenate(together(lambda piece: piece @ lines, self.columns))


def together(function: Callable[[Given], Made], items: Iterable[Given]) -> list[Made]:
    """What a function makes of every item, in order, worked out in a few threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


def as_columns(volume: FloatArray) -> FloatArray:
    """(z, y, x) → (y·x, z), contiguous: what a matrix of one slice is applied to."""
    return np.ascontiguousarray(volume.reshape(len(volume), -1).T)


def as_volume(columns: FloatArray, pixels: int) -> FloatArray:
    """The reverse of `as_columns` for square slices."""
    return np.ascontiguousarray(columns.T).reshape(-1, pixels, pixels)


@lru_cache(maxsize=4)
def _system(geometry: Geometry) -> tuple[Subset, ...]:
    step = geometry.subsets
    every = [np.arange(first, geometry.angles, step) for first in range(step)]
    return tuple(together(lambda angles: Subset.of(geometry, angles), every))


def _pieces(matrix: csr_matrix) -> tuple[csr_matrix, ...]:
    """Blocks of rows with about as many entries each, in the same memory."""
    starts = matrix.indptr
    borders = [0, *np.searchsorted(starts, np.linspace(0, matrix.nnz, THREADS + 1)[1:-1]), matrix.shape[0]]
    pieces = []
    for first, last in pairwise(borders):
        entries = slice(starts[first], starts[last])
        held = matrix.data[entries], matrix.indices[entries], starts[first : last + 1] - starts[first]
        pieces.append(csr_matrix(held, shape=(last - first, matrix.shape[1]), copy=False))
    return tuple(pieces)


def _angle(geometry: Geometry, theta: float) -> tuple[NDArray[np.int64], NDArray[np.int32], FloatArray]:
    """Entries per row, their columns and lengths [mm] of one angle.

    Lines run along (−sin θ, cos θ) at distance s from the axis.
    """
    n, pixel = geometry.pixels, geometry.pixel_mm
    cos, sin = np.cos(theta), np.sin(theta)
    s = (np.arange(geometry.bins) - (geometry.bins - 1) / 2) * geometry.bin_mm
    centre = (n - 1) / 2
    along = (np.arange(n) - centre) * pixel  # centres of rows, or of columns
    by_rows = abs(cos) >= abs(sin)  # a line that crosses rows: x = (s − y·sin θ) / cos θ
    steep, flat = (cos, sin) if by_rows else (sin, cos)
    across = (s[:, None] - along * flat) / steep
    position = across / pixel + centre
    lower = np.floor(position)
    place = (lower[..., None] + (0, 1)).astype(np.int32)  # (bins, n, 2): the neighbours on either side
    share = np.stack([1.0 - (position - lower), position - lower], axis=-1)
    number = np.arange(n, dtype=np.int32)[:, None]
    column = number * n + place if by_rows else place * n + number
    seen = (np.hypot(place - centre, number - centre) <= n / 2) & (share > 0.0)
    length = share * (pixel / abs(steep))
    distance = along * cos - across * sin if by_rows else across * cos - along * sin  # from the foot of the axis
    interval = _intervals(geometry, distance)[..., None]  # (bins, intervals, n, 1)
    kept = seen[:, None] & (interval > 0.0)
    columns = np.broadcast_to(column[:, None], kept.shape)[kept]
    values = (length[:, None] * interval)[kept].astype(np.float32)
    return kept.sum(axis=(2, 3)).ravel(), columns, values


def _intervals(geometry: Geometry, distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each crossing (bins, n) that is measured in each interval: (bins, intervals, n), sums are 1."""
    if geometry.tof_fwhm_ps is None:
        return np.ones_like(distance)[:, None]
    # a difference of arrival of 1 ps is half a light way
    sigma_mm = geometry.tof_fwhm_ps / FWHM_PER_SIGMA * LIGHT_MM_PER_PS / 2.0
    edges = (np.arange(geometry.tof_bins + 1) - geometry.tof_bins / 2) * geometry.tof_bin_mm
    share = np.diff(ndtr((edges[:, None] - distance[:, None, :]) / sigma_mm), axis=1)
    share[share < 1e-3] = 0.0
    total = share.sum(axis=1, keepdims=True)
    return np.asarray(share / np.maximum(total, 1e-3))
