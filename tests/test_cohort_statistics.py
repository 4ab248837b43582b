"""Compositions as log-ratios, who is like whom, and whether groups differ: known answers."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats

from ccrl_wsi.cohort.group_differences import (
    adjust_together,
    arrangements,
    benjamini_hochberg,
    compare_groups,
    hedges_g,
)
from ccrl_wsi.cohort.log_ratio import centred_log_ratio, shares
from ccrl_wsi.cohort.ordination import principal_components, tree_of
from ccrl_wsi.cohort.patients import pool_patients
from ccrl_wsi.cohort_records import smallest_p

COUNTS = npst.arrays(
    np.int64, npst.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 9**6)
)


def rng():
    return np.random.default_rng(0)


def compare(ratios, in_second, n_permutations=10_000):
    return compare_groups(
        np.asarray(ratios, float),
        np.asarray(in_second, bool),
        ("a", "b"),
        n_permutations=n_permutations,
        n_bootstrap=100,
        rng=rng(),
    )


@given(COUNTS)
def test_shares_are_positive_and_add_up_to_one(counts):
    found = shares(counts)
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


@given(COUNTS)
def test_log_ratios_add_up_to_zero_and_keep_the_order_of_counts(counts):
    ratios = centred_log_ratio(counts)
    np.testing.assert_allclose(ratios.sum(axis=1), 0, atol=1e-9)
    for row, ratio in zip(counts, ratios, strict=True):
        order = np.argsort(row, kind="stable")
        assert (np.diff(ratio[order]) >= 0).all()


def test_a_log_ratio_by_hand():
    # With half a cell more each: 3, 1, 1/3 of 4.333; their geometric mean is that of 1.
    ratios = centred_log_ratio(np.array([[26, 8, 2]]) - 0.0)
    values = np.log([26.5, 8.5, 2.5])
    np.testing.assert_allclose(ratios[0], values - values.mean())


def test_a_zero_among_many_cells_says_more_than_one_among_few():
    few, many = centred_log_ratio(np.array([[0, 10], [0, 10_000]]))
    assert many[0] < few[0] < 0


def test_principal_components_are_those_of_the_covariance():
    ratios = np.random.default_rng(1).normal(size=(12, 4)) * [3, 1, 0.2, 0.1]
    found = principal_components(ratios)
    values, vectors = np.linalg.eigh(np.cov(ratios.T))
    np.testing.assert_allclose(found.explained, values[::-1][:2] / values.sum())
    np.testing.assert_allclose(np.abs(found.loadings), np.abs(vectors[:, ::-1][:, :2]), atol=1e-9)
    centred = ratios - ratios.mean(axis=0)
    np.testing.assert_allclose(found.scores, centred @ found.loadings, atol=1e-9)
    assert (found.loadings[np.abs(found.loadings).argmax(axis=0), [0, 1]] > 0).all()


@pytest.mark.parametrize("ratios", [np.zeros((2, 3)), np.ones((5, 3))])
def test_too_few_or_equal_slides_have_no_components(ratios):
    assert principal_components(ratios) is None


def test_two_components_are_drawn_even_where_one_says_all():
    found = principal_components(np.outer(np.arange(4.0), [1.0, -1.0]))
    assert found.scores.shape == (4, 2)
    assert found.explained == pytest.approx((1, 0))


def test_a_tree_puts_like_beside_like():
    points = np.array([[0.0], [10.0], [0.1], [10.3], [5.0]])
    tree = tree_of(points)
    assert sorted(tree.order) == [0, 1, 2, 3, 4]
    place = {leaf: i for i, leaf in enumerate(tree.order)}
    assert abs(place[0] - place[2]) == 1
    assert abs(place[1] - place[3]) == 1
    # Mean distances of: 0 and 0.1; 10 and 10.3; 5 and the first two; those three and the others.
    np.testing.assert_allclose(np.sort(tree.heights.max(axis=1)), [0.1, 0.3, 4.95, 50.7 / 6])
    assert tree.places.min() == 0
    assert tree.places.max() == 4


@pytest.mark.parametrize("n", [0, 1])
def test_a_tree_of_one_leaf_has_no_branches(n):
    assert tree_of(np.zeros((n, 3))).order == tuple(range(n))


def test_adjusted_p_values_are_scipys():
    p = np.random.default_rng(2).random(30) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p))


@given(npst.arrays(np.float64, st.integers(1, 20), elements=st.floats(0.001, 1)))
def test_adjusted_p_values_are_no_smaller_and_keep_the_order(p):
    q = benjamini_hochberg(p)
    assert (q >= p - 1e-12).all()
    assert (q <= 1).all()
    assert (np.diff(q[np.argsort(p, kind="stable")]) >= -1e-12).all()


def test_hedges_g_by_hand():
    # Means 2 and 5, both variances 1, 3 + 3 patients: d = 3, times 1 - 3 / 15.
    g = hedges_g(np.array([[1.0], [2.0], [3.0]]), np.array([[4.0], [5.0], [6.0]]))
    assert g[0] == pytest.approx(3 * 0.8)


def test_hedges_g_of_what_never_varies_is_unknown():
    assert np.isnan(hedges_g(np.zeros((3, 1)), np.ones((3, 1)))[0])


def test_p_values_are_exact_with_few_patients():
    ratios = np.random.default_rng(3).normal(size=(7, 3))
    in_second = np.array([0, 1, 0, 1, 1, 0, 0], bool)
    found = compare(ratios, in_second)
    assert found.is_exact
    assert found.n_arrangements == comb(7, 3)
    observed = ratios[in_second].mean(axis=0) - ratios[~in_second].mean(axis=0)
    reached = np.zeros(3)
    far = 0
    for chosen in combinations(range(7), 3):
        mask = np.isin(np.arange(7), chosen)
        drawn = ratios[mask].mean(axis=0) - ratios[~mask].mean(axis=0)
        reached += np.abs(drawn) >= np.abs(observed) - 1e-12
        far += np.linalg.norm(drawn) >= np.linalg.norm(observed) - 1e-12
    assert [c.p for c in found.clusters] == pytest.approx(reached / comb(7, 3))
    assert found.overall_p == pytest.approx(far / comb(7, 3))
    assert [c.difference for c in found.clusters] == pytest.approx(observed)


def test_the_clearest_difference_has_the_smallest_p():
    found = compare([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]], [0, 0, 0, 1, 1, 1])
    assert found.clusters[0].p == smallest_p(3, 3) == pytest.approx(2 / 20)
    assert not found.can_be_significant
    assert compare([[float(i)] for i in range(8)], [0] * 4 + [1] * 4).can_be_significant


def test_drawn_arrangements_never_give_zero():
    ratios = (
        np.concatenate([np.zeros(20), np.ones(20)])[:, None] + rng().normal(size=(40, 1)) * 0.01
    )
    found = compare(ratios, [0] * 20 + [1] * 20, n_permutations=500)
    assert not found.is_exact
    assert found.clusters[0].p == pytest.approx(1 / 501)


def test_drawn_arrangements_are_fair():
    dealt, is_exact = arrangements(6, 4, 100, rng())
    assert not is_exact
    assert (dealt.sum(axis=1) == 4).all()
    assert (np.abs(dealt.mean(axis=0) - 0.4) < 0.2).all()


def test_without_a_difference_p_values_are_even():
    draw = np.random.default_rng(4)
    p = [compare(draw.normal(size=(8, 1)), [0] * 4 + [1] * 4).clusters[0].p for _ in range(200)]
    assert 0.01 <= np.mean(np.array(p) <= 0.06) <= 0.11


def test_intervals_hold_the_difference_and_need_four_patients():
    draw = np.random.default_rng(5)
    ratios = np.concatenate([draw.normal(0, 1, (15, 2)), draw.normal([2, 0], 1, (15, 2))])
    first, second = compare(ratios, [0] * 15 + [1] * 15).clusters
    assert first.interval[0] < 2 < first.interval[1]
    assert first.interval[0] > 0
    assert first.effect_interval[0] < first.effect < first.effect_interval[1]
    assert second.interval[0] < 0 < second.interval[1]
    assert compare(ratios[[0, 1, 2, 15, 16, 17]], [0] * 3 + [1] * 3).clusters[0].interval is None


def test_one_patient_cannot_be_compared():
    assert compare(np.zeros((3, 2)), [0, 0, 1]) is None


def test_comparisons_are_adjusted_as_one_family():
    draw = np.random.default_rng(6)
    found = [compare(draw.normal(size=(9, 3)), [0] * 4 + [1] * 5) for _ in range(2)]
    together = adjust_together(found)
    p = np.array([c.p for one in found for c in one.clusters])
    assert [c.q for one in together for c in one.clusters] == pytest.approx(
        stats.false_discovery_control(p)
    )
    assert adjust_together([]) == []


def test_slides_of_a_patient_are_put_together():
    counts = np.array([[1, 2], [3, 4], [5, 6], [7, 8]])
    pooled = pool_patients(
        ["s1", "s2", "s3", "p"], ["p", None, "p", None], ["a", "b", "a", None], counts
    )
    assert pooled.names == ("p", "s2", "p")
    assert pooled.counts.tolist() == [[6, 8], [3, 4], [7, 8]]
    assert pooled.groups == ("a", "b", "")
    assert pooled.in_several == ()


def test_a_patient_of_two_groups_is_of_none():
    pooled = pool_patients(["s1", "s2"], ["p", "p"], ["a", "b"], np.ones((2, 2), int))
    assert pooled.groups == ("",)
    assert pooled.in_several == ("p",)


def test_how_many_cells_a_patient_has_is_no_difference():
    dealt = np.random.default_rng(3)
    proportions = [0.4, 0.3, 0.2, 0.1, 0.0]
    counts = [dealt.multinomial(n, proportions) for n in [2000] * 6 + [200_000] * 6]
    found = compare(centred_log_ratio(np.array(counts)), np.arange(12) >= 6)
    assert found.overall_p > 0.1
    assert min(c.q for c in found.clusters) > 0.1


def test_equal_proportions_have_equal_log_ratios_and_a_tiny_slide_washes_out_nothing():
    ratios = centred_log_ratio(np.array([[900, 100, 0], [9000, 1000, 0], [1, 0, 0], [0, 0, 0]]))
    np.testing.assert_allclose(ratios[0], ratios[1])
    np.testing.assert_allclose(ratios[3], 0)
    assert np.ptp(ratios[0]) > 4
