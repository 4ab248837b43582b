"""Which clusters lie beside which: counts of neighbouring cells against shuffled clusters.

The test of Schapiro et al., histoCAT, Nature Methods 14 (2017) 873, and of squidpy's
``nhood_enrichment``: cells stay where they are, clusters are shuffled among the cells of a slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.spatial import Delaunay, QhullError, cKDTree

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.seeding import rng_for

MOST_CELLS = 200_000
"""Cells of all slides together that are looked at; bounds time and memory."""

WINDOW_CELLS = 5000
"""Of slides with more than their share, windows of this many neighbouring cells are taken."""


@dataclass(frozen=True, eq=False, slots=True)
class NeighbourEnrichment:
    """Pairs of neighbouring cells by cluster.

    Parameters
    ----------
    observed
        (k, k) neighbours in cluster j of the cells of cluster i. Each pair counts from both its
        cells, so the table is symmetric and its sum is twice the number of pairs.
    expected
        (k, k) the same, on average over all ways to shuffle the clusters within each slide.
    z
        (k, k) observed minus expected, in standard deviations of the shuffles; NaN where these
        do not vary.
    p_value
        (k, k) two-sided; at least ``2 / (n_permutations + 1)``. Not corrected for the number of
        pairs. NaN where ``z`` is.
    n_cells, n_cells_used
        Cells that have a cluster, and those that were looked at.
    n_permutations
        How often clusters were shuffled.
    """

    observed: IntArray
    expected: FloatArray
    z: FloatArray
    p_value: FloatArray
    n_cells: int
    n_cells_used: int
    n_permutations: int


def neighbour_enrichment(
    slides: Sequence[tuple[FloatArray, IntArray]],
    k: int,
    *,
    n_neighbours: int | None = 5,
    max_distance_um: float = 50.0,
    n_permutations: int = 500,
    seed: int,
) -> NeighbourEnrichment:
    """Compare how often clusters are neighbours with what shuffled clusters give.

    Parameters
    ----------
    slides
        Of each slide, centroids (n, 2) in micrometres and clusters (n,) from 0, -1 for none.
    n_neighbours
        Two cells are neighbours if one is among this many nearest of the other; None: if they
        share an edge of the Delaunay triangulation.
    max_distance_um
        Cells further apart are no neighbours.
    """
    rng = rng_for(seed, "neighbours")
    clustered = [(xy[c >= 0], c[c >= 0].astype(np.int64)) for xy, c in slides]
    share = MOST_CELLS // max(1, len(clustered))
    looked_at = [_windows(xy, c, share, rng) for xy, c in clustered]
    graphs = [(_pairs(xy, n_neighbours, max_distance_um), c) for xy, c in looked_at]
    observed = sum((_count(pairs, c, k) for pairs, c in graphs), np.zeros((k, k), np.int64))
    expected = sum((_expected(len(pairs), c, k) for pairs, c in graphs), np.zeros((k, k)))
    shuffled = np.zeros((n_permutations, k, k), np.int64)
    for pairs, c in graphs:
        for table in shuffled:
            table += _count(pairs, rng.permutation(c), k)
    z, p_value = _compare(observed, expected, shuffled)
    return NeighbourEnrichment(
        observed,
        expected,
        z,
        p_value,
        n_cells=sum(len(c) for _, c in clustered),
        n_cells_used=sum(len(c) for _, c in looked_at),
        n_permutations=n_permutations,
    )


def _windows(
    xy: FloatArray, cluster: IntArray, n_most: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """All cells, or windows of neighbouring ones: single cells would have lost their neighbours."""
    if len(cluster) <= n_most:
        return xy, cluster
    size = max(2, min(WINDOW_CELLS, n_most))
    n_windows = max(1, n_most // size)
    centres = rng.choice(len(xy), size=n_windows, replace=False)
    _, rows = cKDTree(xy).query(xy[centres], k=size)
    rows = np.unique(rows)
    return xy[rows], cluster[rows]


def _pairs(xy: FloatArray, n_neighbours: int | None, max_distance_um: float) -> IntArray:
    """Neighbouring cells, each pair once: (m, 2) rows, the lower first."""
    if len(xy) < 2:
        return np.zeros((0, 2), np.int64)
    pairs = _delaunay(xy) if n_neighbours is None else _nearest(xy, n_neighbours)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    length = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
    kept: IntArray = pairs[length <= max_distance_um]
    return kept


def _nearest(xy: FloatArray, n_neighbours: int) -> IntArray:
    n = min(n_neighbours + 1, len(xy))
    _, rows = cKDTree(xy).query(xy, k=n)
    own = np.repeat(np.arange(len(xy)), n)
    pairs = np.column_stack([own, rows.reshape(-1)])
    # Of cells in one place, a cell itself may not be the first.
    different: IntArray = pairs[pairs[:, 0] != pairs[:, 1]]
    return different


def _delaunay(xy: FloatArray) -> IntArray:
    if len(xy) < 4:
        return np.array(list(combinations(range(len(xy)), 2)), np.int64)
    try:
        simplices = Delaunay(xy).simplices
    except QhullError:  # All on one line: a shake too small to see makes them a plane.
        simplices = Delaunay(xy, qhull_options="QJ").simplices
    return np.concatenate([simplices[:, [0, 1]], simplices[:, [1, 2]], simplices[:, [0, 2]]])


def _count(pairs: IntArray, cluster: IntArray, k: int) -> IntArray:
    code = cluster[pairs[:, 0]] * k + cluster[pairs[:, 1]]
    table = np.bincount(code, minlength=k * k).reshape(k, k)
    both: IntArray = table + table.T
    return both


def _expected(n_pairs: int, cluster: IntArray, k: int) -> FloatArray:
    """The mean of :func:`_count` over all shuffles: two places get any two cells alike often."""
    n = len(cluster)
    if n < 2:
        return np.zeros((k, k))
    sizes = np.bincount(cluster, minlength=k).astype(np.float64)
    mean: FloatArray = (np.outer(sizes, sizes) - np.diag(sizes)) * 2 * n_pairs / (n * (n - 1))
    return mean


def _compare(
    observed: IntArray, expected: FloatArray, shuffled: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Tell z and p; Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010): never 0."""
    n = len(shuffled)
    spread = shuffled.std(axis=0, ddof=1) if n > 1 else np.zeros(observed.shape)
    is_defined = spread > 0
    z = np.full(observed.shape, np.nan)
    z[is_defined] = (observed - expected)[is_defined] / spread[is_defined]
    n_extreme = np.minimum((shuffled >= observed).sum(axis=0), (shuffled <= observed).sum(axis=0))
    p_value = np.where(is_defined, np.minimum(1.0, 2 * (1 + n_extreme) / (n + 1)), np.nan)
    return z, p_value
