"""Slides of one patient taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ccrl_wsi.arrays import IntArray


@dataclass(frozen=True, eq=False, slots=True)
class Pooled:
    """Counts by patient.

    Parameters
    ----------
    names
        n patients; slides of unknown patients stand for themselves.
    counts
        (n, k) cells of all slides of the patient.
    groups
        His group; empty where none is known, or where his slides are of several.
    in_several
        Patients whose slides are of several groups.
    """

    names: tuple[str, ...]
    counts: IntArray
    groups: tuple[str, ...]
    in_several: tuple[str, ...]


def pool_patients(
    slide_ids: Sequence[str],
    patients: Sequence[str | None],
    groups: Sequence[str | None],
    counts: IntArray,
) -> Pooled:
    """Sum ``counts`` (n, k) of slides by patient; patients come as their first slide does."""
    rows: dict[tuple[bool, str], list[int]] = {}
    for row, (slide, patient) in enumerate(zip(slide_ids, patients, strict=True)):
        # A patient may have the name of another one's slide.
        key = (False, slide) if patient is None else (True, patient)
        rows.setdefault(key, []).append(row)
    found = [sorted({g for row in some if (g := groups[row])}) for some in rows.values()]
    names = tuple(name for _, name in rows)
    several = tuple(n for n, some in zip(names, found, strict=True) if len(some) > 1)
    k = counts.shape[1]
    sums = [counts[some].sum(axis=0) for some in rows.values()]
    return Pooled(
        names,
        np.array(sums, np.int64).reshape(-1, k),
        tuple(some[0] if len(some) == 1 else "" for some in found),
        several,
    )
