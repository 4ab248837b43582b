"""Scores of clusterings, on tables whose answers are known."""

from __future__ import annotations

from math import comb, lgamma, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_wsi.evaluation.clustering_scores import (
    cells_of_table,
    confusion_table,
    hungarian_accuracy,
    purity,
    score_clusters,
)
from ccrl_wsi.evaluation.paper_scores import TABLE_2, TABLE_3

TABLE = np.array([[5, 1, 0], [1, 4, 0], [0, 2, 7]])


def cells_of(table):
    """Cluster and label of every cell of a table."""
    pairs = [(c, y) for (c, y), n in np.ndenumerate(table) for _ in range(n)]
    cluster, label = np.array(pairs).T
    return cluster, label


def slow_ari(table):
    """Hubert and Arabie's formula, pair by pair."""
    pairs = sum(comb(int(n), 2) for n in table.ravel())
    rows = sum(comb(int(n), 2) for n in table.sum(axis=1))
    columns = sum(comb(int(n), 2) for n in table.sum(axis=0))
    expected = rows * columns / comb(int(table.sum()), 2)
    return (pairs - expected) / ((rows + columns) / 2 - expected)


def slow_ami(table):
    """Vinh et al.: mutual information over what chance gives, with the mean of the entropies."""
    n = int(table.sum())
    a, b = table.sum(axis=1), table.sum(axis=0)
    mi = sum(x / n * log(n * x / (a[i] * b[j])) for (i, j), x in np.ndenumerate(table) if x > 0)
    by_chance = 0.0
    for ai in map(int, a):
        for bj in map(int, b):
            for x in range(max(1, ai + bj - n), min(ai, bj) + 1):
                ways = [ai, bj, n - ai, n - bj]
                other = [n, x, ai - x, bj - x, n - ai - bj + x]
                weight = sum(lgamma(w + 1) for w in ways) - sum(lgamma(o + 1) for o in other)
                by_chance += x / n * log(n * x / (ai * bj)) * np.exp(weight)
    entropy = [-sum(m / n * log(m / n) for m in map(int, margin)) for margin in (a, b)]
    return (mi - by_chance) / (sum(entropy) / 2 - by_chance)


def test_a_table_done_by_hand():
    scores = score_clusters(*cells_of(TABLE))
    assert scores.purity == 16 / 20
    assert scores.hungarian_accuracy == 16 / 20
    assert scores.ari == pytest.approx(slow_ari(TABLE), abs=1e-12)
    assert scores.ami == pytest.approx(slow_ami(TABLE), abs=1e-9)


def test_the_table_counts_clusters_by_rows_and_classes_by_columns():
    cluster, label = np.array([0, 0, 1, 2, 2]), np.array([1, 1, 0, 1, 0])
    assert confusion_table(cluster, label).tolist() == [[0, 2], [1, 0], [1, 1]]
    wide = confusion_table(cluster, label, k=4, n_classes=3)
    assert wide.tolist() == [[0, 2, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_purity_lets_clusters_share_a_class_and_pairing_does_not():
    table = np.array([[6, 0], [3, 1]])
    assert purity(table) == 9 / 10
    assert hungarian_accuracy(table) == 7 / 10


def test_clusters_without_a_class_count_as_wrong():
    assert hungarian_accuracy(np.array([[3, 0], [0, 4], [5, 0]])) == 9 / 12


def test_names_of_clusters_do_not_matter_to_a_perfect_clustering():
    label = np.repeat([0, 1, 2], 7)
    scores = score_clusters(np.array([2, 0, 1])[label], label)
    assert (scores.ami, scores.ari) == (pytest.approx(1), pytest.approx(1))
    assert (scores.purity, scores.hungarian_accuracy) == (1, 1)


def test_one_cluster_for_all_is_worth_nothing_but_the_largest_class():
    label = np.repeat([0, 1], [30, 10])
    scores = score_clusters(np.zeros(40, int), label)
    assert (scores.ami, scores.ari) == (pytest.approx(0, abs=1e-12), pytest.approx(0))
    assert scores.purity == 0.75


def test_chance_is_worth_about_nothing():
    rng = np.random.default_rng(0)
    scores = score_clusters(rng.integers(0, 4, 20_000), rng.integers(0, 4, 20_000))
    assert abs(scores.ami) < 1e-3
    assert abs(scores.ari) < 1e-3
    assert scores.purity < 0.27


@pytest.mark.parametrize(
    ("cluster", "label"), [([], []), ([0], [0, 1]), ([0, 1], [0, -1]), ([-1, 0], [0, 1])]
)
def test_what_cannot_be_compared_is_refused(cluster, label):
    with pytest.raises(ValueError, match=r"compared|must be"):
        score_clusters(np.array(cluster, int), np.array(label, int))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=2, max_size=30))
def test_scores_of_any_cells_keep_their_order_and_ignore_the_order_of_cells(pairs):
    cluster, label = np.array(pairs).T
    scores = score_clusters(cluster, label)
    largest_class = np.bincount(label).max() / len(label)
    assert largest_class <= scores.purity <= 1
    assert scores.hungarian_accuracy <= scores.purity
    again = score_clusters(cluster[::-1], label[::-1])
    assert again.purity == scores.purity
    assert again.ari == pytest.approx(scores.ari)
    assert again.ami == pytest.approx(scores.ami)


def test_the_papers_own_method_is_its_best_row_by_ami():
    for rows in TABLE_2.values():
        assert max(rows, key=lambda name: rows[name].ami) == "ccrl"
    ccrl = TABLE_2["nucls"]["ccrl"]
    assert all(row.ami < ccrl.ami and row.ari < ccrl.ari for row in TABLE_3.values())
    consep = TABLE_2["consep"]["ccrl"]
    assert (consep.ami, consep.ari, consep.purity) == (24.2, 21.7, 51.8)


def test_the_table_alone_decides_the_scores():
    rng = np.random.default_rng(3)
    cluster, label = rng.integers(0, 5, 400), rng.integers(0, 3, 400)
    cells = cells_of_table(confusion_table(cluster, label))
    assert np.array_equal(confusion_table(*cells), confusion_table(cluster, label))
    again, scores = score_clusters(*cells), score_clusters(cluster, label)
    for name in ("ami", "ari", "purity", "hungarian_accuracy"):
        assert getattr(again, name) == pytest.approx(getattr(scores, name), abs=1e-12)
