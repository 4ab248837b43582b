"""Cutting the pixel grid into tiles, and tiles into partitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from ccrl_wsi.geometry import Box
from ccrl_wsi.records import Partition, Tile

FARTHEST = 1 / 8
"""How far, relative to what is asked for, a core may move to the edge of a file's tile."""


def aligned_core_px(
    core_px: int, halo_px: int, file_tile: tuple[int, int] | None, step_px: int
) -> int:
    """Side of a core that ends where the file's own tiles do, if that is near and saves decodes.

    A row of n cores and its halo touches (n core + 2 halo - 1) / tile + 1 file tiles on average,
    and n core / tile + 2 where cores end with tiles and the halo is no wider than one: fewer only
    if the halo is more than half a tile.

    Parameters
    ----------
    core_px
        What is asked for; the answer where no other is near enough.
    halo_px
        What a tile sees beyond its core.
    file_tile
        Width and height of the file's tiles in grid pixels; None: they do not matter.
    step_px
        Whole steps of this are needed.
    """
    if file_tile is None or 2 * halo_px <= max(file_tile):
        return core_px
    unit = math.lcm(*file_tile, step_px)
    # The lower of two that are equally near: it needs less memory.
    nearest = unit * -(-(2 * core_px - unit) // (2 * unit))
    return nearest if nearest and abs(nearest - core_px) <= FARTHEST * core_px else core_px


def cut_tiles(extent: Box, core_px: int, halo_px: int) -> list[Tile]:
    """Tiles whose cores cover ``extent`` once, row by row.

    Parameters
    ----------
    extent
        What to cover, in grid pixels.
    core_px
        Side of a core; the last column and row are cut at the edge.
    halo_px
        What a tile sees beyond its core. Larger than the largest nucleus, so that each is whole
        in the tile that owns it.
    """
    tiles = []
    for row, top in enumerate(range(extent.top, extent.bottom, core_px)):
        for column, left in enumerate(range(extent.left, extent.right, core_px)):
            core = Box(left, top, core_px, core_px).clipped(extent)
            tiles.append(Tile(row, column, core, core.grown(halo_px).clipped(extent)))
    return tiles


def group_tiles(
    tiles: Iterable[Tile], side: int, is_wanted: Callable[[Box], bool]
) -> tuple[Partition, ...]:
    """Partitions of ``side`` x ``side`` neighbouring tiles, numbered in grid order.

    Tiles whose core is not wanted are left out, and so are partitions without tiles; a
    partition's number is its place in the full grid, so it does not depend on the tissue.
    """
    blocks: dict[tuple[int, int], list[Tile]] = {}
    for tile in tiles:
        blocks.setdefault((tile.row // side, tile.column // side), []).append(tile)
    partitions = []
    for number, (_, block) in enumerate(sorted(blocks.items())):
        wanted = tuple(tile for tile in block if is_wanted(tile.core))
        if wanted:
            partitions.append(Partition(number, wanted))
    return tuple(partitions)


def reading_order(tiles: Sequence[Tile]) -> list[Tile]:
    """Columns from left to right, each from the bottom up.

    OpenSlide decodes a region from its last row to its first. What a tile shares with the one above
    was then decoded last, and is found among what is kept.
    """
    return sorted(tiles, key=lambda tile: (tile.column, -tile.row))
