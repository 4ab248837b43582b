"""One tile: its pixels are read once, and every stage sees them while they are in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray
from ccrl_wsi.config import Settings
from ccrl_wsi.crops.cut import crop_windows, cut_crops, inside
from ccrl_wsi.device_work import TileOnGpu
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


@dataclass(frozen=True, slots=True)
class TilePixels:
    """A tile's pixels, where the stages find them.

    Parameters
    ----------
    rgb
        (height, width, 3) uint8, on the host.
    on_gpu
        The same, if a GPU has them: it then cuts the crops. None where it has not.
    """

    rgb: ByteArray
    on_gpu: TileOnGpu | None = None

    def begin_crops(self, windows: IntArray, size_px: int) -> Callable[[], ByteArray]:
        """Crops as of :func:`cut_crops`, when they are asked for; a GPU begins at once."""
        if self.on_gpu is None:
            return partial(cut_crops, self.rgb, windows, size_px)
        from ccrl_wsi.crops.cut_on_device import begin_crops

        return begin_crops(self.on_gpu, windows, size_px)


def cells_of_tile(
    pixels: TilePixels,
    tile: Tile,
    view: SlideView,
    segment: Segment,
    settings: Settings,
    watch: Stopwatch,
) -> tuple[Cells, int]:
    """The nuclei that ``tile`` owns, not embedded yet, and how many crops were read again.

    ``pixels`` are those of ``tile.read``; ``segment`` is a segmenter, or what is left for it to
    do when its network has seen them.
    """
    rgb = pixels.rgb
    with watch.stage("segment"):
        found = segment(rgb, view.grid.mpp)
    with watch.stage("outline"):
        regions = find_regions(found.labels)
        sums = shift_sums(regions.coordinate_sums, regions.n_pixels, tile.read)
        centroid_px = view.grid.to_level0(centroids(sums, regions.n_pixels))
        rows = np.flatnonzero(_is_kept(regions, sums, centroid_px, tile, view, settings))
        own = regions.where(rows)
        outlines = trace_outlines(found.labels, own)
    with watch.stage("crop"):
        scale, size_px = settings.crops.rule
        windows = crop_windows(own.boxes, scale)
        cut = pixels.begin_crops(windows, size_px)
    with watch.stage("measure"):
        measurements = measure(rgb, found.labels, own, outlines, view.grid.mpp)
    with watch.stage("crop"):
        crops = cut()
        n_again = _read_again(crops, windows, tile, view)
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


def _read_again(crops: ByteArray, windows: IntArray, tile: Tile, view: SlideView) -> int:
    """Read windows that reach beyond the pixels at hand from the slide; how many there were."""
    extent = view.grid.extent
    missing = np.flatnonzero(~inside(_within(windows, tile.read, extent), _local(tile.read)))
    for row in missing:
        left, top, side, _ = (int(value) for value in windows[row])
        box = Box(left + tile.read.left, top + tile.read.top, side, side)
        crops[row] = read_crop(view.reader, view.grid, box, crops.shape[1])
    return len(missing)


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
