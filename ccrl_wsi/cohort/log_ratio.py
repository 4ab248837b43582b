"""Compositions as centred log-ratios, in which distances and means make sense.

Shares add up to one, so that one cluster's gain is the others' loss. The centred log-ratio
(Aitchison 1982, The Statistical Analysis of Compositional Data, section 4) frees them: the log of
each share over the geometric mean of all.
"""

from __future__ import annotations

import numpy as np

from ccrl_wsi.arrays import FloatArray, IntArray

PRIOR_COUNT = 0.5
"""Cells added to every cluster; see :func:`shares`."""

FEWEST_CELLS = 100
"""A row of fewer does not set the total of all: one tiny slide would wash out every other."""


def shares(counts: IntArray) -> FloatArray:
    """Shares (n, k) of ``counts`` (n, k) that are never zero.

    Rows are scaled down to one total first, that of the row with the fewest cells; then
    ``(count + 1/2) / (total + k/2)``: the posterior mean under Jeffreys' prior, one of the
    treatments of count zeros in Martin-Fernandez et al. 2015 (Statistical Modelling 15:134).
    Without the scaling half a cell would be less of a large row than of a small one, and rows of
    equal proportions would differ by how many cells they have. Rows of fewer than 100 cells are
    left as they are beside larger ones. A row without cells is even.
    """
    numbers = np.asarray(counts, np.float64)
    totals = numbers.sum(axis=1, keepdims=True)
    raised = numbers * np.minimum(1, _least(totals) / np.maximum(totals, 1)) + PRIOR_COUNT
    found: FloatArray = raised / raised.sum(axis=1, keepdims=True)
    return found


def centred_log_ratio(counts: IntArray) -> FloatArray:
    """``log(share) - mean over clusters of log(share)``: (n, k) of ``counts`` (n, k).

    Give all rows of a comparison at once: their totals are made equal.
    """
    logs = np.log(shares(counts))
    ratios: FloatArray = logs - logs.mean(axis=1, keepdims=True)
    return ratios


def _least(totals: FloatArray) -> float:
    """The smallest total that is not too small to speak for all."""
    large = totals[totals >= FEWEST_CELLS]
    return float(large.min() if len(large) else min(totals[totals > 0].tolist(), default=1))
