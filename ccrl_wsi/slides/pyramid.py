"""Writes an image as the kind of file scanners write: tiled, in levels, with its pixel size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import tifffile

from ccrl_wsi.arrays import ByteArray

UM_PER_CENTIMETRE = 10_000
SMALLEST_LEVEL_PX = 256


def write_pyramid(
    path: Path,
    rgb: ByteArray,
    mpp: float | None,
    *,
    tile_px: int = 256,
    levels: int | None = None,
    compression: Literal["deflate", "jpeg"] = "deflate",
) -> None:
    """Write a tiled pyramidal TIFF that OpenSlide opens as ``generic-tiff``.

    Parameters
    ----------
    path
        File to write, whole or not at all; an older one is replaced.
    rgb
        (height, width, 3) uint8: level 0.
    mpp
        Micrometres per pixel, stored as resolution; None writes none.
    tile_px
        Side of a stored tile, a multiple of 16.
    levels
        Number of levels, each half the size of the one before; None halves until the image fits
        into 256 px.
    compression
        ``deflate`` keeps every pixel; ``jpeg`` (quality 90) is what scanners do.
    """
    images = [np.ascontiguousarray(rgb)]
    wanted = levels or _levels_to_fit(rgb.shape)
    while len(images) < wanted:
        images.append(_halve(images[-1]))
    options: dict[str, Any] = {"tile": (tile_px, tile_px), "photometric": "rgb", "metadata": None}
    if compression == "jpeg":
        # OpenSlide wants YCbCr in a JPEG-compressed TIFF; tifffile converts.
        options |= {"compression": "jpeg", "compressionargs": {"level": 90}}
    else:
        options |= {"compression": "zlib", "predictor": True}
    temporary = path.with_name(f".{path.name}.tmp")
    with tifffile.TiffWriter(temporary, bigtiff=rgb.nbytes > 2**31) as file:
        for number, image in enumerate(images):
            scale = rgb.shape[1] / image.shape[1]
            file.write(image, **options, **_resolution(mpp, scale), subfiletype=int(number > 0))
    temporary.replace(path)


def _resolution(mpp: float | None, scale: float) -> dict[str, Any]:
    if mpp is None:
        return {}
    pixels_per_centimetre = UM_PER_CENTIMETRE / (mpp * scale)
    return {"resolution": (pixels_per_centimetre,) * 2, "resolutionunit": "CENTIMETER"}


def _levels_to_fit(shape: tuple[int, ...]) -> int:
    longest, count = max(shape[:2]), 1
    while longest > SMALLEST_LEVEL_PX:
        longest, count = longest // 2, count + 1
    return count


def _halve(image: ByteArray) -> ByteArray:
    """Half the size, each pixel the mean of four; an odd last row or column is dropped."""
    height, width = max(1, image.shape[0] // 2), max(1, image.shape[1] // 2)
    even = image[: max(1, 2 * height), : max(1, 2 * width)]
    halved: ByteArray = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA).astype(
        np.uint8
    )
    return halved
