"""Brightness, contrast, saturation, hue and grey against torchvision's."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ccrl_wsi.training.view_change import make_changes
from ccrl_wsi.training.view_colour import greying, jittering
from ccrl_wsi.training.view_parameters import BRIGHTNESS, CONTRAST, HUE, NO_JITTER, SATURATION
from tests.drawn_views import drawn, no_change, noise

ADJUST = {
    BRIGHTNESS: tv.adjust_brightness,
    CONTRAST: tv.adjust_contrast,
    SATURATION: tv.adjust_saturation,
    HUE: tv.adjust_hue,
}
TOLERANCE = {"atol": 5e-6, "rtol": 0}
"""Of values from 0 to 1: some roundings in float32."""


def jittered(pixels, jitter, order=None):
    n = len(pixels)
    order = np.tile(np.arange(4), (n, 1)) if order is None else order
    return make_changes(pixels, [jittering(no_change(n, jitter=jitter, order=order))])


def only(kind, amount, n=1):
    jitter = np.tile(NO_JITTER, (n, 1))
    jitter[:, kind] = amount
    return jitter


@pytest.mark.parametrize(
    ("kind", "amount"),
    [(k, a) for k in (BRIGHTNESS, CONTRAST, SATURATION) for a in (0.0, 0.6, 1.1, 1.4, 3.0)]
    + [(HUE, a) for a in (-0.5, -0.1, 0.03, 0.1, 0.3, 0.5)],
)
def test_each_change_is_that_of_torchvision(kind, amount):
    pixels = noise(3)
    seen = jittered(pixels, only(kind, amount, 3))
    torch.testing.assert_close(seen, ADJUST[kind](pixels, amount), **TOLERANCE)
    assert not torch.equal(seen, pixels)


@pytest.mark.parametrize("colour", [*np.ndindex(2, 2, 2), (0.5, 0.5, 0.5), (1, 1, 0.5)])
def test_hue_of_pure_colours_and_greys(colour):
    pixels = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    for turns in (-0.5, -1 / 3, -0.01, 1 / 6, 0.5):
        seen = jittered(pixels, only(HUE, turns))
        torch.testing.assert_close(seen, tv.adjust_hue(pixels, turns), **TOLERANCE)


def test_every_crop_has_its_own_order_and_amounts():
    orders = np.array([*permutations(range(4))] * 3)
    rng = np.random.default_rng(0)
    jitter = rng.uniform((0.6, 0.6, 0.6, -0.1), (1.4, 1.4, 1.4, 0.1), (len(orders), 4))
    pixels = noise(len(orders), side=8)
    expected = pixels.clone()
    for row, order in enumerate(orders):
        for kind in order:
            expected[row] = ADJUST[kind](expected[row], float(jitter[row, kind]))
    # Clamping between changes and a hue of nearly grey pixels enlarge roundings.
    torch.testing.assert_close(jittered(pixels, jitter, orders), expected, atol=2e-5, rtol=0)


def test_the_order_matters():
    pixels, order = noise(2), np.array([(0, 1, 2, 3), (1, 0, 2, 3)])
    same = pixels[:1].expand(2, -1, -1, -1)
    seen = jittered(same, np.tile((1.4, 0.6, 1.0, 0.0), (2, 1)), order)
    assert (seen[0] - seen[1]).abs().max() > 0.05


def test_a_jitter_leaves_those_without_one_their_bits():
    pixels, p = noise(64), drawn(64)
    seen = make_changes(pixels, [jittering(p), greying(p)])
    is_same = ~p.is_jittered & ~p.is_grey
    assert 5 < is_same.sum() < 40
    assert torch.equal(seen[is_same], pixels[is_same])


def test_a_crop_keeps_the_bits_that_other_changes_of_colour_leave_it():
    # Sorting by the turn of the hue must not mix up whose turn it is.
    p = drawn(200)
    without_hue = np.where(np.arange(4) == HUE, 0, p.jitter)
    pixels = noise(200, side=8)
    seen = jittered(pixels, without_hue, p.order)
    one_by_one = [
        jittered(pixels[i : i + 1], without_hue[i : i + 1], p.order[i : i + 1]) for i in range(200)
    ]
    torch.testing.assert_close(seen, torch.cat(one_by_one), atol=1e-6, rtol=0)


def test_grey_is_that_of_torchvision():
    pixels = noise(3)
    seen = make_changes(pixels, [greying(no_change(3, is_grey=[True, False, True]))])
    expected = tv.rgb_to_grayscale(pixels, 3)
    torch.testing.assert_close(seen[[0, 2]], expected[[0, 2]], atol=1e-6, rtol=0)
    assert torch.equal(seen[1], pixels[1])


@pytest.mark.parametrize("kind", [BRIGHTNESS, CONTRAST])
def test_one_channel_is_treated_as_torchvision_does(kind):
    pixels = noise(3, channels=1)
    seen = jittered(pixels, only(kind, 1.3, 3))
    torch.testing.assert_close(seen, ADJUST[kind](pixels, 1.3), **TOLERANCE)


def test_channels_that_are_no_colours_keep_their_own_levels():
    pixels = noise(3, channels=5)
    seen = jittered(pixels, only(CONTRAST, 0.7, 3))
    alone = [jittered(pixels[:, i : i + 1], only(CONTRAST, 0.7, 3)) for i in range(5)]
    torch.testing.assert_close(seen, torch.cat(alone, 1), **TOLERANCE)


@settings(max_examples=40, deadline=None)
@given(
    pixels=arrays(np.float32, (2, 3, 3, 3), elements=st.floats(0, 1, width=32)),
    factors=arrays(float, (2, 3), elements=st.floats(0, 4)),
    turns=arrays(float, 2, elements=st.floats(-0.5, 0.5)),
    order=st.permutations(range(4)),
)
def test_colours_stay_between_0_and_1(pixels, factors, turns, order):
    jitter = np.column_stack([factors, turns])
    seen = jittered(torch.from_numpy(pixels), jitter, np.tile(order, (2, 1)))
    assert torch.isfinite(seen).all()
    assert ((seen >= 0) & (seen <= 1)).all()
