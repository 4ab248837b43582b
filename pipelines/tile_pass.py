"""One tile: its pixels are read once, and every stage sees them while they are in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray
from ccrl_wsi.config import Settings
from ccrl_wsi.crops.cut import crop_windows, cut_crops, inside
from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.interfaces import SlideReader
from ccrl_wsi.nuclei.measurements import measure
from ccrl_wsi.nuclei.outlines import outlines_to_level0, trace_outlines
from ccrl_wsi.nuclei.regions import Regions, find_regions
from ccrl_wsi.records import Cells, Segmentation, Tile
from ccrl_wsi.slides.tissue import Tissue
from ccrl_wsi.tiles.seams import centroids, inner_sides, is_owned, shift_sums
from pipelines.stopwatch import Stopwatch

Segment = Callable[[ByteArray, float], Segmentation]
"""Nuclei of an image (height, width, 3) uint8 at so many micrometres per pixel."""


@dataclass(frozen=True, slots=True)
class SlideView:
    """One slide as its tiles see it."""

    reader: SlideReader
    grid: PixelGrid
    tissue: Tissue


def cells_of_tile(
    rgb: ByteArray,
    tile: Tile,
    view: SlideView,
    segment: Segment,
    settings: Settings,
    watch: Stopwatch,
) -> tuple[Cells, int]:
    """The nuclei that ``tile`` owns, not embedded yet, and how many crops were read again.

    ``rgb`` are the pixels of ``tile.read``; ``segment`` is a segmenter, or what is left for it to
    do when its network has seen them.
    """
    with watch.stage("segment"):
        found = segment(rgb, view.grid.mpp)
    with watch.stage("outline"):
        regions = find_regions(found.labels)
        sums = shift_sums(regions.coordinate_sums, regions.n_pixels, tile.read)
        centroid_px = view.grid.to_level0(centroids(sums, regions.n_pixels))
        rows = np.flatnonzero(_is_kept(regions, sums, centroid_px, tile, view, settings))
        own = regions.where(rows)
        outlines = trace_outlines(found.labels, own)
    with watch.stage("measure"):
        measurements = measure(rgb, found.labels, own, outlines, view.grid.mpp)
    with watch.stage("crop"):
        crops, n_again = _crops(rgb, own.boxes, tile, view, settings)
    corner = (tile.read.left, tile.read.top)
    inner = np.array(inner_sides(tile, view.grid.extent))
    cells = Cells(
        centroid_px=centroid_px[rows],
        outlines=outlines_to_level0(outlines, corner, view.grid),
        area_um2=(own.n_pixels * view.grid.pixel_area_um2).astype(np.float32),
        is_clipped=np.asarray(own.touches_border[:, inner].any(axis=1)),
        tile=np.tile(np.array([[tile.row, tile.column]], np.int32), (len(own), 1)),
        measurements=measurements,
        embedding=np.zeros((len(own), 0), np.float32),
        crops=crops,
        probability=found.probability[rows],
        nucleus_type=found.nucleus_type[rows],
        type_probability=found.type_probability[rows],
    )
    return cells, n_again


def _is_kept(
    regions: Regions,
    sums: IntArray,
    centroid_px: FloatArray,
    tile: Tile,
    view: SlideView,
    settings: Settings,
) -> BoolArray:
    area_um2 = regions.n_pixels * view.grid.pixel_area_um2
    limits = settings.nuclei
    is_plausible = (area_um2 >= limits.min_area_um2) & (area_um2 <= limits.max_area_um2)
    is_own = is_owned(sums, regions.n_pixels, tile.core)
    keep: BoolArray = is_plausible & is_own & view.tissue.contains(centroid_px)
    return keep


def _crops(
    rgb: ByteArray, boxes: IntArray, tile: Tile, view: SlideView, settings: Settings
) -> tuple[ByteArray, int]:
    """Crops of all boxes; windows that reach beyond the pixels at hand are read from the slide."""
    scale, size_px = settings.crops.rule
    windows = crop_windows(boxes, scale)
    crops = cut_crops(rgb, windows, size_px)
    extent = view.grid.extent
    missing = np.flatnonzero(~inside(_within(windows, tile.read, extent), _local(tile.read)))
    for row in missing:
        left, top, side, _ = (int(value) for value in windows[row])
        box = Box(left + tile.read.left, top + tile.read.top, side, side)
        crops[row] = read_crop(view.reader, view.grid, box, size_px)
    return crops, len(missing)


def read_crop(reader: SlideReader, grid: PixelGrid, window: Box, size_px: int) -> ByteArray:
    """The crop (size_px, size_px, 3) uint8 of one ``window`` in grid pixels, from the slide."""
    seen = window.clipped(grid.extent)
    rgb = reader.read(seen, grid)
    place = np.array(
        [[window.left - seen.left, window.top - seen.top, window.width, window.height]]
    )
    crop: ByteArray = cut_crops(rgb, place, size_px)[0]
    return crop


def _local(read: Box) -> Box:
    return Box(0, 0, read.width, read.height)


def _within(windows: IntArray, read: Box, extent: Box) -> IntArray:
    """The part of each window (left, top, width, height) that lies on the slide."""
    low = np.array([extent.left - read.left, extent.top - read.top])
    high = np.array([extent.right - read.left, extent.bottom - read.top])
    first = np.maximum(windows[:, :2], low)
    last = np.minimum(windows[:, :2] + windows[:, 2:], high)
    return np.hstack([first, last - first])
