"""From cells to wells to treatments: means or medians of the rows that belong together.

The published protocol (Ljosa et al. 2013, J. Biomol. Screen. 18:1321; Perakis et al. 2021) takes
the mean over the cells of a well and the median over the wells of a treatment, which is one
compound at one concentration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.profile_set import ABOUT, Profiles

Average = Literal["mean", "median"]

WELL = ("plate", "well")
TREATMENT = ("compound", "concentration")
_AVERAGES: dict[Average, Callable[..., FloatArray]] = {"mean": np.mean, "median": np.median}


def average_rows(values: FloatArray, group: IntArray, n_groups: int, how: Average) -> FloatArray:
    """The mean or median (n_groups, d) of the rows of ``values`` (n, d) with the same number.

    A group without rows is NaN. NaN in a row makes its group's feature NaN: it is not passed over.
    """
    averages = np.full((n_groups, values.shape[1]), np.nan)
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(n_groups + 1))
    for number, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        if end > start:
            averages[number] = _AVERAGES[how](values[order[start:end]], axis=0)
    return averages


def to_wells(profiles: Profiles, how: Average) -> Profiles:
    """One profile a plate and well, from cells or fields; wells in the order they first come."""
    return _together(profiles, WELL, how)


def to_treatments(profiles: Profiles, how: Average) -> Profiles:
    """One profile a compound and concentration, from wells.

    ``plate``, ``well`` and ``batch`` name all there are, sorted, with commas between.
    """
    return _together(profiles, TREATMENT, how)


def _together(profiles: Profiles, keys: Sequence[str], how: Average) -> Profiles:
    about = profiles.about
    numbers = about.groupby(list(keys), sort=False, dropna=False).ngroup().to_numpy()
    n_groups = int(numbers.max(initial=-1)) + 1
    features = average_rows(profiles.features, numbers, n_groups, how)
    rows = []
    for number in range(n_groups):
        members = about[numbers == number]
        rows.append({name: _said(members, name) for name in ABOUT})
    joined = pd.DataFrame(rows, columns=list(ABOUT))
    return Profiles(features, profiles.names, joined)


def _said(members: pd.DataFrame, column: str) -> object:
    """What the rows of a group say together."""
    if column == "concentration":
        return float(members[column].iloc[0])
    return ",".join(sorted({str(value) for value in members[column]}))
