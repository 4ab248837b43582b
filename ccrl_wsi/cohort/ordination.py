"""Which slides are alike: principal components and a tree, both of centred log-ratios."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import dendrogram, linkage, optimal_leaf_ordering
from scipy.spatial.distance import pdist

from ccrl_wsi.arrays import FloatArray
from ccrl_wsi.cohort_records import Components, Tree

MAX_ORDERED = 150
"""More leaves are left in the order of the merges: the best one takes too long."""


def principal_components(ratios: FloatArray) -> Components | None:
    """The first two components of ``ratios`` (n, k); None for fewer than 3 rows, or equal ones.

    The sign of a component is free; here its largest loading is positive.
    """
    if len(ratios) < 3:
        return None
    centred = ratios - ratios.mean(axis=0)
    left, size, right = np.linalg.svd(centred, full_matrices=False)
    total = float((size**2).sum())
    if total < 1e-18:
        return None
    left, size, right = left[:, :2], size[:2], right[:2]
    sign = np.sign(right[np.arange(2), np.abs(right).argmax(axis=1)])
    explained = size**2 / total
    return Components(
        left * size * sign, (right * sign[:, None]).T, (float(explained[0]), float(explained[1]))
    )


def tree_of(points: FloatArray) -> Tree:
    """Average linkage on Euclidean distances of the rows of ``points`` (n, d).

    Of centred log-ratios these are Aitchison's distances.
    """
    n = len(points)
    if n < 2:
        none = np.zeros((0, 4))
        return Tree(tuple(range(n)), none, none)
    distances = pdist(points)
    merges = linkage(distances, "average")
    if n <= MAX_ORDERED:
        merges = optimal_leaf_ordering(merges, distances)
    drawn = dendrogram(merges, no_plot=True)
    # scipy puts leaves at 5, 15, 25 ...
    places = (np.array(drawn["icoord"]) - 5) / 10
    return Tree(tuple(int(leaf) for leaf in drawn["leaves"]), places, np.array(drawn["dcoord"]))
