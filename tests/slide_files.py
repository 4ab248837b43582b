"""Small slides with known pixels, in memory and as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile


def noise(height, width, seed=0):
    """Pixels that differ from all their neighbours: no shift or blur goes unseen."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def shrunk(rgb, factor):
    size = (-(-rgb.shape[1] // factor), -(-rgb.shape[0] // factor))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def write_tiff(path: Path, levels: Sequence[np.ndarray], mpp: float | tuple[float, float] | None):
    """A lossless tiled pyramid; ``mpp`` None leaves the pixel size out."""
    x, y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    resolution = None if mpp is None else (1e4 / x, 1e4 / y)
    unit = "NONE" if mpp is None else "CENTIMETER"
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            tiff.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(number > 0),
                resolution=resolution,
                resolutionunit=unit,
            )
    return path


def spoil_tile(path: Path, number: int) -> None:
    """Overwrite one tile of level 0, as a copy that was never finished."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, size = page.dataoffsets[number], page.databytecounts[number]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
