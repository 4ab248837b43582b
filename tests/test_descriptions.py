"""What is said of a cluster, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import silhouette_samples

from ccrl_wsi.clusters.codebook import Codebook
from ccrl_wsi.clusters.descriptions import describe_clusters, exemplar_rows, silhouettes

CLUSTER = np.array([1, 0, 1, -1, 1, 1], np.int16)
DISTANCE = np.array([4.0, 9.0, 1.0, np.nan, 3.0, 2.0], np.float32)


def codebook(centers):
    centers = np.asarray(centers, np.float64)
    d = centers.shape[1]
    return Codebook(centers, np.zeros(d), np.ones(d), "e", "f", (1,) * len(centers), {})


def test_a_description_counts_and_takes_quartiles():
    area = np.array([10.0, 7.0, 20.0, 99.0, 30.0, np.nan], np.float32)
    kind = np.array([0, 1, 1, 0, 1, -1], np.int16)
    one, two, three = describe_clusters(
        CLUSTER, DISTANCE, {"area_um2": area}, kind, ["stroma", "tumour"], 3
    )
    assert (one.number, one.n_cells, one.fraction) == (0, 1, 0.2)
    assert (two.n_cells, two.fraction) == (4, 0.8)
    assert two.medians["area_um2"] == (15.0, 20.0, 25.0)
    assert two.type_fractions == {"stroma": 0.25, "tumour": 0.5}
    assert two.distances == pytest.approx((1.15, 1.75, 2.5, 3.25, 3.85))
    assert (three.n_cells, three.fraction, three.type_fractions) == (0, 0.0, {})
    assert np.isnan(three.medians["area_um2"]).all()


def test_without_types_or_cells_nothing_is_said_of_them():
    none = np.zeros(0)
    [only] = describe_clusters(none.astype(np.int16), none, {"area_um2": none}, None, [], 1)
    assert (only.n_cells, only.fraction, only.type_fractions) == (0, 0.0, {})


def test_exemplars_are_the_nearest_and_others():
    found = exemplar_rows(CLUSTER, DISTANCE, 2, n_nearest=2, n_random=5, seed=0)
    assert found[0][0].tolist() == [1]
    assert found[0][1].tolist() == []
    assert found[1][0].tolist() == [2, 5]
    assert found[1][1].tolist() == [0, 4]


def test_equally_near_exemplars_come_by_row():
    [(nearest, _)] = exemplar_rows(np.zeros(50, np.int16), np.ones(50), 1, n_nearest=4, seed=0)
    assert nearest.tolist() == [0, 1, 2, 3]


@given(
    cluster=st.lists(st.integers(-1, 3), max_size=60), n=st.integers(0, 9), seed=st.integers(0, 5)
)
def test_no_exemplar_is_shown_twice_and_each_is_of_its_cluster(cluster, n, seed):
    cluster = np.array(cluster, np.int16)
    distance = np.random.default_rng(seed).random(len(cluster))
    for number, (nearest, drawn) in enumerate(
        exemplar_rows(cluster, distance, 4, n_nearest=n, n_random=n, seed=seed)
    ):
        rows = np.concatenate([nearest, drawn])
        size = int((cluster == number).sum())
        assert len(set(rows.tolist())) == len(rows) == min(size, 2 * n)
        assert (cluster[rows] == number).all()
        again = exemplar_rows(cluster, distance, 4, n_nearest=n, n_random=n, seed=seed)[number]
        np.testing.assert_array_equal(again[1], drawn)


def test_silhouettes_of_all_cells_are_scikit_learns():
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 3, 90).astype(np.int16)
    vectors = rng.normal(size=(90, 4)) + 2 * cluster[:, None]
    expected = silhouette_samples(vectors, cluster)
    found = silhouettes(vectors, cluster, codebook(np.zeros((3, 4))), seed=0)
    for number in range(3):
        assert found[number] == pytest.approx(expected[cluster == number].mean())


def test_a_sample_of_silhouettes_is_near_and_repeats():
    rng = np.random.default_rng(0)
    cluster = np.repeat([0, 1], [4000, 400]).astype(np.int16)
    vectors = rng.normal(size=(4400, 2)) + 6 * cluster[:, None]
    book = codebook(np.zeros((2, 2)))
    sampled = silhouettes(vectors, cluster, book, seed=0, n_most=300)
    np.testing.assert_array_equal(sampled, silhouettes(vectors, cluster, book, 0, 300))
    np.testing.assert_allclose(sampled, silhouettes(vectors, cluster, book, 1, 1600), atol=0.05)


@pytest.mark.parametrize("cluster", [[], [0, 0, 0], [-1, -1, 1], [0, 1]])
def test_silhouettes_that_are_undefined_are_missing(cluster):
    cluster = np.array(cluster, np.int16)
    found = silhouettes(np.eye(4)[: len(cluster)], cluster, codebook(np.zeros((2, 4))), seed=0)
    assert np.isnan(found).all()


def test_a_lone_cell_has_no_silhouette_but_its_neighbours_do():
    vectors = np.array([[0.0], [1.0], [9.0]])
    found = silhouettes(vectors, np.array([0, 0, 1]), codebook(np.zeros((2, 1))), seed=0)
    assert found[0] == pytest.approx((8 / 9 + 7 / 8) / 2)
    assert np.isnan(found[1])
