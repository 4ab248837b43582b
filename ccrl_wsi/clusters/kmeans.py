"""k-means for a cohort: fit on a balanced sample, assign every cell exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.clusters.choose_k import choose_k
from ccrl_wsi.clusters.codebook import Codebook
from ccrl_wsi.clusters.lloyd import lloyd, nearest
from ccrl_wsi.config import ClusterSettings
from ccrl_wsi.errors import ClusterError
from ccrl_wsi.seeding import rng_for

CHUNK = 1024
"""Cells assigned at once: so few that they stay in the cache from one step to the next."""


def sample_sizes(
    n_cells: Sequence[int],
    per_slide: int,
    in_all: int,
    groups: Sequence[str | None] | None = None,
) -> list[int]:
    """How many cells each slide gives to the fit: all slides alike, small ones what they have.

    With ``groups``, one for each slide, all groups give alike: those with more slides take fewer
    cells of each. Slides without a group give as many as those of the largest group.
    """
    share = max(1, min(per_slide, in_all // max(1, len(n_cells))))
    members = Counter(group for group in groups or () if group)
    if groups is None or len(members) < 2:
        return [min(n, share) for n in n_cells]
    n_ungrouped = len(groups) - members.total()
    fewest, most = min(members.values()), max(members.values())
    # What `most` slides give together; slides without a group take part in what there is in all.
    of_group = min(per_slide * fewest, in_all * most // (len(members) * most + n_ungrouped))
    shares = [max(1, of_group // members.get(group or "", most)) for group in groups]
    return [min(n, share) for n, share in zip(n_cells, shares, strict=True)]


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
        (n, d) embeddings of the sample, less their slide's mean if slides are to be centred.
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
    scaled = vectors.astype(np.float64)
    scaled -= mean  # In place: the sample is what the fit's memory goes into.
    scaled /= std
    k, record = _number_of_clusters(scaled, settings, seed, record)
    if len(scaled) < k:
        raise _too_few(len(scaled), k)
    state = int(rng_for(seed, "k-means").integers(2**31))
    centers, labels = lloyd(
        scaled, k, n_init=settings.n_init, max_iter=settings.max_iter, state=state
    )
    n_different = len(np.unique(labels))
    if n_different < k:
        raise _too_few(n_different, k)
    order, sizes = _stable_order(centers, labels)
    return Codebook(centers[order], mean, std, *encoder, sizes, record, settings.centre_slides)


def _number_of_clusters(
    scaled: FloatArray, settings: ClusterSettings, seed: int, record: dict[str, object]
) -> tuple[int, dict[str, object]]:
    """The k that is given or chosen, and the record with what was compared."""
    if settings.k != "auto":
        return settings.k, record
    choice = choose_k(scaled, settings.auto, seed)
    return choice.k, {**record, "choice_of_k": choice.record()}


def assign(vectors: FloatArray, codebook: Codebook) -> tuple[IntArray, FloatArray]:
    """The nearest centre of every cell, and the distance to it.

    Parameters
    ----------
    vectors
        (n, d) embeddings, less their slide's mean where the codebook centres slides.

    Returns
    -------
    cluster, distance
        (n,) int16 numbers from 0, and (n,) float32 Euclidean distances in the standardised space.
        On a tie the lower number wins.
    """
    n = len(vectors)
    cluster, distance = np.zeros(n, np.int16), np.zeros(n, np.float32)
    centers = codebook.centers.astype(np.float64)
    is_scaled = bool(codebook.mean.any() or (codebook.std != 1).any())
    for start in range(0, n, CHUNK):
        part = vectors[start : start + CHUNK].astype(np.float64)
        if is_scaled:
            part -= codebook.mean
            part /= codebook.std
        own = nearest(part, centers)
        cluster[start : start + CHUNK] = own
        part -= centers[own]
        np.square(part, out=part)
        distance[start : start + CHUNK] = np.sqrt(part.sum(axis=1))
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
