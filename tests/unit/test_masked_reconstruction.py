"""Block masks are Bernoulli by modality, hidden voxels are the mean, and the loss is the paper's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engines.fdg_segmentation.masks import block_mask, hide, reconstruction_loss, step_at_borders


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_masks_are_whole_blocks_drawn_for_each_modality_by_itself() -> None:
    mask = block_mask((64, 2, 24, 32, 32), (12, 16, 16), 0.5, generator())
    assert mask.shape == (64, 2, 24, 32, 32)
    assert mask.dtype == torch.bool
    blocks = mask.reshape(64, 2, 2, 12, 2, 16, 2, 16).permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(64, 2, 8, -1)
    assert (blocks.all(dim=-1) | ~blocks.any(dim=-1)).all()
    drawn = blocks[..., 0]
    n = drawn.numel()
    assert abs(float(drawn.float().mean()) - 0.5) < 4 * 0.5 / n**0.5
    pet, ct = drawn[:, 0], drawn[:, 1]
    both = float((pet & ct).float().mean())  # independent: a quarter is hidden in both, a quarter in none
    assert abs(both - 0.25) < 4 * (0.25 * 0.75 / pet.numel()) ** 0.5
    counts = drawn.sum(dim=-1).float()
    assert counts.var() > 1.0  # Bernoulli, 8 × ½ × ½ = 2; an exact count would have 0


def test_blocks_that_do_not_fit_are_cut_off_and_one_seed_gives_one_mask() -> None:
    mask = block_mask((1, 1, 5, 7, 9), (4, 4, 4), 0.5, generator(3))
    assert mask.shape == (1, 1, 5, 7, 9)
    assert (mask[..., :4, :4, :4] == mask[..., 0, 0, 0]).all()
    assert torch.equal(mask, block_mask((1, 1, 5, 7, 9), (4, 4, 4), 0.5, generator(3)))
    assert not torch.equal(mask, block_mask((1, 1, 5, 7, 9), (4, 4, 4), 0.5, generator(4)))


def test_hidden_voxels_are_the_mean_of_a_z_score_or_a_learned_token() -> None:
    image = torch.randn(2, 2, 4, 4, 4)
    mask = block_mask(image.shape, (2, 2, 2), 0.5, generator())
    seen = hide(image, mask)
    assert (seen[mask] == 0.0).all()
    assert torch.equal(seen[~mask], image[~mask])
    token = torch.tensor([0.5, -2.0]).reshape(1, 2, 1, 1, 1)
    seen = hide(image, mask, token)
    assert (seen[:, 0][mask[:, 0]] == 0.5).all()
    assert (seen[:, 1][mask[:, 1]] == -2.0).all()


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_the_loss_is_the_one_computed_by_hand(weight: float) -> None:
    rng = np.random.default_rng(1)
    predicted, image = rng.normal(size=(2, 2, 2, 3, 4, 5))
    mask = rng.random((2, 2, 3, 4, 5)) < 0.4
    squared = (predicted - image) ** 2
    expected = squared[mask].sum() / mask.sum() + weight * squared[~mask].sum() / (~mask).sum()
    loss = reconstruction_loss(torch.tensor(predicted), torch.tensor(image), torch.tensor(mask), weight)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_nothing_hidden_or_everything_hidden_is_no_division_by_zero() -> None:
    image = torch.ones(1, 1, 2, 2, 2)
    nothing = torch.zeros_like(image, dtype=torch.bool)
    assert float(reconstruction_loss(image + 1.0, image, nothing)) == pytest.approx(0.2)
    assert float(reconstruction_loss(image + 1.0, image, ~nothing)) == pytest.approx(1.0)


def test_a_step_at_the_borders_of_masks_is_seen() -> None:
    rng = torch.manual_seed(0)
    image = torch.randn(1, 1, 8, 8, 8, generator=rng)
    mask = block_mask(image.shape, (4, 4, 4), 0.5, generator(1))
    assert step_at_borders(image, image, mask) == pytest.approx(1.0)
    assert step_at_borders(torch.where(mask, image + 5.0, image), image, mask) > 2.0
