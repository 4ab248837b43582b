"""How well clusters that were found without labels agree with the classes people named.

The three scores of the CCRL paper (its Table 2): AMI as in Vinh et al., JMLR 11 (2010) 2837, with
the arithmetic mean of the entropies; ARI as in Hubert and Arabie, J. Classif. 2 (1985) 193; purity,
the share of cells that belong to the most frequent class of their cluster. AMI and ARI are 0 for
chance; purity is at least the share of the largest class, so it alone says little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccrl_wsi.arrays import IntArray


@dataclass(frozen=True, slots=True)
class ClusteringScores:
    """Agreement of one clustering with the classes; 1 is perfect.

    Parameters
    ----------
    hungarian_accuracy
        Share of cells in the right class when every cluster stands for one class at most, paired
        so that the share is greatest. An extra: the paper does not have it.
    """

    ami: float
    ari: float
    purity: float
    hungarian_accuracy: float


def score_clusters(cluster: IntArray, label: IntArray) -> ClusteringScores:
    """Compare ``cluster`` (n,) with ``label`` (n,), both numbered from 0, n > 0.

    Raises
    ------
    ValueError
        If there are no cells, the lengths differ, or a cell has no label.
    """
    # Every run asks this file whether there are labels, and few have any.
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    table = confusion_table(cluster, label)
    return ClusteringScores(
        ami=float(adjusted_mutual_info_score(label, cluster, average_method="arithmetic")),
        ari=float(adjusted_rand_score(label, cluster)),
        purity=purity(table),
        hungarian_accuracy=hungarian_accuracy(table),
    )


def cells_of_table(table: IntArray) -> tuple[IntArray, IntArray]:
    """Clusters and classes (n,) int16 of cells that make a :func:`confusion_table`."""
    clusters, classes = np.indices(table.shape, np.int16)
    n = table.ravel()
    return np.repeat(clusters.ravel(), n), np.repeat(classes.ravel(), n)


def confusion_table(
    cluster: IntArray, label: IntArray, k: int | None = None, n_classes: int | None = None
) -> IntArray:
    """Cells of each class in each cluster: (k, n_classes) int64.

    ``k`` and ``n_classes`` are those of the largest numbers unless given.

    Raises
    ------
    ValueError
        If there are no cells, the lengths differ, or a number is negative or too large.
    """
    if len(cluster) != len(label) or not len(label):
        raise ValueError(f"{len(cluster)} clusters and {len(label)} labels cannot be compared")
    k = int(cluster.max()) + 1 if k is None else k
    n_classes = int(label.max()) + 1 if n_classes is None else n_classes
    for name, values, end in (("clusters", cluster, k), ("labels", label, n_classes)):
        if values.min() < 0 or values.max() >= end:
            raise ValueError(f"{name} must be 0..{end - 1}: {values.min()}..{values.max()}")
    code = cluster.astype(np.int64) * n_classes + label
    return np.bincount(code, minlength=k * n_classes).reshape(k, n_classes)


def purity(table: IntArray) -> float:
    """Purity of a :func:`confusion_table`."""
    return float(table.max(axis=1).sum() / table.sum())


def hungarian_accuracy(table: IntArray) -> float:
    """Accuracy of a :func:`confusion_table` under the best pairing of clusters with classes.

    Where there are more clusters than classes, the cells of those left over count as wrong.
    """
    from scipy.optimize import linear_sum_assignment

    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())
