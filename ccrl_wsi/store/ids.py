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
    keys = _keys(centroid_px, area_um2)
    repeat = count_repeats(centroid_px, area_um2) if repeats is None else repeats
    start = hashlib.sha1(NAMESPACE.bytes + content_key.encode(), usedforsecurity=False)
    found = []
    for (x, y, area), again in zip(keys.tolist(), repeat.tolist(), strict=True):
        digest = start.copy()
        digest.update(f"|{x}|{y}|{area}|{again}".encode())
        text = digest.hexdigest()
        variant = _VARIANT[int(text[16], 16) & 3]
        found.append(f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}")
    return found


def count_repeats(centroid_px: FloatArray, area_um2: FloatArray) -> IntArray:
    """For each of n cells, how many before it have the same centroid and area: (n,) int64."""
    frame = pd.DataFrame(_keys(centroid_px, area_um2))
    repeats: IntArray = frame.groupby([0, 1, 2], sort=False).cumcount().to_numpy(np.int64)
    return repeats


def _keys(centroid_px: FloatArray, area_um2: FloatArray) -> IntArray:
    # Hundredths as whole numbers: text of a float could differ in its last digit or say -0.00.
    columns = np.column_stack([centroid_px, np.asarray(area_um2, np.float64)])
    keys: IntArray = np.rint(columns * 100).astype(np.int64)
    return keys
