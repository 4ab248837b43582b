"""The usual clean-up of measured profiles, in the order of pycytominer's recipes.

Standardise by the controls, then leave out what cannot be compared: features that say where a cell
lay or how it was numbered, that do not vary, that explode, or that repeat another (Caicedo et al.
2017, Nature Methods 14:849, on strategies for image-based profiling; pycytominer's ``normalize``
and ``feature_select``). Learned features do not need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from ccrl_wsi.arrays import BoolArray, FloatArray
from ccrl_wsi.errors import EvaluationError

Scaling = Literal["mad", "sd"]

MAD_OF_SD = 1.4826
"""Of a normal distribution: its standard deviation over its median absolute deviation."""
SMALLEST = 1e-9
"""Spread over the size of a feature's values below which it is rounding."""
ABOUT_THE_RECORD = (
    "Location_",
    "_Center_",
    "_Orientation",
    "_Children_",
    "_Parent_",
    "EulerNumber",
    "ObjectNumber",
    "Number_Object",
)
"""Parts of names of CellProfiler's features that tell of place, numbering or the pipeline."""


def standardise(
    features: FloatArray, is_control: BoolArray, group: Sequence[str], scaling: Scaling
) -> FloatArray:
    """``(x - middle) / spread`` (n, d), both of the controls of the row's ``group``.

    ``mad``: median and 1.4826 times the median absolute deviation; ``sd``: mean and standard
    deviation. A feature that does not vary among the controls of a group is NaN there.

    Raises
    ------
    EvaluationError
        If a group has fewer than two controls.
    """
    names = np.asarray(group)
    scaled = np.empty_like(features, dtype=np.float64)
    for name in sorted({*group}):
        mine = names == name
        controls = features[mine & is_control]
        if len(controls) < 2:
            raise EvaluationError(
                f"{name or 'All together'}: {len(controls)} control wells; features are "
                "standardised by two or more. Set clean_up.within=all, or control to the compound "
                "of the controls."
            )
        middle, spread = _middle_and_spread(controls, scaling)
        with np.errstate(invalid="ignore"):
            flat = ~(spread > SMALLEST * np.abs(controls).max(axis=0))
        scaled[mine] = (features[mine] - middle) / np.where(flat, np.nan, spread)
    return scaled


def is_usable(features: FloatArray) -> BoolArray:
    """(d,) which features are numbers in every row and not all the same."""
    finite = np.isfinite(features).all(axis=0)
    first = features[:1] if len(features) else np.zeros((1, features.shape[1]))
    varies: BoolArray = finite & (features != first).any(axis=0)
    return varies


def is_about_the_record(names: Sequence[str]) -> BoolArray:
    """(d,) which features tell of place, numbering or the pipeline instead of the phenotype."""
    return np.array([any(part in name for part in ABOUT_THE_RECORD) for name in names], bool)


def is_moderate(features: FloatArray, largest: float) -> BoolArray:
    """(d,) which features stay within ``largest`` spreads of the controls, in every row."""
    moderate: BoolArray = np.abs(features).max(axis=0, initial=0) <= largest
    return moderate


def is_no_repetition(features: FloatArray, largest_correlation: float) -> BoolArray:
    """(d,) which features to keep so that no two correlate more closely, up or down.

    Of those that do, the ones that repeat the most go first: features are looked at in falling
    order of their summed correlation, and one goes if any that is still there is too close.
    """
    d = features.shape[1]
    kept = np.ones(d, bool)
    if d < 2:
        return kept
    with threadpool_limits(1):
        correlation = np.abs(np.corrcoef(features, rowvar=False))
    np.fill_diagonal(correlation, 0)
    for feature in np.argsort(-correlation.sum(axis=0), kind="stable"):
        kept[feature] = not (correlation[feature, kept] > largest_correlation).any()
    return kept


def _middle_and_spread(controls: FloatArray, scaling: Scaling) -> tuple[FloatArray, FloatArray]:
    if scaling == "sd":
        return controls.mean(axis=0), controls.std(axis=0)
    middle = np.median(controls, axis=0)
    return middle, MAD_OF_SD * np.median(np.abs(controls - middle), axis=0)
