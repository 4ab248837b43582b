"""Clusters that are nearly one slide's: they may show its stain, scanner or patient."""

from __future__ import annotations

import numpy as np

from ccrl_wsi.arrays import BoolArray, IntArray

MOST_OF_ONE = 0.8
"""A cluster is nearly one slide's from this share on."""

LEAST_CELLS = 30
"""Of a slide with fewer, shares say nothing: it is not looked at."""


def nearly_of_one_slide(counts: IntArray) -> BoolArray:
    """Which clusters (k,) are nearly one slide's, from the cells ``counts`` (n slides, k).

    Slides are weighed alike: what counts is the share of a cluster's cells that its largest slide
    would have if all slides had equally many cells. So a slide is not blamed for being large.
    """
    cells = counts.sum(axis=1, keepdims=True)
    own = (cells >= LEAST_CELLS).ravel()
    if own.sum() < 2:
        return np.zeros(counts.shape[1], np.bool_)
    shares = counts[own] / cells[own]
    whole = shares.sum(axis=0)
    return np.asarray((whole > 0) & (shares.max(axis=0) >= MOST_OF_ONE * whole), np.bool_)


def follow_slides(counts: IntArray) -> bool:
    """Whether most clusters that have cells are nearly one slide's."""
    n_with_cells = int(np.count_nonzero(counts.sum(axis=0)))
    return 2 * int(nearly_of_one_slide(counts).sum()) > n_with_cells


def slides_sentence(counts: IntArray, *, is_chosen: bool, is_centred: bool) -> str:
    """A warning where clusters follow slides, and what to do; else empty.

    Parameters
    ----------
    is_chosen
        Whether the number of clusters was chosen by the data (``clusters.k=auto``).
    is_centred
        Whether slides were centred already.
    """
    if not follow_slides(counts):
        return ""
    n, k = int(nearly_of_one_slide(counts).sum()), int(np.count_nonzero(counts.sum(axis=0)))
    said = (
        f"{n} of {k} clusters are nearly one slide's ({MOST_OF_ONE:.0%} of their cells or more, "
        "slides weighed alike): they may show its stain, scanner, tissue or patient rather than a "
        "kind of nucleus."
    ).replace("%", " %")
    if is_chosen:
        said += " The number that clusters.k=auto chose may follow the slides too."
    centre = "" if is_centred else "clusters.centre_slides=true, "
    return f"{said} Try {centre}another encoder, or more slides."
