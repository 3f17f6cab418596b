"""A network over a whole image: only where something may be, window by window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import cast

import numpy as np
import torch
from torch import nn

from engines.contract import FloatArray
from engines.fdg_segmentation.model import Network, sees_windows
from engines.lesions import Box, Mask, bounding_box
from engines.tiling import Shape, Tiling, predict_in_windows

TILE_VOXELS = 2_000_000
"""Of one window: a whole body at 5 mm. Preset tiny takes some 200 bytes a voxel."""


def predicted(
    network: nn.Module,
    image: FloatArray,
    tiling: Tiling,
    should_stop: Callable[[], bool],
    worth: Mask | None = None,
) -> FloatArray:
    """Probability of tumour, float32 (z, y, x), of a prepared image (2, z, y, x); windows are blended.

    tiling : windows as in training; a network that does not look at its window as a whole gets larger ones
    worth : where a tumour may be; windows are laid over the smallest box around it and those without a voxel of it are
        not predicted, they count as 0. None = everywhere
    """
    found = np.zeros(image.shape[1:], np.float32)
    tight = whole(found.shape) if worth is None else bounding_box(worth)
    if tight is None:
        return found
    looked_at = np.ones(found.shape, bool) if worth is None else worth

    def look(tiling: Tiling) -> FloatArray:
        box = at_least(tight, tiling.window, found.shape)
        predict = predictor(network)
        layers = np.concatenate([image[(slice(None), *box)], looked_at[box][None].astype(np.float32)])
        found[box] = predict_in_windows(
            layers, lambda part: predict(part[:-1]), tiling, should_stop, skip=lambda part: not part[-1].any()
        )[0]
        return found

    if sees_windows(network):
        return look(tiling)
    divisor, voxels_max = cast("Network", network).divisor, TILE_VOXELS
    while True:
        window = tile(tight, tiling.window, divisor, voxels_max)
        try:
            return look(replace(tiling, window=window))
        except torch.OutOfMemoryError:  # of a GPU, which others may be using too
            if window == tiling.window:
                raise
            voxels_max = int(np.prod(window)) // 2


def tile(box: Box, window: Shape, divisor: int, voxels_max: int = TILE_VOXELS) -> Shape:
    """A window for a network that may be given any: the whole box, or halves of it until one fits into memory.

    window : of training; no side becomes smaller than that
    divisor : of every side
    """
    sides = [max(n, _up(side.stop - side.start, divisor)) for side, n in zip(box, window, strict=True)]
    while np.prod(sides) > voxels_max and sides != list(window):
        axis = max(range(3), key=lambda axis: sides[axis] / window[axis])
        sides[axis] = max(window[axis], _up(-(-sides[axis] // 2), divisor))
    z, y, x = sides
    return z, y, x


def whole(shape: tuple[int, ...]) -> Box:
    """The box that is all of an array."""
    z, y, x = (slice(0, n) for n in shape)
    return z, y, x


def _up(n: int, divisor: int) -> int:
    return -(-n // divisor) * divisor


def predictor(network: nn.Module) -> Callable[[FloatArray], FloatArray]:
    """A window (2, z, y, x) → probability of tumour (1, z, y, x)."""
    device = next(network.parameters()).device
    half = device.type != "cpu" or cpu_has_bfloat16()

    def predict(part: FloatArray) -> FloatArray:
        batch = torch.from_numpy(np.ascontiguousarray(part))[None].to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = network(batch).float()
        found: FloatArray = logits.softmax(dim=1)[0, 1:].cpu().numpy()
        return found

    return predict


@cache
def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, float32 is faster."""
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def at_least(box: Box, size: Shape, shape: tuple[int, ...]) -> Box:
    """A box, grown about its middle to a size as far as the image allows."""
    sides = []
    for side, n, whole in zip(box, size, shape, strict=True):
        missing = max(0, min(n, whole) - (side.stop - side.start))
        low = min(max(0, side.start - missing // 2), whole - (side.stop - side.start) - missing)
        sides.append(slice(low, low + (side.stop - side.start) + missing))
    return sides[0], sides[1], sides[2]
