"""Ids of cells: the same nucleus of the same pixels has the same id, whoever computes it."""

from __future__ import annotations

import hashlib
import uuid

import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray, IntArray

NAMESPACE = uuid.UUID("6cde2b1c-9f0e-5b57-9d8a-7d1a0a4c51e3")
_SHA1_BYTES = 20
_IS_DIGIT = np.array([character != "-" for character in str(NAMESPACE)])


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
    x, y, area = _hundredths(centroid_px, area_um2).T.tolist()
    start = hashlib.sha1(NAMESPACE.bytes + content_key.encode(), usedforsecurity=False)
    digests = []
    for row in zip(x, y, area, repeats.tolist(), strict=True):
        digest = start.copy()
        digest.update(b"|%d|%d|%d|%d" % row)
        digests.append(digest.digest())
    return _as_text(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _SHA1_BYTES)[:, :16])


def _as_text(raw: ByteArray) -> list[str]:
    """UUIDs of version 5 in their usual form, from the first 16 bytes (n, 16) of their hashes."""
    marked = raw.copy()
    marked[:, 6] = raw[:, 6] & 0x0F | 0x50
    marked[:, 8] = raw[:, 8] & 0x3F | 0x80
    digits = np.frombuffer(marked.tobytes().hex().encode(), np.uint8).reshape(-1, 32)
    text = np.full((len(raw), 36), ord("-"), np.uint8)
    text[:, _IS_DIGIT] = digits
    lines: list[str] = text.view("S36").ravel().astype("U36").tolist()
    return lines


def count_repeats(keys: IntArray) -> IntArray:
    """For each of n cells, how many before it have the same key: (n,)."""
    if len(np.unique(keys)) == len(keys):
        return np.zeros(len(keys), np.int8)
    import pandas as pd

    repeats: IntArray = pd.Series(keys).groupby(keys, sort=False).cumcount().to_numpy()
    return repeats


def cell_keys(centroid_px: FloatArray, area_um2: FloatArray) -> IntArray:
    """A number that equal cells share: (n,) uint64."""
    import pandas as pd

    frame = pd.DataFrame(_hundredths(centroid_px, area_um2))
    keys: IntArray = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return keys


def _hundredths(centroid_px: FloatArray, area_um2: FloatArray) -> IntArray:
    # Whole numbers: the text of a float could differ in its last digit or say -0.00.
    columns = np.column_stack([centroid_px, np.asarray(area_um2, np.float64)])
    values: IntArray = np.rint(columns * 100).astype(np.int64)
    return values
