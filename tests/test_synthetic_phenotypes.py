"""What the drawing promises: the same values in every cell, arranged by the mechanism."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ccrl_wsi.synthetic_phenotypes import HEALTHY, MECHANISMS, VALUES, Condition, draw_cell

CHANCE = 1 / len(MECHANISMS)


def cell(look, seed, strength=1.0):
    return draw_cell(look, strength, Condition(), np.random.default_rng(seed))


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_mechanism_changes_where_the_values_are_and_not_the_values(name):
    for seed in range(5):
        healthy, treated = cell(HEALTHY, seed), cell(MECHANISMS[name], seed)
        # The same seed gives the same outline, and so as many pixels.
        np.testing.assert_array_equal(healthy.any(axis=2), treated.any(axis=2))
        for channel, values in enumerate(VALUES):
            inside = np.sort(treated[treated.any(axis=2), channel])
            n = len(inside)
            light = values((np.arange(n) + 0.5) / n)
            # Up to brightness and haze, which are an affine map.
            assert np.corrcoef(inside, light)[0, 1] == pytest.approx(1, abs=1e-9)
        assert not np.allclose(healthy, treated)


def seen(blur_px):
    """Cells of equal conditions through the optics, and their mechanisms."""
    rng = np.random.default_rng(0)
    cells, mechanism = [], np.repeat(np.arange(len(MECHANISMS)), 80)
    looks = [*MECHANISMS.values()]
    for number in mechanism:
        light = draw_cell(looks[number], rng.uniform(0.5, 1), Condition(), rng)
        light = gaussian_filter(light, (blur_px, blur_px, 0))
        cells.append(light + 0.015 * rng.normal(size=light.shape))
    return np.stack(cells), mechanism


@pytest.mark.parametrize("blur_px", [0.0, 1.0])
def test_a_linear_probe_on_intensities_scores_near_chance(blur_px):
    """Means and deviations of channels, even with nothing else that varies from well to well."""
    cells, mechanism = seen(blur_px)
    statistics = np.hstack([cells.mean(axis=(1, 2)), cells.std(axis=(1, 2))])
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    right = cross_val_score(probe, statistics, mechanism, cv=5).mean()
    assert right < CHANCE + 0.1


def test_arrangement_tells_what_intensities_do_not():
    """Light along rings round the middle, and how uneven it is there, over the cell's own."""
    cells, mechanism = seen(1.0)
    y, x = np.mgrid[-25:26, -25:26]
    away = np.hypot(x, y)
    rings = np.stack([(away >= r) & (away < r + 2) for r in range(0, 20, 2)])
    profile = np.einsum("nyxc,ryx->nrc", cells, rings / rings.sum(axis=(1, 2), keepdims=True))
    square = np.einsum("nyxc,ryx->nrc", cells**2, rings / rings.sum(axis=(1, 2), keepdims=True))
    spread = np.sqrt(np.maximum(square - profile**2, 0))
    scale = profile.mean(axis=1, keepdims=True)
    places = np.hstack(
        [(profile / scale).reshape(len(cells), -1), (spread / scale).reshape(len(cells), -1)]
    )
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    assert cross_val_score(probe, places, mechanism, cv=5).mean() > CHANCE + 0.4


def test_strength_leads_from_healthy_to_the_mechanism():
    look = MECHANISMS["Actin stabilisers"]
    healthy, weak, full = (cell(look, 3, strength)[..., 2].ravel() for strength in (0, 0.5, 1))
    near = [np.corrcoef(weak, other)[0, 1] for other in (healthy, full)]
    assert min(near) > np.corrcoef(healthy, full)[0, 1]
