"""How a slide's cells are spread over the clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ccrl_wsi.arrays import IntArray


@dataclass(frozen=True, slots=True)
class Composition:
    """One slide's cells by cluster.

    Parameters
    ----------
    counts
        Cells in each cluster.
    tissue_mm2
        Area looked at.
    """

    slide_id: str
    patient: str | None
    group: str | None
    tissue_mm2: float
    counts: tuple[int, ...]

    @property
    def n_cells(self) -> int:
        """All cells of the slide."""
        return sum(self.counts)


def count_clusters(cluster: IntArray, k: int) -> tuple[int, ...]:
    """Cells in each of ``k`` clusters; ``cluster`` (n,) numbers from 0."""
    return tuple(int(n) for n in np.bincount(cluster, minlength=k))


def composition_rows(
    slides: Sequence[Composition], names: Sequence[str]
) -> tuple[list[str], list[list[object]]]:
    """Header and rows of the composition table: one slide a row.

    Counts, fractions (of the slide's cells) and densities (cells per mm2 of tissue).
    """
    header = ["slide_id", "patient", "group", "n_cells", "tissue_mm2", "cells_per_mm2"]
    for kind in ("n", "fraction", "per_mm2"):
        header += [f"{name}_{kind}" for name in names]
    rows: list[list[object]] = []
    for slide in slides:
        area, n = slide.tissue_mm2, slide.n_cells
        row: list[object] = [slide.slide_id, slide.patient or "", slide.group or "", n]
        row += [round(area, 6), _ratio(n, area)]
        row += list(slide.counts)
        row += [_ratio(count, n) for count in slide.counts]
        row += [_ratio(count, area) for count in slide.counts]
        rows.append(row)
    return header, rows


def composition_long(slides: Sequence[Composition], names: Sequence[str]) -> pd.DataFrame:
    """The same as a tidy table: one cluster of one slide a row, also those without cells.

    Returns
    -------
    table
        Columns slide_id, patient, group, cluster (text; patient and group may be missing), cells
        (int64), fraction of the slide's cells (missing for slides without cells), density_per_mm2
        (cells per mm2 of tissue; missing where that is 0).
    """
    n, k = len(slides), len(names)
    counts = np.array([slide.counts for slide in slides], np.int64).reshape(n, k)
    area = np.array([slide.tissue_mm2 for slide in slides]).reshape(n, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        fraction = counts / counts.sum(axis=1, keepdims=True)
        density = np.where(area > 0, counts / area, np.nan)

    def repeated(values: list[str | None]) -> pd.Series[str]:
        return pd.Series([v or None for v in values for _ in range(k)], dtype="string")

    return pd.DataFrame(
        {
            "slide_id": repeated([slide.slide_id for slide in slides]),
            "patient": repeated([slide.patient for slide in slides]),
            "group": repeated([slide.group for slide in slides]),
            "cluster": pd.Series(list(names) * n, dtype="string"),
            "cells": counts.reshape(-1),
            "fraction": fraction.reshape(-1),
            "density_per_mm2": density.reshape(-1),
        }
    )


def _ratio(part: float, whole: float) -> float | str:
    return round(part / whole, 6) if whole > 0 else ""
