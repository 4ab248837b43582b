"""Exposure of channels against a slow twin and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.training.settings import ViewSettings
from ccrl_wsi.training.view_change import make_changes
from ccrl_wsi.training.view_exposure import DARKEST, exposing
from ccrl_wsi.training.view_parameters import MOST_CHANNELS, check_views, draw_views
from tests.drawn_views import drawn, no_change, noise


def exposed(pixels, **fields):
    whole = {name: np.ones((len(pixels), MOST_CHANNELS)) for name in ("gain", "gamma")}
    for name, values in fields.items():
        whole[name][:, : values.shape[1]] = values
    return make_changes(pixels, [exposing(no_change(len(pixels), **whole))])


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_against_a_slow_twin(channels):
    p, pixels = drawn(8, seed=1), noise(8, channels=channels, side=5)
    seen = make_changes(pixels, [exposing(p)])
    assert 0 < p.is_exposed.sum() < 8
    for row, channel, y, x in np.ndindex(8, channels, 5, 5):
        value = float(pixels[row, channel, y, x])
        twin = p.gain[row, channel] * max(value, DARKEST) ** p.gamma[row, channel]
        expected = min(twin, 1) if p.is_exposed[row] and value > 0 else value
        assert float(seen[row, channel, y, x]) == pytest.approx(expected, abs=2e-6)


def test_a_gain_of_one_channel_leaves_the_others():
    pixels = noise(4, channels=2) * 0.4
    seen = exposed(pixels, gain=np.tile((2.0, 1.0), (4, 1)))
    torch.testing.assert_close(
        seen[:, 0], torch.where(pixels[:, 0] > 0, 2 * pixels[:, 0].clamp_min(DARKEST), 0)
    )
    torch.testing.assert_close(
        seen[:, 1][pixels[:, 1] > DARKEST], pixels[:, 1][pixels[:, 1] > DARKEST]
    )


def test_black_stays_black_and_gain_undoes_gain():
    pixels = torch.full((3, 3, 4, 4), 0.3)
    pixels[0] = 0
    factors = np.random.default_rng(0).uniform(0.5, 2, (3, 3))
    seen = exposed(pixels, gain=factors, gamma=1 / factors)
    assert not seen[0].any()
    back = exposed(seen, gain=(1 / factors) ** factors, gamma=factors)
    torch.testing.assert_close(back[1:], pixels[1:])


def test_channels_are_drawn_apart_and_in_their_ranges():
    settings = ViewSettings(p_exposure=1, exposure_gain=0.5, exposure_gamma=0.2)
    p = draw_views(settings, 5000, np.random.default_rng(0), cropped=False)
    for values, spread in ((p.gain, 0.5), (p.gamma, 0.2)):
        logs = np.log(values)
        assert np.abs(logs).max() <= spread
        assert logs.std() == pytest.approx(spread / np.sqrt(3), rel=0.02)  # uniform
        correlation = np.corrcoef(logs.T) - np.eye(MOST_CHANNELS)
        assert np.abs(correlation).max() < 0.07


def test_more_channels_than_are_drawn_are_refused():
    views = {"p_grey": 0, "saturation": 0, "hue": 0}
    check_views(ViewSettings(**views), 17)
    check_views(ViewSettings(**views, p_exposure=1), 16)
    with pytest.raises(ConfigError, match=r"crops have 17\. Set views\.p_exposure=0\.$"):
        check_views(ViewSettings(**views, p_exposure=1), 17)
