"""What OpenCV's resizing takes of which pixel, as tables.

A square of side s becomes one of another size by weights that depend on s alone, first along its
rows, then along its columns. These are OpenCV 4's own, for bytes: ``INTER_AREA`` where a square is
shrunk and ``INTER_CUBIC`` where it is enlarged. Summed tap by tap in float32, in the order of the
table, they give OpenCV's bytes. (Where OpenCV leaves cubic resizing to Intel's library, as its
builds for x86 do, one byte in 100,000 differs by one.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccrl_wsi.arrays import FloatArray, IntArray

_CUBIC = np.float32(-0.75)
_FIXED_POINT = 2048
"""OpenCV's own cubic weights are rounded to so many parts of one."""
_INTELS_LEAST_PX = 4
"""Intel's library leaves smaller squares to OpenCV."""
_NEGLIGIBLE = 1e-3
"""Of a pixel; OpenCV leaves out shares that are smaller."""


@dataclass(frozen=True, eq=False, slots=True)
class Taps:
    """How squares of several sides are resized to one size.

    Parameters
    ----------
    places
        (n, size, t) int64: for each side and each pixel of the result, which t rows (columns) of
        the square are summed, from first to last.
    across, down
        (n, size, t) float32: their weights in a row, and in a column. 0 where fewer are summed.
    factor, shift
        (n,) float32: what a sum is multiplied by, and what is then added, before it is rounded
        (halves to even).
    """

    places: IntArray
    across: FloatArray
    down: FloatArray
    factor: FloatArray
    shift: FloatArray


def taps_of(sides: range, size_px: int, *, in_fixed_point: bool) -> Taps:
    """How squares of ``sides`` are resized to ``size_px``.

    ``in_fixed_point``: cubic weights are rounded to 11 bits, as OpenCV does it without Intel's
    library. That changes up to 9 % of the bytes of an enlarged crop, by one.
    """
    tables = [_taps(side, size_px, in_fixed_point) for side in sides]
    n_taps = max(table[0].shape[1] for table in tables)
    places, across, down, factor, shift = zip(*tables, strict=True)
    return Taps(
        places=np.stack([_widened(table, n_taps) for table in places]),
        across=np.stack([_widened(table, n_taps) for table in across]),
        down=np.stack([_widened(table, n_taps) for table in down]),
        factor=np.array(factor, np.float32),
        shift=np.array(shift, np.float32),
    )


_Table = tuple[IntArray, FloatArray, FloatArray, float, float]
"""The fields of :class:`Taps` for one side."""


def _taps(side: int, size_px: int, in_fixed_point: bool) -> _Table:
    # The same divisions as OpenCV's.
    scale = 1 / (size_px / side)
    if side <= size_px:
        return _cubic(side, size_px, scale, in_fixed_point=in_fixed_point)
    if abs(scale - round(scale)) < np.finfo(np.float64).eps:
        return _means(size_px, round(scale))
    return _areas(side, size_px, scale)


def _means(size_px: int, n: int) -> _Table:
    """Plain means of n x n pixels; those of 2 x 2 are the only ones whose halves go up."""
    places = np.arange(size_px * n).reshape(size_px, n)
    ones = np.ones(places.shape, np.float32)
    return places, ones, ones, float(np.float32(1) / np.float32(n * n)), 0.125 if n == 2 else 0.0


def _areas(side: int, size_px: int, scale: float) -> _Table:
    """Each pixel counts by how much of it a pixel of the result covers."""
    rows = [_covered(number * scale, side, scale) for number in range(size_px)]
    n_taps = max(len(weights) for _, weights in rows)
    places = np.array([np.minimum(first + np.arange(n_taps), side - 1) for first, _ in rows])
    weights = np.array([_widened(np.array(w, np.float32), n_taps) for _, w in rows])
    return places, weights, weights, 1.0, 0.0


def _covered(begin: float, side: int, scale: float) -> tuple[int, list[float]]:
    """The first pixel that ``begin``..``begin + scale`` covers, and shares of it and the next."""
    end = begin + scale
    width = min(scale, side - begin)
    last = min(int(np.floor(end)), side - 1)
    first = min(int(np.ceil(begin)), last)
    weights = [1 / width] * (last - first)
    if end - last > _NEGLIGIBLE:
        weights.append(min(end - last, 1.0, width) / width)
    if first - begin > _NEGLIGIBLE:
        return first - 1, [(first - begin) / width, *weights]
    return first, weights


def _cubic(side: int, size_px: int, scale: float, *, in_fixed_point: bool) -> _Table:
    """The four nearest pixels, by Keys' cubic; beyond the square its edge is repeated."""
    centre = ((np.arange(size_px) + 0.5) * scale - 0.5).astype(np.float32)
    before = np.floor(centre)
    # OpenCV sums columns from the last to the first.
    nearest = before.astype(np.int64)[:, None] + np.array([2, 1, 0, -1])
    places = np.clip(nearest, 0, side - 1)
    weights = _cubic_weights(centre - before)[:, ::-1]
    if in_fixed_point or side < _INTELS_LEAST_PX:
        weights = np.rint(weights * np.float32(_FIXED_POINT))
        return places, weights, weights / np.float32(_FIXED_POINT**2), 1.0, 0.0
    return places, weights, weights, 1.0, 0.0


def _cubic_weights(x: FloatArray) -> FloatArray:
    """Weights (n, 4) float32 of the pixels around places ``x`` (n,) in 0..1."""
    a, one = _CUBIC, np.float32(1)
    far, near = x + one, one - x
    first = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    second = ((a + 2) * x - (a + 3)) * x * x + one
    third = ((a + 2) * near - (a + 3)) * near * near + one
    return np.stack([first, second, third, one - first - second - third], axis=1)


def _widened(table: np.ndarray, n_taps: int) -> np.ndarray:
    """``table`` (..., t) with ``n_taps`` columns: weights 0, places anywhere in the square."""
    missing = [(0, 0)] * (table.ndim - 1) + [(0, n_taps - table.shape[-1])]
    return np.pad(table, missing)
