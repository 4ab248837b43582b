"""How many clusters: as many as come out alike from other cells, and lie apart.

For each k, the sample is split at random into two halves to fit on and a third part to look at. Two
fits that follow what is there put the third part into the same clusters: their agreement is the
stability of k (Lange et al., Neural Computation 16 (2004) 1299; Ben-Hur et al., PSB 2002), measured
by the adjusted Rand index. Among stable numbers of clusters the mean silhouette tells how well
clusters lie apart (Rousseeuw, J. Comput. Appl. Math. 20 (1987) 53), and of those that are as good
as the best but for the spread of its resamplings the smallest is taken (Breiman et al., 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.cluster_settings import AutoKSettings
from ccrl_wsi.clusters.descriptions import silhouette_by_cluster
from ccrl_wsi.clusters.lloyd import lloyd, nearest
from ccrl_wsi.errors import ClusterError
from ccrl_wsi.seeding import rng_for

N_STARTS = 3
"""Starts of each k-means; more only steady what the resampling averages out."""

MAX_STEPS = 100
SILHOUETTE_CELLS = 1000
"""Cells whose silhouettes are averaged in each resampling."""


@dataclass(frozen=True, slots=True)
class KCandidate:
    """What resampling says of one number of clusters: means, and their spread.

    Parameters
    ----------
    stability
        Adjusted Rand index of two fits on the third part: 1 the same, 0 as by chance.
    silhouette
        Mean silhouette of the third part, -1..1.
    stability_error, silhouette_error
        Spread over resamplings: standard deviation over the root of their number. Resamplings
        share cells, so it is less than the standard error over other cells would be.
    """

    k: int
    stability: float
    stability_error: float
    silhouette: float
    silhouette_error: float


@dataclass(frozen=True, slots=True)
class ChoiceOfK:
    """The numbers of clusters that were compared, and which was taken.

    Parameters
    ----------
    is_stable
        Whether ``k`` reaches the stability that was asked for; if not, none did.
    """

    k: int
    is_stable: bool
    candidates: tuple[KCandidate, ...]

    def record(self) -> dict[str, Any]:
        """As the codebook remembers it: plain JSON."""
        return asdict(self)


def choose_k(points: FloatArray, settings: AutoKSettings, seed: int) -> ChoiceOfK:
    """Compare the numbers of clusters that ``settings`` allow on ``points`` (n, d), scaled.

    Raises
    ------
    ClusterError
        If there are too few different cells to compare any.
    """
    rng = rng_for(seed, "number of clusters")
    rows = rng.choice(len(points), size=min(settings.cells, len(points)), replace=False)
    points = points[np.sort(rows)]
    thirds = [rng.permutation(len(points)) for _ in range(settings.resamples)]
    most = _most_clusters(points)
    if most < settings.k_min:
        raise ClusterError(
            f"{len(points)} cells are too few to choose the number of clusters. Give it with "
            "--set clusters.k=2, or give more tissue."
        )
    wanted = range(settings.k_min, min(settings.k_max, most) + 1)
    with threadpool_limits(1):  # Sums of several threads differ in their last bits.
        candidates = tuple(_candidate(points, k, thirds, seed) for k in wanted)
    return _choose(candidates, settings.min_stability)


def _most_clusters(points: FloatArray) -> int:
    """Each third must show a cluster more than once, if only just; equal cells count once."""
    return len(np.unique(points, axis=0)) // 6


def _candidate(points: FloatArray, k: int, thirds: Sequence[IntArray], seed: int) -> KCandidate:
    from sklearn.metrics import adjusted_rand_score

    stability, silhouette = [], []
    for number, order in enumerate(thirds):
        first, second, third = np.array_split(order, 3)
        state = int(rng_for(seed, "number of clusters", str(k), str(number)).integers(2**31))
        looked_at = points[third]
        a, b = (nearest(looked_at, _centers(points[half], k, state)) for half in (first, second))
        stability.append(float(adjusted_rand_score(a, b)))
        silhouette.append(_silhouette(looked_at[:SILHOUETTE_CELLS], a[:SILHOUETTE_CELLS], k))
    return KCandidate(k, *_mean_and_error(stability), *_mean_and_error(silhouette))


def _centers(points: FloatArray, k: int, state: int) -> FloatArray:
    return lloyd(points, k, n_init=N_STARTS, max_iter=MAX_STEPS, state=state)[0]


def _silhouette(points: FloatArray, cluster: IntArray, k: int) -> float:
    """Mean over cells; -1 where all are in one cluster, which says nothing for this k."""
    means = silhouette_by_cluster(points, cluster, k)
    counts = np.bincount(cluster, minlength=k)
    # A cluster of one cell has silhouette 0 by definition.
    return float(np.nansum(means * counts) / len(cluster)) if np.isfinite(means).any() else -1.0


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    n = len(values)
    error = float(np.std(values, ddof=1)) / n**0.5 if n > 1 else 0.0
    return float(np.mean(values)), error


def _choose(candidates: tuple[KCandidate, ...], min_stability: float) -> ChoiceOfK:
    stable = [c for c in candidates if c.stability >= min_stability]
    if stable:
        best = max(stable, key=lambda c: c.silhouette)
        least = best.silhouette - best.silhouette_error
        chosen = next(c for c in stable if c.silhouette >= least)
    else:
        best = max(candidates, key=lambda c: c.stability)
        least = best.stability - best.stability_error
        chosen = next(c for c in candidates if c.stability >= least)
    return ChoiceOfK(chosen.k, bool(stable), candidates)
