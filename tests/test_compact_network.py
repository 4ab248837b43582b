"""The compact network: shapes, size, how far it sees, and its form for inference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccrl_wsi.nuclei.compact import SPOILT_PX
from ccrl_wsi.nuclei.compact_network import (
    STRIDE_PX,
    CompactNetwork,
    ConvNormRelu,
    fold_norms,
)

SEES_PX = 96
"""Beyond this no pixel changes a map: 3 convolutions at steps of 2, 5 of 4, 7 of 8, and so on."""


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = CompactNetwork((8, 16, 24))
    made.train()(torch.rand(2, 3, 64, 64) * 255)  # running statistics of their own
    return made.eval()


def image(side, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, side, side, generator=generator) * 255


def test_maps_have_the_size_of_the_image(network):
    assert network(torch.zeros(2, 3, 40, 64)).shape == (2, 4, 40, 64)


def test_the_default_is_as_small_as_promised():
    n = sum(p.numel() for p in CompactNetwork((32, 64, 128)).parameters())

    assert 0.3e6 < n < 2e6


def test_folded_normalisations_change_nothing(network):
    folded = fold_norms(network)

    with torch.inference_mode():
        assert torch.allclose(folded(image(64)), network(image(64)), atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())


def test_no_pixel_further_away_than_said_changes_a_map(network):
    side, middle = 240, 120
    first, other = image(side), image(side, seed=2)
    near = slice(middle - SEES_PX, middle + SEES_PX)
    other[..., near, near] = first[..., near, near]

    with torch.inference_mode():
        a, b = network(first), network(other)

    inner = slice(middle - STRIDE_PX, middle + STRIDE_PX)
    assert torch.allclose(a[..., inner, inner], b[..., inner, inner], atol=1e-4)
    assert not torch.allclose(a, b, atol=1e-4)


def test_a_window_gives_what_the_whole_image_gives_away_from_its_edge(network):
    whole = image(320)
    start = 5 * STRIDE_PX
    window = whole[..., start : start + 256, start : start + 256]

    with torch.inference_mode():
        a, b = network(whole)[..., start : start + 256, start : start + 256], network(window)

    inner = slice(SEES_PX, 256 - SEES_PX)
    assert torch.allclose(a[..., inner, inner], b[..., inner, inner], atol=1e-4)
    assert SPOILT_PX < SEES_PX


def test_every_weight_learns(network):
    learning = CompactNetwork((8, 16, 24))
    learning(image(64)).square().mean().backward()

    still = [name for name, p in learning.named_parameters() if not p.grad.abs().sum() > 0]
    assert still == []


def test_only_plain_norms_are_folded():
    block = ConvNormRelu(3, 8)
    block.norm = torch.nn.InstanceNorm2d(8)

    with pytest.raises(TypeError, match="InstanceNorm2d"):
        fold_norms(torch.nn.Sequential(block))


def test_colours_are_scaled_by_fixed_numbers(network):
    assert np.allclose(network.mean.ravel(), [178.5, 140.25, 178.5])
