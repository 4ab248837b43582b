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


def shares(counts: IntArray) -> FloatArray:
    """Shares (n, k) of ``counts`` (n, k) that are never zero.

    ``(count + 1/2) / (total + k/2)``: the posterior mean under Jeffreys' prior, one of the
    treatments of count zeros in Martin-Fernandez et al. 2015 (Statistical Modelling 15:134). A
    cluster without a cell gets half a cell, so that a zero among few cells says less than one
    among many. A row without cells is even.
    """
    raised = np.asarray(counts, np.float64) + PRIOR_COUNT
    found: FloatArray = raised / raised.sum(axis=1, keepdims=True)
    return found


def centred_log_ratio(counts: IntArray) -> FloatArray:
    """``log(share) - mean over clusters of log(share)``: (n, k) of ``counts`` (n, k)."""
    logs = np.log(shares(counts))
    ratios: FloatArray = logs - logs.mean(axis=1, keepdims=True)
    return ratios
