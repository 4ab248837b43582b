"""Measures of a space of embeddings, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from ccrl_wsi.training.diagnostics import effective_rank, spread, uniformity


def test_uniformity_of_a_square_and_of_a_point():
    square = torch.tensor([[1.0, 0], [0, 7.0], [-3.0, 0], [0, -1.0]])
    # Of six pairs four are 90 degrees apart (distance^2 2), two opposite (4).
    expected = math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6)
    assert uniformity(square).item() == pytest.approx(expected, abs=1e-6)
    expected = math.log((4 * math.exp(-2) + 2 * math.exp(-4)) / 6)
    assert uniformity(square, t=1).item() == pytest.approx(expected, abs=1e-6)
    assert uniformity(torch.ones(5, 3)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("d", [1, 4, 64])
def test_spread_is_one_by_root_d_when_even_and_zero_when_collapsed(d):
    axes = torch.cat([torch.eye(d), -torch.eye(d)]) * 3
    assert spread(axes).item() == pytest.approx(1 / math.sqrt(d))
    assert spread(torch.ones(9, d)).item() == pytest.approx(0, abs=1e-6)


def test_effective_rank_counts_equal_directions_and_weighs_unequal_ones():
    assert effective_rank(torch.eye(7)[:, :5] * 4).item() == pytest.approx(5, rel=1e-5)
    assert effective_rank(torch.ones(6, 4)).item() == pytest.approx(1, rel=1e-4)
    # Singular values 3 and 1: shares 3/4 and 1/4.
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    unequal = torch.diag(torch.tensor([3.0, 1.0]))
    assert effective_rank(unequal).item() == pytest.approx(math.exp(entropy))


def test_no_measure_keeps_a_gradient_or_computes_in_bfloat16():
    z = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        values = [uniformity(z), spread(z), effective_rank(z)]
    for value in values:
        assert not value.requires_grad
        assert value.dtype == torch.float32


def test_the_rank_of_what_is_no_number_is_no_number():
    broken = torch.eye(3)
    broken[1, 1] = torch.inf
    assert effective_rank(broken).isnan()
