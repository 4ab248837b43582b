"""What a cluster is like: its size, its cells' measurements, and which cells show it best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.clusters.codebook import Codebook
from ccrl_wsi.seeding import rng_for

DISTANCE_PERCENTS = (5, 25, 50, 75, 95)
"""Which quantiles of the distance to the centre are told."""


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """One cluster in numbers.

    Parameters
    ----------
    number
        Of the cluster, from 0.
    n_cells, fraction
        Its cells, and their share of all cells that have a cluster.
    medians
        Measurement to its quartiles (25 %, median, 75 %) over the cells that have a value;
        NaN where none has.
    type_fractions
        Nucleus type to the share of the cluster's cells; empty where there are no types.
    distances
        Distance to the centre at ``DISTANCE_PERCENTS`` of the cells, in the codebook's space.
    """

    number: int
    n_cells: int
    fraction: float
    medians: dict[str, tuple[float, float, float]]
    type_fractions: dict[str, float]
    distances: tuple[float, ...]


def describe_clusters(
    cluster: IntArray,
    distance: FloatArray,
    measurements: Mapping[str, FloatArray],
    nucleus_type: IntArray | None,
    type_names: Sequence[str],
    k: int,
) -> list[ClusterDescription]:
    """Describe each of ``k`` clusters.

    Parameters
    ----------
    cluster, distance
        (n,) numbers from 0, -1 for none; and (n,) distances to the centre.
    measurements
        Name to (n,) values; values that are not finite do not count.
    nucleus_type
        (n,) index into ``type_names``, -1 for none; None where the segmenter has no types.
    """
    rows = rows_of_clusters(cluster, k)
    n_clustered = sum(map(len, rows))
    return [
        ClusterDescription(
            number=number,
            n_cells=len(own),
            fraction=len(own) / n_clustered if n_clustered else 0.0,
            medians={name: _quartiles(values[own]) for name, values in measurements.items()},
            type_fractions=_shares(nucleus_type, own, type_names),
            distances=_quantiles(distance[own], DISTANCE_PERCENTS),
        )
        for number, own in enumerate(rows)
    ]


def exemplar_rows(
    cluster: IntArray,
    distance: FloatArray,
    k: int,
    *,
    n_nearest: int = 12,
    n_random: int = 12,
    seed: int,
) -> list[tuple[IntArray, IntArray]]:
    """Cells that show each of ``k`` clusters: rows of the nearest ones, and of some at random.

    The random ones are drawn from the cluster's other cells, so no cell is in both; a small
    cluster has fewer of them. The nearest come in order of distance (ties: of rows), the random
    ones in order of rows.
    """
    found = []
    for number, own in enumerate(rows_of_clusters(cluster, k)):
        order = own[np.lexsort((own, distance[own]))]
        nearest, others = order[:n_nearest], np.sort(order[n_nearest:])
        rng = rng_for(seed, "exemplars", str(number))
        drawn = rng.choice(len(others), size=min(n_random, len(others)), replace=False)
        found.append((nearest, others[np.sort(drawn)]))
    return found


def silhouettes(
    vectors: FloatArray, cluster: IntArray, codebook: Codebook, seed: int, n_most: int = 2000
) -> FloatArray:
    """Mean silhouette of the cells of each cluster (Rousseeuw, J. Comput. Appl. Math. 20, 1987).

    Parameters
    ----------
    vectors
        (n, d) embeddings, as the codebook compares them: where it centres slides, each slide's
        mean is subtracted already.
    cluster
        (n,) numbers from 0, -1 for none.
    n_most
        Cells that are compared with each other, clusters alike; small clusters give all they have.

    Returns
    -------
    silhouette
        (k,) in -1..1; NaN for clusters with fewer than two cells, and where there is only one
        cluster.
    """
    rng = rng_for(seed, "silhouettes")
    share = max(2, n_most // codebook.k)
    drawn = [
        np.sort(rng.choice(own, size=min(share, len(own)), replace=False))
        for own in rows_of_clusters(cluster, codebook.k)
    ]
    rows = np.concatenate(drawn)
    scaled = (vectors[rows].astype(np.float64) - codebook.mean) / codebook.std
    return silhouette_by_cluster(scaled, cluster[rows], codebook.k)


def silhouette_by_cluster(scaled: FloatArray, cluster: IntArray, k: int) -> FloatArray:
    """Mean silhouette (k,) of points ``scaled`` (n, d); NaN where it is undefined."""
    counts = np.bincount(cluster, minlength=k)
    means = np.full(k, np.nan)
    if np.count_nonzero(counts) < 2 or len(cluster) <= np.count_nonzero(counts):
        return means
    from sklearn.metrics import silhouette_samples

    with threadpool_limits(1):
        values = silhouette_samples(scaled, cluster)
    is_defined = counts >= 2
    sums = np.bincount(cluster, weights=values, minlength=k)
    means[is_defined] = sums[is_defined] / counts[is_defined]
    return means


def rows_of_clusters(cluster: IntArray, k: int) -> list[IntArray]:
    """Ascending rows of the cells of each of ``k`` clusters."""
    order = np.argsort(cluster, kind="stable")
    edges = np.searchsorted(cluster[order], np.arange(k + 1))
    return [order[first:last] for first, last in zip(edges[:-1], edges[1:], strict=True)]


def _quartiles(values: FloatArray) -> tuple[float, float, float]:
    low, middle, high = _quantiles(values, (25, 50, 75))
    return low, middle, high


def _quantiles(values: FloatArray, percents: Sequence[int]) -> tuple[float, ...]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return (float("nan"),) * len(percents)
    return tuple(np.percentile(finite.astype(np.float64), percents).tolist())


def _shares(
    nucleus_type: IntArray | None, rows: IntArray, type_names: Sequence[str]
) -> dict[str, float]:
    if nucleus_type is None or not len(rows):
        return {}
    own = nucleus_type[rows]
    counts = np.bincount(own[own >= 0], minlength=len(type_names))
    return {name: int(n) / len(rows) for name, n in zip(type_names, counts, strict=True)}
