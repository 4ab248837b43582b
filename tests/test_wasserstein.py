"""The gradient penalty where the slope is known."""

from __future__ import annotations

import pytest
import torch

from ccrl_wsi.training.losses.wasserstein import gradient_penalty


def images(seed, n=5):
    return torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_a_linear_critic_has_its_weights_as_slope_everywhere():
    weight = torch.randn(48, generator=torch.Generator().manual_seed(2), requires_grad=True)

    def critic(x):
        return x.flatten(1) @ weight

    share = torch.rand(5)
    found = gradient_penalty(critic, images(0), images(1), share)
    expected = (weight.norm() - 1) ** 2
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    # And what the critic learns from it is autograd's own derivative of (|w| - 1)^2.
    (by_penalty,) = torch.autograd.grad(found, weight)
    (by_hand,) = torch.autograd.grad((weight.norm() - 1) ** 2, weight)
    torch.testing.assert_close(by_penalty, by_hand)


def test_the_slope_is_taken_between_real_and_fake():
    """A square has the slope 2 x: the point is told by it."""
    real, fake = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    share = torch.tensor([0.25, 1.0])
    found = gradient_penalty(lambda x: x.flatten(1).square().sum(dim=1), real, fake, share)
    assert float(found.detach()) == pytest.approx(((0.5 - 1) ** 2 + (2 - 1) ** 2) / 2)
