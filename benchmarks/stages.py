"""Stage by stage: what one tile takes, beside the least it could take on this machine.

    python benchmarks/stages.py [SLIDE] [--set KEY=VALUE ...]      # about a minute

Without a slide one is drawn (4096 px at 0.25 um per pixel, 5000 nuclei per mm2, JPEG). Lower
bounds: for reading, OpenSlide's bare decoding of the same pixels into one buffer (neither side
keeps what it decoded for the next round); for the
segmentation network, itself on windows that lie ready on the device; for what turns maps into
cells, one copy of the maps in memory; for embedding, the bare network on normalised crops that
lie ready on the device. Medians of rounds taken in turns. Told is how many nuclei of windows cut
on the host, one by one in float32, are found again (IoU of 0.99 or more). For ``compact`` with
one view.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measured import Table, in_turns
from openslide import OpenSlide, OpenSlideCache, lowlevel
from whole_job import BLOCK_PX, draw

from ccrl_wsi.config import Settings, load_settings
from ccrl_wsi.evaluation.segmentation_scores import count_overlaps
from ccrl_wsi.geometry import PixelGrid
from ccrl_wsi.nuclei.compact import SPOILT_PX, STRIDE_PX, CompactSegmenter
from ccrl_wsi.nuclei.inference import inference
from ccrl_wsi.nuclei.tile_maps import Question, cut_windows
from ccrl_wsi.nuclei.windows import plan_windows, predict_in_windows
from ccrl_wsi.records import SlideInfo, SlideSource, Tile
from ccrl_wsi.slides.openslide_reader import OpenSlideReader, open_slide
from ccrl_wsi.slides.resampling import make_grid
from ccrl_wsi.tiles.grid import cut_tiles
from pipelines.resolved_settings import resolved
from pipelines.slide_grid import halo_px
from pipelines.stopwatch import Stopwatch
from pipelines.tile_pass import SlideView, TilePixels, cells_of_tile
from pipelines.tools import encoder_of, segmenter_of

Works = Mapping[str, Callable[[], object]]


def on_device(work: Callable[[], object], device: str) -> Callable[[], object]:
    """``work``, and on a GPU the wait until it is done."""
    if not device.startswith("cuda"):
        return work

    def whole() -> object:
        result = work()
        torch.cuda.synchronize(device)
        return result

    return whole


class NotingReader(OpenSlideReader):
    """Remembers what it asked OpenSlide for; nothing it decoded is kept for the next time."""

    def __init__(self, info: SlideInfo) -> None:
        super().__init__(info)
        self.asked: list[tuple[tuple[int, int], int, tuple[int, int]]] = []
        self._handle.set_cache(OpenSlideCache(0))

    def _decode(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        self.asked.append((corner, level, size))
        return super()._decode(corner, level, size)


def bare_decode(reader: NotingReader, tile: Tile, grid: PixelGrid) -> Callable[[], object]:
    """OpenSlide's own decoding of what ``reader`` decodes for the tile, every time anew."""
    reader.asked.clear()
    reader.read(tile.read, grid)
    asked = list(reader.asked)
    slide = OpenSlide(reader.info.path)
    slide.set_cache(OpenSlideCache(0))
    buffer = np.empty(max(width * height for _, _, (width, height) in asked), np.uint32)
    pointer = buffer.ctypes.data_as(lowlevel.POINTER(lowlevel.c_uint32))

    def work() -> object:
        return [
            lowlevel._read_region(slide._osr, pointer, *corner, level, *size)
            for corner, level, size in asked
        ]

    return work


def bare_network(segmenter: CompactSegmenter, rgb: np.ndarray) -> Callable[[], object]:
    """The segmenter's network on windows that are there."""
    windows = plan_windows(rgb.shape[:2], segmenter.window_px, SPOILT_PX, STRIDE_PX)
    device, precision = segmenter.device, segmenter.precision
    n = Question(segmenter._look, device, precision, segmenter.batch_size).at_once(windows)
    tile = torch.from_numpy(rgb).to(device)
    numbers = range(len(windows.starts))
    ready = [cut_windows(tile, windows, numbers[i : i + n]) for i in range(0, len(numbers), n)]

    def work() -> object:
        with inference(device, precision, n, max(windows.size)):
            return [segmenter.network(images) for images in ready]

    return on_device(work, device)


