"""Which patches a step learns from: where they are cut, how they are zoomed, in which field of view they are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from engines.contract import FloatArray
from engines.fdg_segmentation.preprocessing import CT, HIDDEN, Example
from engines.lesions import Mask, structure
from engines.training import Batch

HOT = 3.0
"""PET z-score; above it are brain, bladder, heart, kidneys and hot lesions."""
Shape = tuple[int, int, int]
Generator = np.random.Generator


@dataclass(frozen=True, slots=True)
class Drawing:
    """How patches are drawn.

    patch : voxels (z, y, x)
    zoom : a side is enlarged by up to this share, or made smaller, in half of the patches
    lesions : share of patches that are laid around a voxel of a lesion, each lesion being as likely
    hot : share that are laid around a voxel of a PET z-score above 3, which mostly is an organ
    partial_view : share of patches whose z-scores are taken anew over a random part of the body around them, as if
        the examination had shown no more
    without_ct : share of patches whose CT is hidden, which is its mean, as if there were none
    """

    patch: Shape
    zoom: float = 0.1
    lesions: float = 0.0
    hot: float = 0.0
    partial_view: float = 0.0
    without_ct: float = 0.0


class Patches:
    """Random patches of prepared examples."""

    def __init__(self, examples: Sequence[Example], drawing: Drawing) -> None:
        if not examples:
            raise ValueError("patches: expected at least one example, got none")
        self.examples, self.drawing = examples, drawing
        self.lesions = [
            (number, voxels)
            for number, each in enumerate(examples)
            if each.truth is not None and drawing.lesions > 0.0
            for voxels in _lesion_voxels(each.truth)
        ]
        self.hot = [
            (number, voxels) for number, each in enumerate(examples) for voxels in _hot_voxels(each, drawing.hot)
        ]

    def batch(self, size: int, rng: Generator) -> Batch:
        """`image` float32 (batch, 2, z, y, x) and `truth` bool (batch, 1, z, y, x), False where unlabelled."""
        drawn = [self._patch(rng) for _ in range(size)]
        return {
            "image": torch.stack([image for image, _ in drawn]),
            "truth": torch.stack([truth for _, truth in drawn]),
        }

    def _patch(self, rng: Generator) -> tuple[Tensor, Tensor]:
        drawing = self.drawing
        zoomed = rng.random() < 0.5
        side = 1.0 / rng.uniform(1.0 - drawing.zoom, 1.0 + drawing.zoom) if zoomed else 1.0
        cut = tuple(max(1, round(n * side)) for n in drawing.patch)
        number, start = self._place(cut, rng)
        example = self.examples[number]
        image = _cut(example.image, start, cut).astype(np.float32)
        if rng.random() < drawing.partial_view:
            image = _scored_in_part(example.image, image, (start, cut), rng)
        if drawing.without_ct > 0.0 and rng.random() < drawing.without_ct:
            image[CT] = HIDDEN
        truth = np.zeros((1, *cut), bool) if example.truth is None else _cut(example.truth[None], start, cut)
        pair = torch.from_numpy(image), torch.from_numpy(truth)
        if cut == drawing.patch:
            return pair
        image_zoomed = functional.interpolate(pair[0][None], drawing.patch, mode="trilinear")[0]
        share = functional.interpolate(pair[1][None].float(), drawing.patch, mode="trilinear")[0]
        return image_zoomed, share >= 0.5

    def _place(self, cut: tuple[int, ...], rng: Generator) -> tuple[int, list[int]]:
        """Which example, and the first index along each axis."""
        chance = rng.random()
        for share, places in ((self.drawing.lesions, self.lesions), (self.drawing.hot, self.hot)):
            if places and chance < share:
                return self._around(places[rng.integers(len(places))], cut, rng)
            chance -= share
        number = int(rng.integers(len(self.examples)))
        shape = self.examples[number].image.shape[1:]
        return number, [int(rng.integers(max(0, side - n) + 1)) for side, n in zip(shape, cut, strict=True)]

    def _around(
        self, place: tuple[int, NDArray[np.int64]], cut: tuple[int, ...], rng: Generator
    ) -> tuple[int, list[int]]:
        """One of the voxels comes to lie in the middle half of the patch, as far as the image allows."""
        number, voxels = place
        shape = self.examples[number].image.shape[1:]
        voxel = voxels[rng.integers(len(voxels))]
        wanted = [int(at) - int(rng.integers(n // 4, n - n // 4)) for at, n in zip(voxel, cut, strict=True)]
        return number, [min(max(0, at), max(0, side - n)) for at, side, n in zip(wanted, shape, cut, strict=True)]


def _hot_voxels(example: Example, share: float) -> list[NDArray[np.int64]]:
    found = np.argwhere(example.image[0] > HOT) if share > 0.0 else np.zeros((0, 3), np.int64)
    return [found] if len(found) else []


def _lesion_voxels(truth: Mask) -> list[NDArray[np.int64]]:
    labels, count = ndimage.label(truth, structure(18))
    places = np.argwhere(labels)
    of = labels[tuple(places.T)]
    return [places[of == label] for label in range(1, count + 1)]


def _cut(array: NDArray[np.generic], start: Sequence[int], size: Sequence[int]) -> NDArray[np.generic]:
    """A box of (channels, z, y, x); beyond the far end its last values are repeated."""
    for axis, (first, n) in enumerate(zip(start, size, strict=True), start=1):
        index = np.minimum(np.arange(first, first + n), array.shape[axis] - 1)
        array = array.take(index, axis) if first + n > array.shape[axis] else _sliced(array, axis, first, n)
    return np.ascontiguousarray(array)


def _sliced(array: NDArray[np.generic], axis: int, first: int, n: int) -> NDArray[np.generic]:
    return array[(slice(None),) * axis + (slice(first, first + n),)]


def _scored_in_part(
    whole: NDArray[np.float16], image: FloatArray, place: tuple[Sequence[int], Sequence[int]], rng: Generator
) -> FloatArray:
    """The patch as z-scores of a random box around it."""
    box = []
    for first, n, side in zip(*place, whole.shape[1:], strict=True):
        low = int(rng.integers(min(first, side - 1) + 1))
        high = int(rng.integers(min(first + n, side), side + 1))
        box.append(slice(low, high, 2))
    seen = whole[(slice(None), *box)].astype(np.float32).reshape(len(whole), -1)
    mean, deviation = seen.mean(axis=1), seen.std(axis=1)
    scored: FloatArray = (image - mean[:, None, None, None]) / np.maximum(deviation, 0.05)[:, None, None, None]
    return scored
