"""The whole slide, small."""

from __future__ import annotations

from dataclasses import dataclass

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.geometry import PixelGrid
from ccrl_wsi.interfaces import SlideReader
from ccrl_wsi.slides.resampling import make_grid

# A thumbnail's exact resolution matters to nobody; a stored level saves the most work.
TOLERANCE = 0.15


@dataclass(frozen=True, eq=False, slots=True)
class Thumbnail:
    """The scanned area at a low resolution.

    Parameters
    ----------
    rgb
        (grid.height, grid.width, 3) uint8.
    grid
        Where its pixels lie on the slide.
    """

    rgb: ByteArray
    grid: PixelGrid


def read_thumbnail(reader: SlideReader, mpp: float) -> Thumbnail:
    """The slide at about ``mpp`` um per pixel, from its lowest suitable level.

    A slide with a large level 0 alone is read piece by piece.
    """
    grid = make_grid(reader.info, mpp, TOLERANCE)
    return Thumbnail(reader.read(grid.extent, grid), grid)
