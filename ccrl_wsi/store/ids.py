"""Ids of cells: the same nucleus of the same pixels has the same id, whoever computes it."""

from __future__ import annotations

import hashlib
import uuid

import numpy as np
import pandas as pd

from ccrl_wsi.arrays import FloatArray, IntArray

NAMESPACE = uuid.UUID("6cde2b1c-9f0e-5b57-9d8a-7d1a0a4c51e3")
_VARIANT = "89ab"


def cell_uuids(
    content_key: str,
    centroid_px: FloatArray,
    area_um2: FloatArray,
    repeats: IntArray | None = None,
) -> list[str]:
    """UUIDv5 of n cells of one slide.

    Parameters
    ----------
    content_key
        What identifies the slide's pixels.
    centroid_px
        (n, 2) level-0 pixels; hundredths count.
    area_um2
        (n,); hundredths count.
    repeats
        (n,) how many equal cells came before; by default those of this call are counted.
    """
    if repeats is None:
        repeats = count_repeats(cell_keys(centroid_px, area_um2))
    rows = zip(_hundredths(centroid_px, area_um2).tolist(), repeats.tolist(), strict=True)
    start = hashlib.sha1(NAMESPACE.bytes + content_key.encode(), usedforsecurity=False)
    found = []
    for (x, y, area), again in rows:
        digest = start.copy()
        digest.update(f"|{x}|{y}|{area}|{again}".encode())
        text = digest.hexdigest()
        variant = _VARIANT[int(text[16], 16) & 3]
        found.append(f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}")
    return found


def count_repeats(keys: IntArray) -> IntArray:
    """For each of n cells, how many before it have the same key: (n,)."""
    if len(np.unique(keys)) == len(keys):
        return np.zeros(len(keys), np.int8)
    repeats: IntArray = pd.Series(keys).groupby(keys, sort=False).cumcount().to_numpy()
    return repeats


def cell_keys(centroid_px: FloatArray, area_um2: FloatArray) -> IntArray:
    """A number that equal cells share: (n,) uint64."""
    frame = pd.DataFrame(_hundredths(centroid_px, area_um2))
    keys: IntArray = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return keys


def _hundredths(centroid_px: FloatArray, area_um2: FloatArray) -> IntArray:
    # Whole numbers: the text of a float could differ in its last digit or say -0.00.
    columns = np.column_stack([centroid_px, np.asarray(area_um2, np.float64)])
    values: IntArray = np.rint(columns * 100).astype(np.int64)
    return values
