"""Which clusters lie beside which, on drawings whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.clusters import neighbours
from ccrl_wsi.clusters.neighbours import neighbour_enrichment

GRID_UM = 10.0


def grid(side):
    y, x = np.mgrid[:side, :side]
    return np.column_stack([x.ravel(), y.ravel()]) * GRID_UM, x.ravel(), y.ravel()


def test_a_checkerboard_has_only_unlike_neighbours():
    xy, x, y = grid(20)
    found = neighbour_enrichment(
        [(xy, (x + y) % 2)], 2, n_neighbours=8, max_distance_um=1.2 * GRID_UM, seed=0
    )
    n_pairs = 2 * 20 * 19
    assert found.observed.tolist() == [[0, n_pairs], [n_pairs, 0]]
    assert found.z[0, 1] > 10
    assert found.z[0, 0] < -10
    assert found.p_value.max() == pytest.approx(2 / 501)
    assert (found.n_cells, found.n_cells_used) == (400, 400)


@pytest.mark.parametrize("n_neighbours", [8, None])
def test_two_halves_touch_along_one_line(n_neighbours):
    xy, x, _ = grid(20)
    found = neighbour_enrichment(
        [(xy, (x >= 10).astype(int))],
        2,
        n_neighbours=n_neighbours,
        max_distance_um=1.2 * GRID_UM,
        seed=0,
    )
    half = 2 * (20 * 9 + 10 * 19)
    assert found.observed.tolist() == [[half, 20], [20, half]]
    assert found.z[0, 1] < -10
    assert found.z[0, 0] > 5


def test_what_is_expected_is_the_mean_of_shuffles():
    rng = np.random.default_rng(0)
    slides = [(rng.uniform(0, 300, (n, 2)), rng.integers(0, 3, n)) for n in (60, 90)]
    found = neighbour_enrichment(slides, 3, n_permutations=3000, seed=1)
    sums = np.zeros((3, 3))
    for _ in range(300):
        shuffled = [(xy, rng.permutation(c)) for xy, c in slides]
        sums += neighbour_enrichment(shuffled, 3, n_permutations=2, seed=1).observed
    np.testing.assert_allclose(found.expected, sums / 300, rtol=0.03)
    np.testing.assert_allclose(found.expected.sum(), found.observed.sum())


@pytest.mark.parametrize("n_neighbours", [5, None])
def test_random_clusters_are_seldom_called_neighbours(n_neighbours):
    rng = np.random.default_rng(0)
    p_values = []
    for repeat in range(120):
        slide = rng.uniform(0, 300, (150, 2)), rng.integers(0, 2, 150)
        found = neighbour_enrichment(
            [slide], 2, n_neighbours=n_neighbours, n_permutations=99, seed=repeat
        )
        p_values.append(found.p_value[0, 1])
    assert 0.01 <= np.mean(np.array(p_values) <= 0.1) <= 0.2
    assert 0.35 < np.mean(p_values) < 0.75


def test_clusters_of_different_slides_are_not_mistaken_for_neighbours():
    # Each slide has its own cluster, so nothing can be learnt from neighbours.
    rng = np.random.default_rng(0)
    slides = [(rng.uniform(0, 200, (80, 2)), np.full(80, c)) for c in (0, 1)]
    found = neighbour_enrichment(slides, 2, seed=0)
    np.testing.assert_allclose(found.observed, found.expected)
    assert np.isnan(found.z).all()
    assert np.isnan(found.p_value).all()


def test_distant_cells_are_no_neighbours():
    xy = np.array([[0.0, 0], [10, 0], [0, 1000], [10, 1000]])
    for n_neighbours in (3, None):
        found = neighbour_enrichment(
            [(xy, np.array([0, 0, 1, 1]))], 2, n_neighbours=n_neighbours, seed=0
        )
        assert found.observed.tolist() == [[2, 0], [0, 2]]


@pytest.mark.parametrize("n_neighbours", [5, None])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 9])
def test_few_cells_on_one_line_or_in_one_place_are_counted(n, n_neighbours):
    for xy in (np.column_stack([np.arange(n) * 10.0, np.zeros(n)]), np.zeros((n, 2))):
        slides = [(xy, np.zeros(n, int)), (np.zeros((0, 2)), np.zeros(0, int))]
        found = neighbour_enrichment(slides, 2, n_neighbours=n_neighbours, seed=0)
        assert found.n_cells == n
        assert found.observed[0, 0] >= 2 * (n - 1) if n > 1 and xy.any() else True


def test_cells_without_a_cluster_do_not_count():
    xy = np.arange(12.0).reshape(6, 2)
    cluster = np.array([0, 1, -1, 0, -1, 1])
    a = neighbour_enrichment([(xy, cluster)], 2, seed=0)
    b = neighbour_enrichment([(xy[cluster >= 0], cluster[cluster >= 0])], 2, seed=0)
    np.testing.assert_array_equal(a.observed, b.observed)
    assert a.n_cells == 4


def test_no_slides_have_no_neighbours():
    found = neighbour_enrichment([], 3, seed=0)
    assert found.observed.sum() == 0
    assert np.isnan(found.z).all()


def test_large_slides_are_looked_at_in_windows_that_tell_the_same(monkeypatch):
    xy, x, _ = grid(120)
    slide = xy, (x // 6) % 2
    whole = neighbour_enrichment([slide], 2, n_permutations=50, seed=0)
    monkeypatch.setattr(neighbours, "MOST_CELLS", 4000)
    monkeypatch.setattr(neighbours, "WINDOW_CELLS", 1000)
    part = neighbour_enrichment([slide], 2, n_permutations=50, seed=0)
    assert part.n_cells == 14400
    assert 1000 <= part.n_cells_used <= 4000
    np.testing.assert_allclose(
        part.observed / part.expected, whole.observed / whole.expected, rtol=0.1
    )
    again = neighbour_enrichment([slide], 2, n_permutations=50, seed=0)
    np.testing.assert_array_equal(again.observed, part.observed)
