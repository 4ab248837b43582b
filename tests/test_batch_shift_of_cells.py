"""The same drawn wells seen in two weeks: how much of each kind of shift normalisation takes out.

Means, deviations and edges of the channels are the features. A gain and an offset change them by an
affine map, of the kind that centring and CORAL undo; a blur and a gamma do not.
"""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ccrl_wsi.evaluation.typical_variation import centre_batches, normalise_typical_variation
from ccrl_wsi.synthetic_phenotypes import HEALTHY, MECHANISMS, Condition, draw_cell

N, N_CELLS = 60, 6
IS_CONTROL = np.arange(N) < N // 2
GAIN = np.array([1.5, 0.7, 1.2])


@pytest.fixture(scope="module")
def wells():
    """(60, 6, 51, 51, 3) cells; half of the wells are controls."""
    rng = np.random.default_rng(0)
    looks = [*MECHANISMS.values()]
    drawn = []
    for number in range(N):
        look = HEALTHY if IS_CONTROL[number] else looks[number % len(looks)]
        first, second, third = np.exp(rng.normal(0, 0.15, 3))
        condition = Condition((first, second, third))
        drawn.append([draw_cell(look, 0.9, condition, rng) for _ in range(N_CELLS)])
    return np.array(drawn)


def features(wells, gain=1.0, offset=0.0, blur_px=0.7, gamma=1.0):
    seen = gain * gaussian_filter(wells, (0, 0, blur_px, blur_px, 0)) ** gamma + offset
    edges = np.abs(np.diff(seen, axis=2))
    found = [seen.mean(axis=(1, 2, 3)), seen.std(axis=(1, 2, 3)), edges.mean(axis=(1, 2, 3))]
    return np.hstack(found)


def gaps(wells, **second_week):
    """Distance of a treated well to itself in the other week, over that between treated wells."""
    both = np.vstack([features(wells), features(wells, **second_week)])
    is_control, week = np.tile(IS_CONTROL, 2), ["w1"] * N + ["w2"] * N
    both = (both - both[is_control].mean(axis=0)) / both[is_control].std(axis=0)
    found = {
        "none": both,
        "centred": centre_batches(both, is_control, week),
        "TVN": normalise_typical_variation(both, is_control, week),
        "centred TVN": normalise_typical_variation(both, is_control, week, centre=True),
        "without ridge": normalise_typical_variation(both, is_control, week, 1e-3, centre=True),
    }

    def gap(values):
        first, second = values[:N][~IS_CONTROL], values[N:][~IS_CONTROL]
        return np.linalg.norm(first - second) / np.linalg.norm(first - first.mean(axis=0))

    return {name: gap(values) for name, values in found.items()}


def test_gain_and_offset_are_repaired_once_weeks_are_centred(wells):
    gap = gaps(wells, gain=GAIN, offset=0.1)
    assert gap["none"] > 1.5  # the week is further than the next treatment
    assert gap["TVN"] > 0.7 * gap["none"]  # CORAL alone does not see an offset
    assert gap["centred TVN"] < 0.2 * gap["none"]
    # What stays is a turn: a gain a channel stretches along features, not along principal axes.
    assert 0 < gap["without ridge"] < 0.15 * gap["none"]


@pytest.mark.parametrize("change", [{"blur_px": 1.2}, {"gamma": 1.3}])
def test_of_what_is_not_affine_a_part_stays(wells, change):
    """Treated cells lose more or less to a blur than controls do, which controls cannot tell."""
    gap = gaps(wells, **change)
    assert gap["centred"] < 0.6 * gap["none"]
    assert 0.1 * gap["none"] < gap["centred TVN"] < 0.7 * gap["none"]
    assert gap["TVN"] > gap["centred TVN"]
