"""k-means for a cohort: fit on a balanced sample, assign every cell exactly."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.clusters.codebook import Codebook
from ccrl_wsi.config import ClusterSettings
from ccrl_wsi.errors import ClusterError
from ccrl_wsi.seeding import rng_for

CHUNK = 8192
"""Cells assigned at once; bounds memory, does not change the result."""


def sample_sizes(n_cells: Sequence[int], per_slide: int, in_all: int) -> list[int]:
    """How many cells each slide gives to the fit: all slides alike, small ones what they have."""
    share = max(1, min(per_slide, in_all // max(1, len(n_cells))))
    return [min(n, share) for n in n_cells]


def sample_rows(n_cells: int, n_wanted: int, seed: int, slide_id: str) -> IntArray:
    """Sorted rows of a slide's cells for the fit; they depend on the slide and the seed alone."""
    rng = rng_for(seed, "k-means sample", slide_id)
    rows: IntArray = np.sort(rng.choice(n_cells, size=n_wanted, replace=False))
    return rows


def fit_codebook(
    vectors: FloatArray,
    settings: ClusterSettings,
    *,
    seed: int,
    encoder: tuple[str, str],
    standardise: bool,
    record: dict[str, object],
) -> Codebook:
    """Fit k-means (Lloyd, k-means++ starts) and put its clusters into a stable order.

    Parameters
    ----------
    vectors
        (n, d) embeddings of the sample.
    encoder
        Name and fingerprint of what made them.
    standardise
        Scale each dimension to mean 0 and variance 1 over the sample first.

    Raises
    ------
    ClusterError
        If there are fewer different cells than clusters, or a value is not finite.
    """
    if not np.isfinite(vectors).all():
        raise ClusterError(
            "Some embeddings are not finite; the encoder is broken. Check its weights."
        )
    mean, std = _scaling(vectors, standardise)
    scaled = (vectors.astype(np.float64) - mean) / std
    if len(scaled) < settings.k:
        raise _too_few(len(scaled), settings.k)
    state = int(rng_for(seed, "k-means").integers(2**31))
    model = KMeans(
        settings.k, n_init=settings.n_init, max_iter=settings.max_iter, random_state=state
    )
    # Threads add up in the order they finish: the last bits would differ from run to run.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(scaled)
    n_different = len(np.unique(model.labels_))
    if n_different < settings.k:
        raise _too_few(n_different, settings.k)
    order, sizes = _stable_order(model.cluster_centers_, model.labels_)
    return Codebook(model.cluster_centers_[order], mean, std, *encoder, sizes, record)


def assign(vectors: FloatArray, codebook: Codebook) -> tuple[IntArray, FloatArray]:
    """The nearest centre of every cell, and the distance to it.

    Parameters
    ----------
    vectors
        (n, d) embeddings.

    Returns
    -------
    cluster, distance
        (n,) int16 numbers from 0, and (n,) float32 Euclidean distances in the standardised space.
        On a tie the lower number wins.
    """
    n = len(vectors)
    cluster, distance = np.zeros(n, np.int16), np.zeros(n, np.float32)
    centers = codebook.centers.astype(np.float64)
    for start in range(0, n, CHUNK):
        part = (vectors[start : start + CHUNK].astype(np.float64) - codebook.mean) / codebook.std
        # |x - c|^2 without |x|^2, which is the same for all centres.
        score = (centers**2).sum(axis=1) - 2 * part @ centers.T
        nearest = score.argmin(axis=1)
        cluster[start : start + CHUNK] = nearest
        distance[start : start + CHUNK] = np.linalg.norm(part - centers[nearest], axis=1)
    return cluster, distance


def _too_few(n_different: int, k: int) -> ClusterError:
    return ClusterError(
        f"{n_different} different cells cannot make {k} clusters. "
        f"Lower it with --set clusters.k={max(2, n_different)}, or give more tissue."
    )


def _scaling(vectors: FloatArray, standardise: bool) -> tuple[FloatArray, FloatArray]:
    d = vectors.shape[1]
    if not standardise:
        return np.zeros(d), np.ones(d)
    mean, std = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
    # A constant dimension tells nothing; leave it unscaled rather than divide by zero.
    return mean, np.where(std > 1e-12, std, 1.0)


def _stable_order(centers: FloatArray, labels: IntArray) -> tuple[IntArray, tuple[int, ...]]:
    """Largest cluster first; equal sizes by their centres."""
    sizes = np.bincount(labels, minlength=len(centers))
    keys = [*np.round(centers, 9).T[::-1], -sizes]
    order = np.lexsort(keys)
    return order, tuple(int(size) for size in sizes[order])
