"""One k-means: Lloyd's steps from k-means++ starts, the same on any number of threads."""

from __future__ import annotations

import warnings

from ccrl_wsi.arrays import FloatArray, IntArray


def lloyd(
    points: FloatArray, k: int, *, n_init: int, max_iter: int, state: int
) -> tuple[FloatArray, IntArray]:
    """Centres (k, d) and the cluster of each of ``points`` (n, d), n >= k.

    With fewer than k different points some clusters stay empty.
    """
    # Only a fit needs them, and they load for seconds.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    model = KMeans(k, n_init=n_init, max_iter=max_iter, random_state=state)
    # Threads add up in the order they finish: the last bits would differ from run to run.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(points)
    return model.cluster_centers_, model.labels_


def nearest(points: FloatArray, centers: FloatArray) -> IntArray:
    """The nearest of ``centers`` (k, d) to each of ``points`` (n, d): (n,); the lower on a tie."""
    # |x - c|^2 without |x|^2, which is the same for all centres.
    score = (centers**2).sum(axis=1) - points @ (2 * centers.T)
    found: IntArray = score.argmin(axis=1)
    return found
