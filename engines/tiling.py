"""Overlap-and-blend inference: cut a volume into windows, predict each, blend the predictions. numpy only.

Windows overlap and are weighted towards their centre, where a network sees most context (nnU-Net, Isensee 2021,
Nat Methods 18:203).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engines.contract import FloatArray
from engines.errors import Stopped

Shape = tuple[int, int, int]
Window = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a volume is cut.

    window : voxels (z, y, x) of one prediction
    overlap : share of a window that the next one covers again, 0 ≤ overlap < 1
    weights : "gaussian" with σ = window / 8 as in nnU-Net, or "constant"
    """

    window: Shape
    overlap: float = 0.5
    weights: Literal["gaussian", "constant"] = "gaussian"

    def __post_init__(self) -> None:
        if min(self.window) < 1:
            raise ValueError(f"window: expected at least one voxel per axis, got {self.window}")
        if not 0.0 <= self.overlap < 1.0:
            raise ValueError(f"overlap: expected 0 ≤ overlap < 1, got {self.overlap}")


def windows(shape: Shape, tiling: Tiling, should_stop: Callable[[], bool]) -> Iterator[Window]:
    """Windows that cover a volume of at least the window's size, evenly spaced, first and last flush with its edges.

    Raises
    ------
    Stopped
        `should_stop`, asked before every window, answered yes.
    """
    starts = [_starts(n, w, tiling.overlap) for n, w in zip(shape, tiling.window, strict=True)]
    for corner in product(*starts):
        if should_stop():
            raise Stopped("asked to stop between two windows")
        z, y, x = (slice(start, start + w) for start, w in zip(corner, tiling.window, strict=True))
        yield z, y, x


def predict_in_windows(
    image: FloatArray,
    predict: Callable[[FloatArray], FloatArray],
    tiling: Tiling,
    should_stop: Callable[[], bool],
    skip: Callable[[FloatArray], bool] | None = None,
) -> FloatArray:
    """Blend the predictions of all windows.

    image : float32 (channels, z, y, x); where it is smaller than the window it is padded with its edge values
    predict : (channels, *window) → (classes, *window)
    skip : says of a window (channels, *window) that it is empty: it counts as zeros and is not predicted

    Returns float32 (classes, z, y, x); zeros of one class where every window was skipped.
    """
    short = [max(0, w - n) for n, w in zip(image.shape[1:], tiling.window, strict=True)]
    padded = np.pad(image, [(0, 0), *((0, n) for n in short)], mode="edge")
    z, y, x = padded.shape[1:]
    weight = blend_weights(tiling)
    total = np.zeros((z, y, x))
    blended = np.zeros((1, z, y, x))
    for window in windows((z, y, x), tiling, should_stop):
        total[window] += weight
        part = padded[(slice(None), *window)]
        if skip is not None and skip(part):
            continue
        prediction = predict(part)
        if len(prediction) > len(blended):
            blended = np.concatenate([blended, np.zeros((len(prediction) - len(blended), z, y, x))])
        blended[(slice(None), *window)] += weight * prediction
    inside = tuple(slice(0, n) for n in image.shape[1:])
    blended /= total
    return blended[(slice(None), *inside)].astype(np.float32)


def blend_weights(tiling: Tiling) -> NDArray[np.float64]:
    """Weight of every voxel of a window, highest 1, never 0."""
    if tiling.weights == "constant":
        return np.ones(tiling.window)
    z, y, x = (_bell(n) for n in tiling.window)
    return z[:, None, None] * y[None, :, None] * x[None, None, :]


def _bell(n: int) -> NDArray[np.float64]:
    sigma = max(n / 8.0, 0.5)
    bell = np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2.0) / sigma) ** 2)
    highest_one: NDArray[np.float64] = bell / bell.max()
    return highest_one


def _starts(extent: int, window: int, overlap: float) -> list[int]:
    """First indices along one axis: as few as keep the overlap, evenly spread."""
    furthest = extent - window
    step = max(1, int(window * (1.0 - overlap)))
    count = -(-furthest // step) + 1
    return sorted({round(furthest * i / max(1, count - 1)) for i in range(count)})
