"""How fast slides are read: decoding alone, OpenSlide alone, and what a run reads.

    python benchmarks/reading.py [--slide FILE]    # one minute

The slide is drawn (4.2 mm2 at 0.25 um per pixel, JPEG, file tiles of 256 px), or the one given.
The lower bound decodes each file tile of level 0 once, with imagecodecs. "decodes per tile" is
counted: how often a run's reads (cores of 2048 px with their margins) ask for a file tile that is
not among the latest 32 MiB, which is what OpenSlide keeps. Medians, in turns, one thread.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import process_time

_THREADS = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS OPENCV_FOR_THREADS_NUM"
for _name in _THREADS.split():
    os.environ.setdefault(_name, "1")

import numpy as np
import openslide
import tifffile
from measured import Table, in_turns
from whole_job import draw

from ccrl_wsi.config import Settings, load_settings
from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.records import SlideSource
from ccrl_wsi.slides.openslide_reader import OpenSlideReader, open_slide
from ccrl_wsi.slides.resampling import make_grid
from ccrl_wsi.tiles.grid import cut_tiles, group_tiles
from pipelines.plan import halo_px

KEPT_BYTES = 32 << 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.slide or draw((8, 8), Path(folder))
        compare(path, arguments.rounds)


def compare(path: Path, rounds: int) -> None:
    """Print the table for one slide."""
    settings = load_settings()
    reader = open_slide(SlideSource(path, "slide"), settings.slides)
    info = reader.info
    whole = Box(0, 0, info.width_px, info.height_px)
    side = _tile_side(path)
    mm2 = whole.area * info.mpp**2 / 1e6
    coarse = load_settings(overrides=[f"tiles.mpp={2 * info.mpp}"])
    grids = {s: make_grid(info, s.tiles.mpp, s.tiles.mpp_tolerance) for s in (settings, coarse)}
    works: dict[str, Callable[[], object]] = {
        "decode each file tile once": lambda: decode_once(path),
        "OpenSlide, one file tile at a time": lambda: read_blocks(path, side),
        "OpenSlide, 2048 px at a time": lambda: read_blocks(path, 2048),
        "a run: cores and margins": lambda: read_run(reader, grids[settings], settings),
        "a run at half the resolution": lambda: read_run(reader, grids[coarse], coarse),
    }
    found = {name: median(s) for name, s in _in_turns(works, rounds).items()}
    decodes = {
        "decode each file tile once": 1.0,
        "OpenSlide, one file tile at a time": 1.0,
        "a run: cores and margins": decodes_per_tile(
            boxes_of_run(grids[settings], settings), whole, side
        ),
    }
    table = Table(
        f"Reading {mm2:.1f} mm2 at {info.mpp:g} um per pixel, file tiles of {side} px",
        ("path", "core-s/mm2", "Mpx/s of level 0", "times OpenSlide", "decodes per tile"),
    )
    plain = found["OpenSlide, one file tile at a time"]
    for name, seconds in found.items():
        rate = whole.area / seconds / 1e6
        table.row(name, seconds / mm2, rate, seconds / plain, decodes.get(name))
    table.publish("reading")


def _in_turns(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    return in_turns(works, rounds=rounds, clock=process_time)


def _tile_side(path: Path) -> int:
    with openslide.OpenSlide(path) as slide:
        return int(slide.properties["openslide.level[0].tile-width"])


def decode_once(path: Path) -> None:
    """Every file tile of level 0, decoded and dropped."""
    with tifffile.TiffFile(path) as file:
        for _ in file.pages[0].segments(maxworkers=1):
            pass


def read_blocks(path: Path, side: int) -> None:
    """Level 0 in squares, as OpenSlide gives them: premultiplied and without a Pillow image."""
    from ccrl_wsi.slides.openslide_reader import _on_white, _read_region

    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
        for top in range(0, height, side):
            for left in range(0, width, side):
                size = min(side, width - left), min(side, height - top)
                _on_white(_read_region(slide, (left, top), 0, size))


def read_run(reader: OpenSlideReader, grid: PixelGrid, settings: Settings) -> None:
    """What a run reads, in its order."""
    for box in boxes_of_run(grid, settings):
        reader.read(box, grid)


def boxes_of_run(grid: PixelGrid, settings: Settings) -> Iterator[Box]:
    """What each tile sees, partition by partition."""
    tiles = cut_tiles(grid.extent, settings.tiles.core_px, halo_px(settings, grid.mpp))
    for partition in group_tiles(tiles, settings.tiles.partition_side, lambda core: True):
        yield from (tile.read for tile in partition.tiles)


def decodes_per_tile(boxes: Iterator[Box], whole: Box, side: int) -> float:
    """How often each file tile is decoded when the latest ``KEPT_BYTES`` are kept."""
    kept: OrderedDict[tuple[int, int], None] = OrderedDict()
    n_kept, n_decodes = KEPT_BYTES // (4 * side**2), 0
    for box in boxes:
        for row in range(box.top // side, -(-box.bottom // side)):
            for column in range(box.left // side, -(-box.right // side)):
                n_decodes += (row, column) not in kept
                kept[row, column] = None
                kept.move_to_end((row, column))
                if len(kept) > n_kept:
                    kept.popitem(last=False)
    n_tiles = int(np.prod([-(-length // side) for length in (whole.width, whole.height)]))
    return n_decodes / n_tiles


if __name__ == "__main__":
    main()
