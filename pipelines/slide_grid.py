"""The pixels a slide is worked on in, and how large its tiles are."""

from __future__ import annotations

from ccrl_wsi.config import Settings
from ccrl_wsi.geometry import PixelGrid, um_to_px
from ccrl_wsi.records import SlideInfo
from ccrl_wsi.slides.resampling import file_tile_px, make_grid
from ccrl_wsi.tiles.grid import aligned_core_px

POOLING_PX = 8
"""The networks halve an image three times."""


def grid_of(info: SlideInfo, settings: Settings) -> PixelGrid:
    """The pixels a slide is worked on in."""
    return make_grid(info, settings.tiles.mpp, settings.tiles.mpp_tolerance)


def core_px(info: SlideInfo, grid: PixelGrid, settings: Settings) -> int:
    """Side of the cores: as set, or such that they end where the file's own tiles do."""
    tile = file_tile_px(info, grid) if settings.tiles.align_to_file else None
    return aligned_core_px(settings.tiles.core_px, halo_px(settings, grid.mpp), tile, POOLING_PX)


def halo_px(settings: Settings, mpp: float) -> int:
    """The halo in whole steps of the networks' coarsest layer, as ``core_px`` is.

    A pixel then has the same place in the network's pooling windows whichever tile reads it.
    """
    return -(-um_to_px(settings.tiles.halo_um, mpp) // POOLING_PX) * POOLING_PX
