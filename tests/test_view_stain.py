"""The change of stain against a slow twin and closed forms."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.color import rgb_from_hed

from ccrl_wsi.training.view_change import make_changes
from ccrl_wsi.training.view_stain import DARKEST, STAINS, staining
from tests.drawn_views import drawn, no_change, noise


def stained(pixels, factor, shift):
    p = no_change(len(pixels), stain_factor=factor, stain_shift=shift)
    return make_changes(pixels, [staining(p)])


def image_of(densities):
    """What (n, 3, h, w) densities of the three stains look like."""
    return torch.from_numpy(np.exp(-np.einsum("ns...,so->no...", densities, STAINS))).float()


def test_the_stains_are_those_of_ruifrok_and_johnston():
    np.testing.assert_array_equal(STAINS, rgb_from_hed)


def test_against_a_slow_twin():
    p, pixels = drawn(8, seed=1), noise(8, side=5)
    seen = make_changes(pixels, [staining(p)])
    assert 0 < p.is_stained.sum() < 8
    for row, y, x in np.ndindex(8, 5, 5):
        density = -np.log(np.maximum(pixels[row, :, y, x].double().numpy(), DARKEST))
        stains = np.linalg.solve(STAINS.T, density)
        stains = stains * p.stain_factor[row] + p.stain_shift[row]
        twin = np.clip(np.exp(-STAINS.T @ stains), 0, 1)
        expected = twin if p.is_stained[row] else pixels[row, :, y, x]
        np.testing.assert_allclose(seen[row, :, y, x], expected, atol=2e-6)


def test_more_of_one_stain_is_more_of_that_stain_only():
    densities = np.random.default_rng(0).uniform(0.1, 0.8, (4, 3, 6, 6))
    factor = np.tile((1.05, 0.95, 1.0), (4, 1))
    shift = np.tile((0.02, 0.0, -0.03), (4, 1))
    expected = image_of(densities * factor[..., None, None] + shift[..., None, None])
    torch.testing.assert_close(
        stained(image_of(densities), factor, shift), expected, atol=2e-6, rtol=0
    )


def test_glass_gets_the_added_stain_and_no_more():
    glass = torch.ones(1, 3, 2, 2)
    seen = stained(glass, np.full((1, 3), 1.05), np.array([[0.05, 0, 0]]))
    np.testing.assert_allclose(seen[0, :, 0, 0], np.exp(-0.05 * STAINS[0]), atol=1e-6)


def test_what_is_not_stained_keeps_its_bits():
    pixels = noise(3)
    factor = np.ones((3, 3))
    factor[1] = 1.04
    seen = stained(pixels, factor, np.zeros((3, 3)))
    assert torch.equal(seen[[0, 2]], pixels[[0, 2]])
    assert not torch.equal(seen[1], pixels[1])


@settings(max_examples=40, deadline=None)
@given(
    pixels=arrays(np.float32, (2, 3, 2, 2), elements=st.floats(0, 1, width=32)),
    factor=arrays(float, (2, 3), elements=st.floats(0, 3)),
    shift=arrays(float, (2, 3), elements=st.floats(-2, 2)),
)
def test_light_stays_between_0_and_1(pixels, factor, shift):
    seen = stained(torch.from_numpy(pixels), factor, shift)
    assert torch.isfinite(seen).all()
    assert ((seen >= 0) & (seen <= 1)).all()
