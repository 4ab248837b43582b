"""Text for many rows at once: (n, width) bytes in which 0 means "no character here".

Blocks of such text stand side by side; dropping the zeros in the end gives the lines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray


def text(constant: bytes) -> ByteArray:
    """The same text for every row: (1, width)."""
    return np.frombuffer(constant, np.uint8)[None]


def decimals(values: FloatArray, n_decimals: int) -> ByteArray:
    """Numbers as text without exponent, trailing zeros or minus zero: (n, width) characters.

    Characters that a number does not need are 0. The values are finite and rounded to
    ``n_decimals``.
    """
    scaled = np.rint(np.asarray(values, np.float64) * 10**n_decimals).astype(np.int64)
    rest = np.abs(scaled)
    n_digits = max(len(str(int(rest.max(initial=0)))), n_decimals + 1)
    digits = np.empty((len(rest), n_digits), np.uint8)
    if n_digits < 10:
        rest = rest.astype(np.uint32)  # half the time
    for place in range(n_digits - 1, -1, -1):
        tenth = rest // 10
        digits[:, place] = rest - tenth * 10
        rest = tenth
    whole, fraction = digits[:, : n_digits - n_decimals], digits[:, n_digits - n_decimals :]
    # A whole part's zeros go from the left until something else or the last place comes.
    is_leading = np.maximum.accumulate(whole, axis=1)[:, :-1] == 0
    is_trailing = np.maximum.accumulate(fraction[:, ::-1], axis=1)[:, ::-1] == 0
    shown = np.zeros((len(scaled), n_digits + 2), np.uint8)
    shown[:, 0] = np.where(scaled < 0, ord("-"), 0)
    shown[:, 1 : whole.shape[1] + 1] = whole + ord("0")
    shown[:, 1 : whole.shape[1]][is_leading] = 0
    point = whole.shape[1] + 1
    if n_decimals:
        shown[:, point] = np.where(is_trailing[:, 0], 0, ord("."))
        shown[:, point + 1 :] = np.where(is_trailing, 0, fraction + ord("0"))
    return shown


def join(blocks: Sequence[ByteArray]) -> ByteArray:
    """Blocks side by side; those of one row stand in every row."""
    n = next((len(block) for block in blocks if len(block) != 1), 1)
    return np.hstack([np.broadcast_to(block, (n, block.shape[1])) for block in blocks])


def to_bytes(rows: ByteArray) -> bytes:
    """All rows, one after the other."""
    return bytes(rows[rows != 0].tobytes())


def to_lines(rows: ByteArray) -> list[bytes]:
    """Each row."""
    ends = np.concatenate([[0], np.cumsum(np.count_nonzero(rows, axis=1))]).tolist()
    whole = to_bytes(rows)
    return [whole[start:stop] for start, stop in zip(ends[:-1], ends[1:], strict=True)]
