"""Cutting the pixel grid into tiles, and tiles into partitions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ccrl_wsi.geometry import Box
from ccrl_wsi.records import Partition, Tile


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
