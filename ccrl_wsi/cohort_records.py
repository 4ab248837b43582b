"""What the statistics of a cohort come to: records for the report."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

from ccrl_wsi.arrays import FloatArray

LEVEL = 0.05
"""What is called significant, and one minus the intervals' coverage."""

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False, slots=True)
class Components:
    """Principal components of n compositions.

    Parameters
    ----------
    scores
        (n, 2) coordinates.
    loadings
        (k, 2) unit vectors: what each cluster adds to a coordinate.
    explained
        Fraction of the variance that each of the two carries.
    """

    scores: FloatArray
    loadings: FloatArray
    explained: tuple[float, float]


@dataclass(frozen=True, eq=False, slots=True)
class Tree:
    """A dendrogram of n leaves.

    Parameters
    ----------
    order
        Row numbers from the first leaf to the last.
    places, heights
        (n - 1, 4) each: the corners of every merge, as U-shaped lines. Leaf i of the order stands
        at place i; heights are distances.
    """

    order: tuple[int, ...]
    places: FloatArray
    heights: FloatArray


@dataclass(frozen=True, slots=True)
class ClusterDifference:
    """One cluster in two groups.

    Parameters
    ----------
    difference
        Mean centred log-ratio of the second group minus that of the first.
    interval
        Its 95 % bootstrap interval; None with too few patients.
    effect, effect_interval
        Hedges' g and its 95 % bootstrap interval; None where nothing varies.
    p, q
        Permutation p-value, and that adjusted for the number of clusters (false discovery rate).
    """

    cluster: int
    difference: float
    interval: Interval | None
    effect: float | None
    effect_interval: Interval | None
    p: float
    q: float


@dataclass(frozen=True, slots=True)
class GroupComparison:
    """Two groups, cluster by cluster.

    Parameters
    ----------
    n_arrangements, is_exact
        Ways of dealing the patients into the groups that were looked at, and whether they are all.
    overall_p
        Whether the compositions differ at all: the distance of the groups' means.
    """

    first: str
    second: str
    n_first: int
    n_second: int
    n_arrangements: int
    is_exact: bool
    overall_p: float
    clusters: tuple[ClusterDifference, ...]

    @property
    def smallest_p(self) -> float:
        """What p can reach at best with so few patients."""
        return smallest_p(self.n_first, self.n_second)

    @property
    def can_be_significant(self) -> bool:
        """Whether any difference, however large, could pass for more than chance."""
        return self.smallest_p <= LEVEL


def smallest_p(n_first: int, n_second: int) -> float:
    """The smallest two-sided p-value that permutations of so many patients can give.

    With equal groups, exchanging them gives the same distance, so that two arrangements count.
    """
    return (2 if n_first == n_second else 1) / comb(n_first + n_second, n_first)
