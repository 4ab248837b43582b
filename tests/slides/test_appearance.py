from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.slides.appearance import he_warning

GLASS = (244, 243, 245)


def half(colour, background=GLASS):
    rgb = np.full((60, 80, 3), background, np.uint8)
    rgb[:, 40:] = colour
    return rgb


@pytest.mark.parametrize(
    "colour", [(225, 160, 200), (120, 80, 160), (200, 120, 130), (95, 85, 140), GLASS]
)
def test_pink_purple_and_blank_glass_pass(colour):
    assert he_warning(half(colour)) is None


def test_a_black_border_passes():
    rgb = half((225, 160, 200))
    rgb[:, :20] = 0
    assert he_warning(rgb) is None


@pytest.mark.parametrize(
    ("rgb", "reason"),
    [
        (half((60, 10, 5), (2, 1, 1)), "black, as in fluorescence"),
        (half((120, 120, 121)), "grey"),
        (half((150, 105, 60)), "of what is coloured is pink or purple"),
        (half((90, 150, 110)), "only 0% of what is coloured"),
    ],
    ids=["fluorescence", "grey", "brown", "green"],
)
def test_what_is_not_stained_with_haematoxylin_and_eosin_is_told(rgb, reason):
    warning = he_warning(rgb)
    assert warning is not None
    assert reason in warning
