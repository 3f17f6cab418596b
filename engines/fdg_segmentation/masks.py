"""Masked reconstruction (arXiv 2605.21835): which blocks are hidden, what the network sees instead, and its loss."""

from __future__ import annotations

import torch
from torch import Tensor

Shape = tuple[int, int, int]
VISIBLE_WEIGHT = 0.2
"""Of the error where nothing was hidden; it steadies the skip connections of the U-Net."""


def block_mask(shape: tuple[int, ...], block: Shape, share: float, generator: torch.Generator) -> Tensor:
    """Bool (batch, modalities, z, y, x), True where hidden.

    Every block of every modality of every sample is hidden with probability `share`, independently: a place may be
    hidden in both, in one or in none. Blocks that do not fit are cut off at the far end.
    """
    batch, modalities, *sides = shape
    counts = [-(-side // edge) for side, edge in zip(sides, block, strict=True)]
    mask = torch.rand((batch, modalities, *counts), generator=generator) < share
    for axis, edge in enumerate(block, start=2):
        mask = mask.repeat_interleave(edge, dim=axis)
    return mask[:, :, : sides[0], : sides[1], : sides[2]]


def hide(image: Tensor, mask: Tensor, token: Tensor | float = 0.0) -> Tensor:
    """The image with the token at hidden voxels. 0 is the mean of a z-score: zero-mean imputation."""
    return torch.where(mask, token, image)


def reconstruction_loss(
    predicted: Tensor, image: Tensor, mask: Tensor, visible_weight: float = VISIBLE_WEIGHT
) -> Tensor:
    """Σ M·(x̂−x)² / ΣM + weight · Σ (1−M)·(x̂−x)² / Σ(1−M), pooled over samples and modalities."""
    squared = (predicted - image).square()
    hidden = (squared * mask).sum() / mask.sum().clamp(min=1)
    if not visible_weight:
        return hidden
    visible = (squared * ~mask).sum() / (~mask).sum().clamp(min=1)
    return hidden + visible_weight * visible


def step_at_borders(reconstructed: Tensor, image: Tensor, mask: Tensor) -> float:
    """How much larger steps of intensity are where masking changes than where it does not; 1 = no edge artefact.

    Means of |x̂(a) − x̂(b)| / mean |x(a) − x(b)| over neighbours along z, y, x, at borders and away from them, and their
    ratio: what the image itself does at those places is divided out.
    """
    sums = {True: [0.0, 0.0], False: [0.0, 0.0]}
    for axis in (2, 3, 4):
        made, real = (values.diff(dim=axis).abs() for values in (reconstructed, image))
        border = mask.diff(dim=axis)
        for at_border, totals in sums.items():
            chosen = border == at_border
            totals[0] += float(made[chosen].sum())
            totals[1] += float(real[chosen].sum())
    at, away = (sums[which][0] / sums[which][1] for which in (True, False))
    return at / away
