"""The slide at another resolution, so that a pixel does not depend on the box it is read with.

The grid's step (level pixels per grid pixel) is a fraction p/q whose q is a power of two: the
simplest one within the tolerance. Every q-th grid pixel then begins exactly on a level pixel,
and the position of any grid pixel is exact in binary floating point. A box is read from such a
pixel on, so that the same pixel always gets the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.records import SlideInfo

LevelReader = Callable[[int, Box], ByteArray]
"""Pixels of a box in a level's own pixels: (height, width, 3) uint8, white outside the slide."""

# Beyond this the pixel positions would no longer be exact in single precision.
MAX_DENOMINATOR = 1024

# Up to here the optics' blur hides what averaging would, and averaging over little more than
# a pixel makes sharp and blurred columns alternate.
AVERAGE_ABOVE = Fraction(5, 4)

# More than the reach of the filter and of a vector register beyond the last pixel asked for.
SPARE_PX = 16

# Bounds the memory of a read, however coarse the grid: side in level pixels.
MAX_SOURCE_SIDE = 4096


def make_grid(info: SlideInfo, mpp: float, tolerance: float) -> PixelGrid:
    """The grid of the scanned area, within ``tolerance`` (relative) of ``mpp``.

    A level so close to ``mpp`` is used as stored. Otherwise the slide is reduced from the
    coarsest level that is still finer, or enlarged from level 0. ``grid.mpp`` is the resolution
    that results, not the one asked for.
    """
    level = _best_level(info, mpp, tolerance)
    downsample = info.level_downsamples[level]
    scale = downsample * float(_simplest_step(mpp / (info.mpp * downsample), tolerance))
    bounds = info.bounds_px
    # The grid begins on a pixel of the level, so that a stored level needs no shift.
    left, top = (
        round(math.floor(edge / downsample) * downsample) for edge in (bounds.left, bounds.top)
    )
    return PixelGrid(
        mpp=info.mpp * scale,
        scale=scale,
        origin_px=(left, top),
        width=math.ceil((bounds.right - left) / scale - 1e-9),
        height=math.ceil((bounds.bottom - top) / scale - 1e-9),
    )


def file_tile_px(info: SlideInfo, grid: PixelGrid) -> tuple[int, int] | None:
    """Width and height of the file's own tiles, where the grid's pixels lie in them as stored.

    None where the grid is resampled, does not begin on the corner of a tile, or the file does not
    say.
    """
    source = _source(info, grid)
    if source.step != 1 or source.level >= len(info.level_tiles_px):
        return None
    tile = info.level_tiles_px[source.level]
    if tile is None or any(edge % side for edge, side in zip(source.origin, tile, strict=True)):
        return None
    return tile


def read_grid(read_level: LevelReader, info: SlideInfo, box: Box, grid: PixelGrid) -> ByteArray:
    """Pixels of ``box`` (grid pixels): (height, width, 3) uint8 RGB, white outside the slide."""
    source = _source(info, grid)
    if source.step == 1:
        return read_level(source.level, source.shifted(box))
    pieces = list(_pieces(box, source.step))
    if len(pieces) == 1:
        return _resample(read_level, source, box)
    rgb = np.empty((box.height, box.width, 3), np.uint8)
    for piece in pieces:
        rows = slice(piece.top - box.top, piece.bottom - box.top)
        columns = slice(piece.left - box.left, piece.right - box.left)
        rgb[rows, columns] = _resample(read_level, source, piece)
    return rgb


@dataclass(frozen=True, slots=True)
class _Source:
    """The level a grid is made of, level pixels per grid pixel, and where the grid begins."""

    level: int
    step: Fraction
    origin: tuple[int, int]

    def shifted(self, box: Box) -> Box:
        """A box counted from the grid's origin as a box of the level."""
        return Box(box.left + self.origin[0], box.top + self.origin[1], box.width, box.height)


def _best_level(info: SlideInfo, mpp: float, tolerance: float) -> int:
    errors = [abs(info.mpp * d - mpp) / mpp for d in info.level_downsamples]
    closest = min(range(len(errors)), key=errors.__getitem__)
    if errors[closest] <= tolerance:
        return closest
    finer = [i for i, d in enumerate(info.level_downsamples) if info.mpp * d <= mpp]
    return max(finer, default=0)


def _simplest_step(wanted: float, tolerance: float) -> Fraction:
    q = 1
    while True:
        p = round(wanted * q)
        if p > 0 and abs(p / q - wanted) <= tolerance * wanted:
            return Fraction(p, q)
        if q == MAX_DENOMINATOR:
            return Fraction(max(p, 1), q)
        q *= 2


def _source(info: SlideInfo, grid: PixelGrid) -> _Source:
    finer = [i for i, d in enumerate(info.level_downsamples) if d <= grid.scale]
    level = max(finer, default=0)
    downsample = info.level_downsamples[level]
    step = Fraction(grid.scale / downsample).limit_denominator(MAX_DENOMINATOR)
    x, y = (round(edge / downsample) for edge in grid.origin_px)
    return _Source(level, step, (x, y))


def _pieces(box: Box, step: Fraction) -> Iterator[Box]:
    """Cut a box evenly so that no piece needs much more than ``MAX_SOURCE_SIDE`` a side.

    In columns from the bottom up, as OpenSlide decodes: what two pieces share is kept meanwhile.
    """
    side = max(1, int(MAX_SOURCE_SIDE / max(step, Fraction(1))))
    for left, right in _cuts(box.left, box.right, side):
        for top, bottom in reversed(_cuts(box.top, box.bottom, side)):
            yield Box(left, top, right - left, bottom - top)


def _cuts(first: int, last: int, most: int) -> list[tuple[int, int]]:
    """[first, last) in as few even parts as make none longer than ``most``."""
    length = last - first
    n = -(-length // most)
    edges = [first + length * i // n for i in range(n + 1)] if n else []
    return list(pairwise(edges))


def _resample(read_level: LevelReader, source: _Source, box: Box) -> ByteArray:
    averages = source.step > AVERAGE_ABOVE
    # Averages of whole periods need no neighbours.
    before = 0 if averages else SPARE_PX + math.ceil(2 / source.step)
    after = 0 if averages and source.step.denominator == 1 else SPARE_PX + before
    x0, x1 = _periods(box.left - before, box.right + after, source.step)
    y0, y1 = _periods(box.top - before, box.bottom + after, source.step)
    p, q = source.step.numerator, source.step.denominator
    pixels = read_level(
        source.level, source.shifted(Box(x0 * p, y0 * p, (x1 - x0) * p, (y1 - y0) * p))
    )
    method = cv2.INTER_AREA if averages else cv2.INTER_CUBIC
    resized = cv2.resize(pixels, ((x1 - x0) * q, (y1 - y0) * q), interpolation=method)
    top, left = box.top - y0 * q, box.left - x0 * q
    cut: ByteArray = np.ascontiguousarray(resized[top : top + box.height, left : left + box.width])
    return cut


def _periods(first: int, last: int, step: Fraction) -> tuple[int, int]:
    """The whole periods of q grid pixels that cover [first, last)."""
    return first // step.denominator, -(-last // step.denominator)
