"""Sites that can be told, sites that cannot, and sites too few to ask."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from ccrl_wsi.clusters import batch_effect
from ccrl_wsi.clusters.batch_effect import predictability, ways_to_deal


def test_a_shift_between_scanners_is_told():
    rng = np.random.default_rng(0)
    site = ["a"] * 12 + ["b"] * 12
    values = rng.normal(size=(24, 5)) + 4 * np.repeat([[0], [1]], 12, axis=0)
    found = predictability(values, site, None, seed=0, n_permutations=49)
    assert found.balanced_accuracy > 0.9
    assert found.chance == 0.5
    assert found.p_value == pytest.approx(0.02)
    assert (found.n_slides, found.n_sites, found.note) == (24, 2, "")
    assert found == predictability(values, site, None, seed=0, n_permutations=49)


def test_slides_that_differ_by_chance_are_not_taken_for_scanners():
    # Every slide has its own shift; its cells alone would give the site away.
    rng = np.random.default_rng(1)
    p_values = []
    for repeat in range(8):
        shift = np.repeat(rng.normal(size=(16, 3)), 10, axis=0) * 5
        slides = np.repeat([f"s{i:02d}" for i in range(16)], 10)
        site = np.repeat(["a", "b"], 80).tolist()
        values = shift + rng.normal(size=(160, 3))
        found = predictability(values, site, slides.tolist(), seed=repeat, n_permutations=19)
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) <= 0.1) <= 0.4
    assert np.mean(p_values) > 0.25


def test_cells_of_a_shifted_scanner_are_told_on_slides_not_seen():
    rng = np.random.default_rng(2)
    slides = np.repeat([f"s{i}" for i in range(8)], 30)
    site = np.where(np.repeat(np.arange(8), 30) < 4, "x", "y")
    values = rng.normal(size=(240, 4)) + 3 * (site == "x")[:, None]
    found = predictability(values, site.tolist(), slides.tolist(), seed=0, n_permutations=19)
    assert found.balanced_accuracy > 0.95
    assert found.n_slides == 8


@pytest.mark.parametrize(
    ("site", "says"),
    [
        ([], "two slides each"),
        (["a"], "1 site with one slide is left out."),
        (["a", "a", "a"], "two slides each"),
        (["a", "b", "c"], "3 sites with one slide are left out."),
        ([None, "", "a", "a"], "2 slides without a site"),
    ],
)
def test_too_few_slides_or_sites_are_told(site, says):
    found = predictability(np.zeros((len(site), 2)), site, None, seed=0)
    assert np.isnan(found.balanced_accuracy)
    assert np.isnan(found.p_value)
    assert says in found.note


def test_unknown_and_single_sites_are_left_out_of_the_rest():
    rng = np.random.default_rng(0)
    site = ["a", "b"] * 6 + [None, "alone"]
    found = predictability(rng.normal(size=(14, 2)), site, None, seed=0, n_permutations=9)
    assert (found.n_slides, found.n_sites) == (12, 2)
    assert "1 slide without a site is left out." in found.note
    assert "1 site with one slide is left out." in found.note
    assert 0 <= found.balanced_accuracy <= 1


def test_two_slides_a_site_are_enough_to_ask_but_not_to_believe():
    values = np.array([[0.0], [0.1], [5.0], [5.1]])
    found = predictability(values, ["a", "a", "b", "b"], None, seed=0)
    assert found.balanced_accuracy == 1
    assert found.p_value == pytest.approx(1 / 3)
    assert not found.can_be_significant
    assert found.note == "Too few slides to tell: even the clearest difference has p = 0.33."


@pytest.mark.parametrize(
    ("sizes", "ways"), [((2, 2), 3), ((3, 3), 10), ((2, 5), 21), ((4, 4), 35), ((2, 2, 2), 15)]
)
def test_few_slides_are_dealt_in_all_ways(sizes, ways, monkeypatch):
    looked_at = []

    def score(x, label, group, seed):
        looked_at.append(tuple(label))
        return 1.0 if len(looked_at) == 1 else 0.5

    monkeypatch.setattr(batch_effect, "_score", score)
    site = np.repeat(["z", "b", "a"][: len(sizes)], sizes).tolist()
    found = predictability(np.zeros((sum(sizes), 1)), site, None, seed=0)
    assert ways_to_deal(sizes) == ways
    # A slow twin: all orders of the labels, those that differ in names only put together.
    numbers = np.repeat(range(len(sizes)), sizes).tolist()
    parted = {
        frozenset(frozenset(i for i, n in enumerate(order) if n == own) for own in set(numbers))
        for order in set(permutations(numbers))
    }
    told = [frozenset(frozenset(np.flatnonzero(np.equal(w, n))) for n in set(w)) for w in looked_at]
    assert len(told) == len(set(told)) == ways
    assert set(told) == parted
    assert found.p_value == found.smallest_p == pytest.approx(1 / ways)
    assert found.can_be_significant == (ways >= 20)
    assert ("Too few" in found.note) == (ways < 20)


def test_many_slides_are_dealt_at_random():
    found = predictability(np.arange(20.0)[:, None], ["a"] * 10 + ["b"] * 10, None, seed=0)
    assert (found.p_value, found.smallest_p) == (0.01, 0.01)
    assert found.can_be_significant


def test_names_of_sites_change_nothing():
    values = np.random.default_rng(5).normal(size=(9, 2))
    one = predictability(values, list("aabbcabca"), None, seed=0)
    other = predictability(values, list("zzccazcaz"), None, seed=0)
    assert one == other


def test_many_cells_are_drawn_alike_from_slides(monkeypatch):
    monkeypatch.setattr(batch_effect, "MOST_ROWS", 80)
    rng = np.random.default_rng(2)
    slides = np.repeat([f"s{i}" for i in range(8)], [900, 20, 50, 90, 40, 40, 900, 40])
    shifted = np.isin(slides, ["s0", "s1", "s2", "s3"])
    values = rng.normal(size=(len(slides), 2)) + 5 * shifted[:, None]
    site = np.where(shifted, "x", "y").tolist()
    found = predictability(values, site, slides.tolist(), seed=0, n_permutations=19)
    assert found.balanced_accuracy > 0.9


def test_sentences_call_groups_what_they_are():
    site = ["a", "a", "b", None]
    found = predictability(np.zeros((4, 2)), site, ["p", "q", "r", "s"], seed=0, unit="patient")
    assert "two patients each" in found.note
    assert "1 patient without a site is left out." in found.note