def bare_encoder(encoder: Any, crops: np.ndarray) -> Callable[[], object]:
    """The encoder's network on normalised crops that are there."""
    size = encoder._batch_size
    with torch.inference_mode():
        ready = [
            torch.from_numpy(crops[i : i + size]).to(encoder._device).permute(0, 3, 1, 2).float()
            * encoder._factor
            + encoder._shift
            for i in range(0, len(crops), size)
        ]

    def work() -> object:
        with torch.inference_mode():
            return [encoder._network(images) for images in ready]

    return on_device(work, encoder._device.type)


def reference_labels(segmenter: CompactSegmenter, rgb: np.ndarray) -> np.ndarray:
    """Nuclei from windows that the host cuts, one at a time, in float32."""
    windows = plan_windows(rgb.shape[:2], segmenter.window_px, SPOILT_PX, STRIDE_PX)

    def infer(batch: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            images = torch.from_numpy(batch).to(segmenter.device).permute(0, 3, 1, 2).float()
            return {"maps": segmenter._look(images)["maps"].float().cpu().numpy()}

    return segmenter.segment(predict_in_windows(rgb, windows, 1, infer)).labels


def share_alike(labels: np.ndarray, others: np.ndarray) -> float:
    """Share of the nuclei in ``labels`` that have a twin in ``others`` (IoU of 0.99 or more)."""
    overlaps = count_overlaps(labels, others)
    n = len(overlaps.truth_area)
    return int((overlaps.iou >= 0.99).sum()) / n if n else 1.0


def works_of(settings: Settings, path: Path) -> tuple[Works, str]:
    """All that is timed, by name, and what was compared."""
    segmenter, encoder = segmenter_of(settings), encoder_of(settings)
    if not isinstance(segmenter, CompactSegmenter) or segmenter.views != 1:
        raise SystemExit("This benchmark knows the bare network of `compact` with one view only.")
    reader = NotingReader(open_slide(SlideSource(path, path.stem), settings.slides).info)
    grid = make_grid(reader.info, settings.tiles.mpp, settings.tiles.mpp_tolerance)
    halo = halo_px(settings, grid.mpp)
    tiles = list(cut_tiles(grid.extent, settings.tiles.core_px, halo))
    tile = tiles[len(tiles) // 2]
    rgb = reader.read(tile.read, grid)
    prediction = segmenter.predict(rgb, grid.mpp)
    maps, pixels = prediction.wait(), TilePixels(rgb, prediction.tile)
    view = SlideView(reader, grid, _Everywhere())

    def finish() -> Any:
        return cells_of_tile(
            pixels, tile, view, lambda *_: segmenter.segment(maps), settings, Stopwatch()
        )[0]

    cells = finish()
    alike = share_alike(reference_labels(segmenter, rgb), segmenter.segment(maps).labels)
    works = {
        "read": lambda: reader.read(tile.read, grid),
        "read, bound": bare_decode(reader, tile, grid),
        "network": lambda: segmenter.predict(rgb, grid.mpp).wait(),
        "network, bound": bare_network(segmenter, rgb),
        "maps to cells": finish,
        "maps to cells, bound": lambda: [array.copy() for array in maps.values()],
        "embedding": lambda: encoder(cells.crops, cells.measurements),
        "embedding, bound": bare_encoder(encoder, cells.crops),
    }
    seen = f"{rgb.shape[1]} x {rgb.shape[0]} px, {len(cells)} cells, {alike:.1%} as the reference's"
    return works, f"One tile of {seen}"


class _Everywhere:
    """Tissue everywhere."""

    def contains(self, places: np.ndarray) -> np.ndarray:
        """True for all."""
        return np.ones(len(places), bool)


def main() -> None:
    """Read the command line, time each stage in turns with its bound, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path, nargs="?")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    settings = resolved(load_settings(overrides=["nuclei.segmenter=compact", *asked.overrides]))
    with tempfile.TemporaryDirectory() as folder:
        path = asked.slide or draw((4096 // BLOCK_PX, 4096 // BLOCK_PX), Path(folder))
        works, title = works_of(settings, path)
        seconds = {
            name: median(times) for name, times in in_turns(works, rounds=asked.rounds).items()
        }
    table = Table(title, ("stage", "seconds", "lower bound, s", "times the bound"))
    for name in ("read", "network", "maps to cells", "embedding"):
        bound = seconds[f"{name}, bound"]
        table.row(name, seconds[name], bound, seconds[name] / bound)
    table.publish("stages")


if __name__ == "__main__":
    main()
