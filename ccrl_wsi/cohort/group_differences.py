"""Do two groups of patients differ in their composition? Tests, sizes and intervals.

A patient counts once, however many slides and cells there are of him: cells of one patient are
not independent, and tests that take them for so find differences everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np

from ccrl_wsi.arrays import BoolArray, FloatArray
from ccrl_wsi.cohort_records import LEVEL, ClusterDifference, GroupComparison, Interval

MIN_PATIENTS = 2
"""In each group; with fewer nothing can be compared."""

MIN_FOR_INTERVALS = 4
"""Resampling fewer patients gives intervals that are much too narrow."""


def compare_groups(
    ratios: FloatArray,
    in_second: BoolArray,
    names: tuple[str, str],
    *,
    n_permutations: int,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> GroupComparison | None:
    """Compare the patients ``in_second`` (n,) with the others; None if a group has fewer than 2.

    Parameters
    ----------
    ratios
        (n, k) centred log-ratios, one row a patient.
    n_permutations
        If there are no more ways of dealing the patients, all are looked at; else so many.
    """
    first, second = ratios[~in_second], ratios[in_second]
    if min(len(first), len(second)) < MIN_PATIENTS:
        return None
    dealt, is_exact = arrangements(len(first), len(second), n_permutations, rng)
    p, overall = _permutation_p(ratios, in_second, dealt, is_exact)
    q = benjamini_hochberg(p)
    difference = second.mean(axis=0) - first.mean(axis=0)
    effect = hedges_g(first, second)
    intervals = _bootstrap(first, second, n_bootstrap, rng)
    clusters = tuple(
        ClusterDifference(
            j,
            float(difference[j]),
            intervals[0][j],
            _finite(effect[j]),
            intervals[1][j],
            float(p[j]),
            float(q[j]),
        )
        for j in range(ratios.shape[1])
    )
    sizes = (len(first), len(second))
    return GroupComparison(*names, *sizes, len(dealt), is_exact, overall, clusters)


def adjust_together(comparisons: Sequence[GroupComparison]) -> list[GroupComparison]:
    """The same with q-values over the clusters of all ``comparisons``: they are one family."""
    if not comparisons:
        return []
    q = benjamini_hochberg(np.array([c.p for one in comparisons for c in one.clusters])).tolist()
    adjusted = []
    for one in comparisons:
        own, q = q[: len(one.clusters)], q[len(one.clusters) :]
        clusters = (replace(c, q=value) for c, value in zip(one.clusters, own, strict=True))
        adjusted.append(replace(one, clusters=tuple(clusters)))
    return adjusted


def arrangements(
    n_first: int, n_second: int, at_most: int, rng: np.random.Generator
) -> tuple[BoolArray, bool]:
    """Ways (m, n) of saying who is in the second group, and whether these are all there are."""
    n = n_first + n_second
    if comb(n, n_second) <= at_most:
        chosen = np.array(list(combinations(range(n), n_second)))
        dealt = np.zeros((len(chosen), n), np.bool_)
        dealt[np.arange(len(chosen))[:, None], chosen] = True
        return dealt, True
    dealt = np.zeros((at_most, n), np.bool_)
    order = rng.permuted(np.broadcast_to(np.arange(n), (at_most, n)), axis=1)
    dealt[np.arange(at_most)[:, None], order[:, :n_second]] = True
    return dealt, False


def benjamini_hochberg(p: FloatArray) -> FloatArray:
    """Adjusted p-values (m,) that bound the false discovery rate.

    Benjamini and Hochberg 1995 (J. R. Statist. Soc. B 57:289): the i-th smallest of m times m / i,
    made monotonous from above.
    """
    m = len(p)
    order = np.argsort(-p, kind="stable")
    raised = p[order] * m / np.arange(m, 0, -1)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(np.minimum.accumulate(raised), 1.0)
    return adjusted


def hedges_g(first: FloatArray, second: FloatArray) -> FloatArray:
    """Standardised mean differences (..., k) of (..., n, k): second minus first.

    Hedges 1981 (J. Educ. Stat. 6:107): over the pooled standard deviation, times
    ``1 - 3 / (4 (n1 + n2) - 9)`` against the bias of small samples. NaN where nothing varies.
    """
    n1, n2 = first.shape[-2], second.shape[-2]
    squares = (n1 - 1) * first.var(axis=-2, ddof=1) + (n2 - 1) * second.var(axis=-2, ddof=1)
    pooled = np.sqrt(squares / (n1 + n2 - 2))
    difference = second.mean(axis=-2) - first.mean(axis=-2)
    with np.errstate(divide="ignore", invalid="ignore"):
        g = np.where(pooled > 1e-12, difference / pooled, np.nan)
    corrected: FloatArray = g * (1 - 3 / (4 * (n1 + n2) - 9))
    return corrected


def _permutation_p(
    ratios: FloatArray, in_second: BoolArray, dealt: BoolArray, is_exact: bool
) -> tuple[FloatArray, float]:
    """Two-sided p of each cluster (k,), and that of the distance of the means.

    Where arrangements are drawn, the observed one is added to them, or p could be zero (Phipson
    and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39).
    """
    observed = _mean_differences(ratios, in_second[None])
    drawn = _mean_differences(ratios, dealt)
    added = 0 if is_exact else 1
    n = len(dealt) + added
    # Sums in another order differ in their last bits: equal arrangements must count as equal.
    slack = 1e-9
    reached = (np.abs(drawn) >= np.abs(observed) - slack).sum(axis=0)
    far = np.linalg.norm(drawn, axis=1) >= np.linalg.norm(observed) - slack
    return (reached + added) / n, float((far.sum() + added) / n)


def _mean_differences(ratios: FloatArray, in_second: BoolArray) -> FloatArray:
    n2 = in_second.sum(axis=1, keepdims=True)
    sums = in_second.astype(np.float64) @ ratios
    rest = ratios.sum(axis=0) - sums
    found: FloatArray = sums / n2 - rest / (len(ratios) - n2)
    return found


def _bootstrap(
    first: FloatArray, second: FloatArray, n_bootstrap: int, rng: np.random.Generator
) -> tuple[list[Interval | None], list[Interval | None]]:
    """Intervals of the difference and of Hedges' g, patients drawn anew within each group."""
    k = first.shape[1]
    if min(len(first), len(second)) < MIN_FOR_INTERVALS:
        return [None] * k, [None] * k
    one = first[rng.integers(len(first), size=(n_bootstrap, len(first)))]
    two = second[rng.integers(len(second), size=(n_bootstrap, len(second)))]
    differences = two.mean(axis=1) - one.mean(axis=1)
    return _intervals(differences), _intervals(hedges_g(one, two))


def _intervals(drawn: FloatArray) -> list[Interval | None]:
    found: list[Interval | None] = []
    for column in drawn.T:
        sound = column[np.isfinite(column)]
        if len(sound) < len(column) / 2:
            found.append(None)
            continue
        low, high = np.quantile(sound, [LEVEL / 2, 1 - LEVEL / 2])
        found.append((float(low), float(high)))
    return found


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
