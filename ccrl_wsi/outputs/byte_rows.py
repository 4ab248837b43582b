"""Text for many rows at once: (n, width) bytes in which 0 means "no character here".

Blocks of such text stand side by side; dropping the zeros in the end gives the lines. Digits come
from tables, four at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray, IntArray

_DIGITS = 4
_BASE = 10**_DIGITS


def text(constant: bytes) -> ByteArray:
    """The same text for every row: (1, width)."""
    return np.frombuffer(constant, np.uint8)[None]


def decimals(values: FloatArray, n_decimals: int) -> ByteArray:
    """Numbers as text without exponent, trailing zeros or minus zero: (n, width) characters.

    Characters that a number does not need are 0. The values are finite and rounded to
    ``n_decimals``, at most four.
    """
    scaled = np.rint(np.asarray(values, np.float64) * 10**n_decimals).astype(np.int64)
    return as_bytes(number_words(scaled, n_decimals))


def number_words(scaled: IntArray, n_decimals: int, end: bytes = b"") -> list[IntArray]:
    """Text of the numbers ``scaled / 10**n_decimals``, four characters a word: (n,) uint32 each.

    ``end`` is a character that follows each number.
    """
    size = np.abs(scaled)
    if size.max(initial=0) < 2**32:
        size = size.astype(np.uint32)  # divides several times as fast
    whole = size // 10**n_decimals
    fraction = _fractions(n_decimals, end)[:, size - whole * 10**n_decimals]
    words = [*_whole_words(whole), *fraction]
    is_negative = scaled < 0
    if is_negative.any():
        words.insert(0, np.where(is_negative, word(b"-"), np.uint32(0)))
    return words


def word(characters: bytes) -> np.uint32:
    """Up to four characters as one word."""
    return np.uint32(np.frombuffer(characters.rjust(4, b"\0"), np.uint32)[0])


def as_bytes(words: Sequence[IntArray]) -> ByteArray:
    """Words (n,) each, side by side, as (n, 4 * words) characters."""
    return np.stack(words, axis=1).view(np.uint8)


def _whole_words(whole: IntArray) -> list[IntArray]:
    words: list[IntArray] = []
    rest, is_last = whole, True
    while is_last or rest.any():
        higher = rest // _BASE
        # The second half of a table has the zeros that stand after other digits.
        entry = rest - higher * _BASE + (higher > 0) * whole.dtype.type(_BASE)
        words.insert(0, _four_digits(is_last=is_last)[entry])
        rest, is_last = higher, False
    return words


@cache
def _four_digits(*, is_last: bool) -> IntArray:
    """(20000,) words: 0..9999 without leading zeros (0 itself only in the last place), and with."""
    number = np.arange(_BASE)
    digits = number[:, None] // 10 ** np.arange(_DIGITS - 1, -1, -1) % 10
    is_shown = np.maximum.accumulate(digits, axis=1) > 0
    is_shown[:, -1] |= is_last
    every = (digits + ord("0")).astype(np.uint8)
    return np.concatenate([every * is_shown, every]).view(np.uint32).ravel()


@cache
def _fractions(n_decimals: int, end: bytes) -> IntArray:
    """(words, 10**n_decimals): a point and decimals without trailing zeros, then ``end``."""
    n = 10**n_decimals
    digits = np.arange(n)[:, None] // 10 ** np.arange(n_decimals - 1, -1, -1) % 10
    is_shown = np.maximum.accumulate(digits[:, ::-1], axis=1)[:, ::-1] > 0
    parts = [np.where(is_shown, digits + ord("0"), 0)]
    if n_decimals:
        parts.insert(0, np.where(is_shown[:, :1], ord("."), 0))
    parts.append(np.tile(np.frombuffer(end, np.uint8), (n, 1)))
    row = np.hstack(parts).astype(np.uint8)
    padded = np.pad(row, ((0, 0), (0, -row.shape[1] % 4)))
    return np.ascontiguousarray(padded.view(np.uint32).T)


def join(blocks: Sequence[ByteArray]) -> ByteArray:
    """Blocks side by side; those of one row stand in every row."""
    n = next((len(block) for block in blocks if len(block) != 1), 1)
    return np.hstack([np.broadcast_to(block, (n, block.shape[1])) for block in blocks])


def to_bytes(rows: ByteArray) -> bytes:
    """All rows, one after the other."""
    return rows.tobytes().translate(None, b"\0")


def to_lines(rows: ByteArray) -> list[bytes]:
    """Each row."""
    ends = np.concatenate([[0], np.cumsum(np.count_nonzero(rows, axis=1))]).tolist()
    whole = to_bytes(rows)
    return [whole[start:stop] for start, stop in zip(ends[:-1], ends[1:], strict=True)]
