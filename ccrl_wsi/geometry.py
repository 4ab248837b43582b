"""Boxes, and the one pixel grid a slide is processed on.

Two frames exist. *Level-0 pixels* (`_px`) are the slide file's own. *Grid pixels* are those of
:class:`PixelGrid`: the slide resampled to the resolution asked for. All tiles of a slide share
one grid, so that a pixel has the same value whichever tile reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ccrl_wsi.arrays import BoolArray, FloatArray


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Half-open rectangle: the right and bottom edges lie outside.

    The frame (level-0 or grid pixels) is told by whoever holds the box.
    """

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column outside."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """First row outside."""
        return self.top + self.height

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    def contains(self, xy: FloatArray) -> BoolArray:
        """Which of the points ``xy`` (n, 2) lie inside: boolean (n,)."""
        x, y = xy[:, 0], xy[:, 1]
        inside: BoolArray = (
            (x >= self.left) & (x < self.right) & (y >= self.top) & (y < self.bottom)
        )
        return inside

    def grown(self, margin: int) -> Box:
        """The box with ``margin`` pixels more on every side."""
        return Box(
            self.left - margin, self.top - margin, self.width + 2 * margin, self.height + 2 * margin
        )

    def clipped(self, other: Box) -> Box:
        """The part of the box inside ``other``; width or height 0 where they do not meet."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Box(left, top, max(0, right - left), max(0, bottom - top))

    def encloses(self, other: Box) -> bool:
        """Whether ``other`` lies wholly inside."""
        return self.clipped(other) == other


@dataclass(frozen=True, slots=True)
class PixelGrid:
    """The slide at the resolution it is processed at.

    Parameters
    ----------
    mpp
        Micrometres per grid pixel.
    scale
        Level-0 pixels per grid pixel (below 1 where the slide is enlarged).
    origin_px
        Level-0 x, y of the grid's top-left corner: (0, 0), or where the scanned area begins
        (OpenSlide bounds).
    width, height
        Size in grid pixels; the last column and row may reach a fraction beyond the slide.
    """

    mpp: float
    scale: float
    origin_px: tuple[int, int]
    width: int
    height: int

    @property
    def extent(self) -> Box:
        """The whole grid as a box in grid pixels."""
        return Box(0, 0, self.width, self.height)

    @property
    def pixel_area_um2(self) -> float:
        """Area of one grid pixel."""
        return self.mpp**2

    def to_level0(self, xy_grid: FloatArray) -> FloatArray:
        """Grid coordinates (n, 2) as level-0 pixels; pixel (0, 0) covers [0, 1) x [0, 1)."""
        moved: FloatArray = np.asarray(xy_grid, dtype=np.float64) * self.scale + np.asarray(
            self.origin_px, dtype=np.float64
        )
        return moved

    def from_level0(self, xy_px: FloatArray) -> FloatArray:
        """Level-0 pixels (n, 2) as grid coordinates."""
        moved: FloatArray = (
            np.asarray(xy_px, dtype=np.float64) - np.asarray(self.origin_px, dtype=np.float64)
        ) / self.scale
        return moved


def um_to_px(length_um: float, mpp: float) -> int:
    """Micrometres to whole pixels of ``mpp``, rounded up so that nothing is cut off."""
    return math.ceil(length_um / mpp - 1e-9)
