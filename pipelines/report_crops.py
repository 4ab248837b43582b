"""Crops of chosen cells: those the run kept, else cut from the slide as the encoder saw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray, IntArray
from ccrl_wsi.config import SlideSettings
from ccrl_wsi.crops.cut import crop_windows
from ccrl_wsi.errors import CcrlError
from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.interfaces import SlideReader
from ccrl_wsi.slides.resampling import make_grid
from ccrl_wsi.store import SlideStore, telling_damage
from pipelines.report_slides import OpenReportSlide, reader_for
from pipelines.tile_pass import read_crop

SHOWN_PX = 64
"""Side of a crop cut for the report: the encoder sees fewer pixels than people need."""


def crops_of(
    slides: Sequence[OpenReportSlide], slide: IntArray, row: IntArray, files: SlideSettings
) -> dict[tuple[int, int], ByteArray]:
    """Crops by (slide, row) of the cells asked for. Slides that cannot be read give none."""
    found: dict[tuple[int, int], ByteArray] = {}
    for number in np.unique(slide).tolist():
        rows = np.unique(row[slide == number])
        try:
            crops = _kept(slides[number].store, rows)
            if crops is None:
                crops = _cut(slides[number], rows, files)
        except CcrlError:
            continue
        found |= {(number, int(r)): crop for r, crop in zip(rows, crops, strict=True)}
    return found


def _kept(store: SlideStore, rows: IntArray) -> list[ByteArray] | None:
    if not store.n_crops:
        return None
    with telling_damage(store.path):
        return [store.crops(int(r), int(r) + 1)[0] for r in rows]


def _cut(slide: OpenReportSlide, rows: IntArray, files: SlideSettings) -> list[ByteArray]:
    store = slide.store
    settings = store.attrs["settings"]
    with telling_damage(store.path):
        outlines = store.outlines(rows)
    reader = reader_for(slide, files)
    try:
        tiles = settings["tiles"]
        grid = make_grid(reader.info, tiles["mpp"], tiles["mpp_tolerance"])
        boxes = np.array([_box(outlines.ring(i), grid) for i in range(len(outlines))])
        windows = crop_windows(boxes, settings["crops"]["scale"])
        return [_crop(reader, grid, window) for window in windows.tolist()]
    finally:
        reader.close()


def _crop(reader: SlideReader, grid: PixelGrid, window: list[int]) -> ByteArray:
    return read_crop(reader, grid, Box(*window), SHOWN_PX)


def _box(ring: FloatArray, grid: PixelGrid) -> tuple[int, int, int, int]:
    """The box of a nucleus' pixels: left, top, width, height. Outlines run along their edges."""
    xy = grid.from_level0(ring)
    # Outlines are rounded to a hundredth of a pixel.
    low = np.floor(xy.min(axis=0) + 0.05).astype(int)
    high = np.maximum(np.ceil(xy.max(axis=0) - 0.05).astype(int), low + 1)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
