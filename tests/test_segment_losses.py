"""The losses of a segmenter against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccrl_wsi.training.segment_losses import (
    BACKGROUND_WEIGHT,
    SEPARATION_BETA,
    hard_dice,
    probability_losses,
    separation_loss,
)


def maps(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).float()


def test_cross_entropy_and_dice_are_their_formulas():
    logit, inside = 4 * maps(1, 2, 6, 5) - 2, (maps(2, 2, 6, 5) > 0.6).float()
    weight = (maps(3, 2, 6, 5) > 0.3).float()

    entropy, dice = probability_losses(logit, inside, weight)

    p, t, w = (a.double().numpy() for a in (torch.sigmoid(logit), inside, weight))
    each = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    assert float(entropy) == pytest.approx((each * w).sum() / w.sum(), rel=1e-5)
    expected = 1 - (2 * (p * t * w).sum() + 1) / ((p * w).sum() + (t * w).sum() + 1)
    assert float(dice) == pytest.approx(expected, rel=1e-5)


def test_separation_is_smooth_absolute_error_that_counts_nuclei_more():
    found, drawn = maps(4, 2, 2, 4, 4), maps(5, 2, 2, 4, 4)
    inside, weight = (maps(6, 2, 4, 4) > 0.5).float(), torch.ones(2, 4, 4)

    loss = separation_loss(found, drawn, inside, weight)

    error = np.abs((found - drawn).double().numpy())
    b = SEPARATION_BETA
    each = np.where(error < b, error**2 / (2 * b), error - b / 2).sum(axis=1)
    counts = np.where(inside.numpy() > 0, 1.0, BACKGROUND_WEIGHT)
    assert float(loss) == pytest.approx((each * counts).sum() / counts.sum(), rel=1e-5)


def test_pixels_without_weight_change_nothing():
    logit, inside, weight = maps(1, 1, 4, 4), (maps(2, 1, 4, 4) > 0.5).float(), maps(3, 1, 4, 4)
    weight = (weight > 0.5).float()
    other = torch.where(weight > 0, logit, -logit + 3)

    a, b = (probability_losses(x, inside, weight) for x in (logit, other))
    assert torch.allclose(torch.stack(a), torch.stack(b))
    assert torch.equal(hard_dice(logit, inside, weight), hard_dice(other, inside, weight))
    a, b = (separation_loss(x[:, None], inside[:, None], inside, weight) for x in (logit, other))
    assert torch.allclose(a, b)


def test_a_batch_without_anything_that_counts_gives_numbers():
    nothing = torch.zeros(1, 4, 4)

    entropy, dice = probability_losses(maps(1, 1, 4, 4), nothing, nothing)

    assert float(entropy) == float(dice) == 0
    assert float(separation_loss(maps(1, 1, 1, 4, 4), nothing[None], nothing, nothing)) == 0
    assert float(hard_dice(maps(1, 1, 4, 4), nothing, nothing)) == 1


def test_dice_of_known_overlaps():
    inside = torch.tensor([[[1.0, 1, 0, 0]]])
    logit = torch.tensor([[[2.0, -1, 3, -2]]])

    assert float(hard_dice(logit, inside, torch.ones_like(inside))) == pytest.approx(0.5)
