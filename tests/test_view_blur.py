"""The blur against torchvision's, with the mirrored border."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from scipy.ndimage import gaussian_filter

from ccrl_wsi.training.view_blur import blurring
from ccrl_wsi.training.view_change import make_changes
from tests.drawn_views import no_change, noise

SIGMAS = (0.1, 0.3, 0.5, 1.0, 1.5, 2.0)


def blurred(pixels, sigmas):
    return make_changes(pixels, [blurring(no_change(len(pixels), blur_px=np.asarray(sigmas)))])


@pytest.mark.parametrize("side", [32, 21])
@pytest.mark.parametrize("channels", [3, 1, 4])
def test_each_crop_has_its_own_sigma_as_in_torchvision(side, channels):
    pixels = noise(len(SIGMAS), side=side, channels=channels)
    seen = blurred(pixels, SIGMAS)
    width = 2 * side - 1  # as far as torchvision's mirrored border goes
    for row, sigma in enumerate(SIGMAS):
        expected = tv.gaussian_blur(pixels[row], [width, width], [sigma, sigma])
        torch.testing.assert_close(seen[row], expected, atol=2e-6, rtol=0)


def test_a_kernel_of_four_sigma_would_be_much_the_same():
    pixels = noise(1)
    expected = gaussian_filter(pixels[0].numpy(), (0, 2.0, 2.0), mode="mirror", truncate=4.0)
    np.testing.assert_allclose(blurred(pixels, [2.0])[0], expected, atol=2e-4)


def test_a_blur_neither_makes_nor_loses_light_of_an_even_crop():
    pixels = torch.full((3, 3, 32, 32), 0.7)
    torch.testing.assert_close(blurred(pixels, (0.1, 2.0, 30.0)), pixels, atol=1e-6, rtol=0)


def test_a_dot_becomes_a_gaussian():
    pixels = torch.zeros(1, 1, 33, 33)
    pixels[0, 0, 16, 16] = 1
    distance = np.hypot(*(np.indices((33, 33)) - 16))
    bell = np.exp(-0.5 * (distance / 1.7) ** 2)
    np.testing.assert_allclose(blurred(pixels, [1.7])[0, 0], bell / bell.sum(), atol=1e-6)


def test_no_sigma_no_change_and_a_tiny_one_no_harm():
    pixels = noise(3)
    seen = blurred(pixels, (0.0, 1e-30, 1.0))
    assert torch.equal(seen[0], pixels[0])
    assert torch.equal(seen[1], pixels[1])
    assert not torch.equal(seen[2], pixels[2])
