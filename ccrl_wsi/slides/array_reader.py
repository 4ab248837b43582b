"""A slide in memory: the reference the file reader must agree with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.records import SlideInfo
from ccrl_wsi.slides.resampling import read_grid


class ArrayReader:
    """Reads a pyramid of arrays.

    Parameters
    ----------
    levels
        One (height, width, 3) uint8 RGB array a level, the largest first.
    info
        As :func:`open_array` makes it.
    """

    def __init__(self, levels: Sequence[ByteArray], info: SlideInfo) -> None:
        self._levels = tuple(levels)
        self._info = info

    @property
    def info(self) -> SlideInfo:
        """What the slide says of itself."""
        return self._info

    def read(self, box: Box, grid: PixelGrid) -> ByteArray:
        """Pixels of ``box`` (grid pixels): (height, width, 3) uint8 RGB, white outside."""
        return read_grid(self._read_level, self._info, box, grid)

    def close(self) -> None:
        """Nothing to release."""

    def _read_level(self, level: int, box: Box) -> ByteArray:
        pixels = self._levels[level]
        inside = box.clipped(Box(0, 0, pixels.shape[1], pixels.shape[0]))
        cut = pixels[inside.top : inside.bottom, inside.left : inside.right]
        if inside == box:
            return np.ascontiguousarray(cut)
        rgb = np.full((box.height, box.width, 3), 255, np.uint8)
        top, left = inside.top - box.top, inside.left - box.left
        rgb[top : top + inside.height, left : left + inside.width] = cut
        return rgb


def open_array(
    levels: Sequence[ByteArray], mpp: float, slide_id: str = "array", bounds_px: Box | None = None
) -> ArrayReader:
    """A reader of (height, width, 3) uint8 arrays, the largest first, at ``mpp`` um per pixel."""
    height, width = levels[0].shape[:2]
    whole = Box(0, 0, width, height)
    info = SlideInfo(
        path=Path(slide_id),
        slide_id=slide_id,
        mpp=mpp,
        width_px=width,
        height_px=height,
        bounds_px=whole if bounds_px is None else bounds_px.clipped(whole),
        level_downsamples=tuple(_downsample(levels[0], level) for level in levels),
        vendor="array",
        content_key=hashlib.sha256(np.ascontiguousarray(levels[0]).data).hexdigest(),
    )
    return ArrayReader(levels, info)


def _downsample(base: ByteArray, level: ByteArray) -> float:
    """As OpenSlide computes it: the mean of both directions."""
    (height, width), (low_height, low_width) = base.shape[:2], level.shape[:2]
    return float(height / low_height + width / low_width) / 2
