"""How fast slides are read: decoding alone, OpenSlide alone, and what a run reads.

    python benchmarks/reading.py [--slide FILE]    # three minutes

Two slides are drawn (4.2 mm2 at 0.25 um per pixel, JPEG, file tiles of 256 and of 240 px), or the
one given is read, at its own resolution. The lower bound decodes each file tile of level 0 once,
with imagecodecs. A run reads cores with their margins: first as it did before it heeded how files
are stored (in grid order, beside OpenSlide's own cache of 32 MiB), then in the order and beside
the cache of today, with ``tiles.align_to_file`` off and on, and at half the resolution.

"decodes" is counted: how often a file tile that is needed is not among those kept, on the slide
and on one of 60,000 px a side. "bytes" is what the process read, in times of reading each file tile
once: it bears the count out, give or take the blocks that files are read in. Medians, in turns, one
thread.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
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
from whole_job import MPP, draw_block

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.config import Settings, load_settings
from ccrl_wsi.geometry import Box
from ccrl_wsi.records import SlideInfo, SlideSource, Tile
from ccrl_wsi.slides.openslide_reader import KEPT_BYTES, OpenSlideReader, open_slide
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.resampling import read_grid
from ccrl_wsi.tiles.grid import cut_tiles, group_tiles, reading_order
from pipelines.slide_grid import core_px, grid_of, halo_px

OPENSLIDES_OWN = 32 << 20
LARGE_PX = 60_000
BLOCKS = 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = (
            [arguments.slide] if arguments.slide else map(partial(draw, Path(folder)), (256, 240))
        )
        for path in paths:
            compare(path, arguments.rounds)


def draw(folder: Path, tile_px: int) -> Path:
    """A slide of so large file tiles, with its level of half the resolution left out."""
    path = folder / f"tiles{tile_px}.tif"
    rgb = np.tile(draw_block()[0], (BLOCKS, BLOCKS, 1))
    write_pyramid(path, rgb, MPP, tile_px=tile_px, levels=1, compression="jpeg")
    return path


@dataclass(frozen=True, slots=True)
class Run:
    """What a run reads of a slide, and beside which cache."""

    reader: OpenSlideReader
    settings: Settings
    kept_bytes: int = KEPT_BYTES
    order: Callable[[tuple[Tile, ...]], list[Tile]] = reading_order

    @property
    def core_px(self) -> int:
        """Side of its cores."""
        info = self.reader.info
        return core_px(info, grid_of(info, self.settings), self.settings)

    def boxes(self, info: SlideInfo) -> Iterator[Box]:
        """What each tile sees, in the order it is read."""
        tiles, grid = self.settings.tiles, grid_of(info, self.settings)
        core = core_px(info, grid, self.settings)
        cut = cut_tiles(grid.extent, core, halo_px(self.settings, grid.mpp))
        for partition in group_tiles(cut, tiles.partition_side, lambda core: True):
            yield from (tile.read for tile in self.order(partition.tiles))

    def read(self) -> None:
        """Read it."""
        self.reader._handle.set_cache(openslide.OpenSlideCache(self.kept_bytes))
        grid = grid_of(self.reader.info, self.settings)
        for box in self.boxes(self.reader.info):
            self.reader.read(box, grid)

    def decodes(self, side_px: int | None = None) -> float:
        """Decodes per file tile of level 0, of the slide or of a square one of ``side_px``."""
        info = self.reader.info
        if side_px:
            whole = Box(0, 0, side_px, side_px)
            info = replace(info, width_px=side_px, height_px=side_px, bounds_px=whole)
        tile = info.level_tiles_px[0]
        if tile is None:
            raise SystemExit("This file does not say how large its tiles are.")
        counter = DecodeCounter(tile, (info.width_px, info.height_px), self.kept_bytes)
        grid = grid_of(info, self.settings)
        for box in self.boxes(info):
            read_grid(counter.note, info, box, grid)
        return counter.per_tile


class DecodeCounter:
    """Counts decodes of level 0, as OpenSlide goes about it: from the last row to the first.

    Parameters
    ----------
    tile, size
        Width and height of a file tile and of the level.
    kept_bytes
        The latest tiles are kept as long as they need no more.
    """

    def __init__(self, tile: tuple[int, int], size: tuple[int, int], kept_bytes: int) -> None:
        self.tile, self.size = tile, size
        self.n_kept = kept_bytes // (4 * tile[0] * tile[1])
        self.kept: OrderedDict[tuple[int, int], None] = OrderedDict()
        self.n_decodes = 0

    @property
    def per_tile(self) -> float:
        """Decodes of each file tile, on average."""
        n_columns, n_rows = (-(-n // side) for n, side in zip(self.size, self.tile, strict=True))
        return self.n_decodes / (n_columns * n_rows)

    def note(self, level: int, box: Box) -> ByteArray:
        """Count what reading ``box`` decodes; the pixels are none."""
        if level != 0:
            raise ValueError("only level 0 is counted")
        seen = box.clipped(Box(0, 0, *self.size))
        width, height = self.tile
        for row in reversed(range(seen.top // height, -(-seen.bottom // height))):
            for column in reversed(range(seen.left // width, -(-seen.right // width))):
                self.n_decodes += (row, column) not in self.kept
                self.kept[row, column] = None
                self.kept.move_to_end((row, column))
                if len(self.kept) > self.n_kept:
                    self.kept.popitem(last=False)
        return np.zeros((box.height, box.width, 3), np.uint8)


def compare(path: Path, rounds: int) -> None:
    """Print the table for one slide."""
    reader = open_slide(SlideSource(path, "slide"), load_settings().slides)
    info, side = reader.info, _tile_side(path)
    runs = runs_of(reader)
    plain = "OpenSlide, one file tile at a time"
    works: dict[str, Callable[[], object]] = {
        "decode each file tile once": partial(decode_once, path),
        plain: partial(read_blocks, path, side),
        "OpenSlide, 2048 px at a time": partial(read_blocks, path, 2048),
        **{name: run.read for name, run in runs.items()},
    }
    n_bytes = {name: bytes_read(work) for name, work in works.items()}
    found = in_turns(works, rounds=rounds, clock=process_time)
    mm2 = info.width_px * info.height_px * info.mpp**2 / 1e6
    table = Table(
        f"Reading {mm2:.1f} mm2 at {info.mpp:g} um per pixel, file tiles of {side} px",
        ("path", "core-s/mm2", "Mpx/s", "times OpenSlide", "bytes", "decodes", "of a large slide"),
    )
    for name, times in found.items():
        seconds, run = median(times), runs.get(name)
        table.row(
            name,
            seconds / mm2,
            info.width_px * info.height_px / seconds / 1e6,
            seconds / median(found[plain]),
            None if n_bytes[plain] == 0 else n_bytes[name] / n_bytes[plain],
            run.decodes() if run else None,
            run.decodes(LARGE_PX) if run else None,
        )
    table.publish("reading")


def runs_of(reader: OpenSlideReader) -> dict[str, Run]:
    """What runs read, by name."""
    mpp = f"tiles.mpp={reader.info.mpp}"
    as_set = load_settings(overrides=[mpp, "tiles.align_to_file=false"])
    aligned = load_settings(overrides=[mpp])
    half = load_settings(overrides=[f"tiles.mpp={2 * reader.info.mpp}"])
    after = Run(reader, aligned)
    return {
        "a run before: grid order, 32 MiB kept": Run(reader, as_set, OPENSLIDES_OWN, list),
        "a run, cores of 2048 px as set": Run(reader, as_set),
        f"a run, aligned: {after.core_px} px": after,
        "a run at half the resolution": Run(reader, half),
    }


def bytes_read(work: Callable[[], object]) -> int:
    """What this process reads from files meanwhile; 0 where the system does not tell."""
    before = _bytes_so_far()
    work()
    return _bytes_so_far() - before


def _bytes_so_far() -> int:
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.split("rchar: ")[1].split()[0])


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


if __name__ == "__main__":
    main()
