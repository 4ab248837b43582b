"""The adaptive window: each nucleus in a square as large as the nucleus asks for.

The window is centred on the nucleus' bounding box, its side a multiple (2 on CoNSeP, 1 on
NuCLS) of the box's long side; it is then resized to one size for the network. The paper resizes
bicubically. Shrinking so would skip pixels and turn chromatin into false patterns, therefore
windows larger than the crop are averaged over areas; smaller ones are enlarged bicubically.

At an edge windows are neither shifted nor cut: they stay centred and square. Outside a slide is
white, like glass. Outside an image that was itself cut out of tissue, tissue went on: there the
image is mirrored. (White there makes a group of its own of the cells at the edges.)
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray, IntArray
from ccrl_wsi.geometry import Box

WHITE = 255


def crop_windows(boxes: IntArray, scale: float) -> IntArray:
    """Square windows (n, 4) int64 left, top, side, side around bounding boxes (n, 4).

    ``scale`` is the window's side over the box's long side. Windows may reach outside the image.
    Where the parities of side and box differ, the centre is half a pixel to the upper left.
    """
    long_side = boxes[:, 2:].max(axis=1, initial=1)
    # Rounded up, so that scale 1 holds the whole nucleus.
    side = np.maximum(np.ceil(scale * long_side - 1e-9), 1).astype(np.int64)
    corner = (2 * boxes[:, :2] + boxes[:, 2:] - side[:, None]) // 2
    return np.concatenate([corner, side[:, None], side[:, None]], axis=1).astype(np.int64)


def inside(windows: IntArray, box: Box) -> BoolArray:
    """Which windows (n, 4) lie wholly in ``box``, in the same frame: boolean (n,)."""
    left, top, width, height = windows.T
    within: BoolArray = (
        (left >= box.left)
        & (top >= box.top)
        & (left + width <= box.right)
        & (top + height <= box.bottom)
    )
    return within


def cut_crops(
    rgb: ByteArray, windows: IntArray, size_px: int, outside: Literal["white", "mirror"] = "white"
) -> ByteArray:
    """Crops (n, size_px, size_px, 3) uint8 of square windows (n, 4) in pixels of ``rgb``.

    What lies outside ``rgb`` (h, w, 3) uint8 is white, or its mirror image.
    """
    rgb = np.ascontiguousarray(rgb)  # OpenCV refuses views such as a channel flip
    crops = np.empty((len(windows), size_px, size_px, 3), np.uint8)
    h, w = rgb.shape[:2]
    image = Box(0, 0, w, h)
    is_inside = inside(windows, image)
    for i, (left, top, side, _) in enumerate(windows.tolist()):
        if is_inside[i]:
            pixels = rgb[top : top + side, left : left + side]
        elif outside == "mirror":
            pixels = rgb[np.ix_(*(_mirrored(a, side, n) for a, n in ((top, h), (left, w))))]
        else:
            pixels = _padded(rgb, Box(left, top, side, side).clipped(image), (left, top), side)
        method = cv2.INTER_AREA if side > size_px else cv2.INTER_CUBIC
        cv2.resize(pixels, (size_px, size_px), dst=crops[i], interpolation=method)
    return crops


def _padded(rgb: ByteArray, seen: Box, corner: tuple[int, int], side: int) -> ByteArray:
    """The window at ``corner`` with the pixels ``seen`` in their place, and white elsewhere."""
    window = np.full((side, side, 3), WHITE, np.uint8)
    left, top = seen.left - corner[0], seen.top - corner[1]
    window[top : top + seen.height, left : left + seen.width] = rgb[
        seen.top : seen.bottom, seen.left : seen.right
    ]
    return window


def _mirrored(start: int, side: int, n: int) -> IntArray:
    """The pixels 0..n - 1 that ``side`` pixels from ``start`` on are mirror images of."""
    period = max(2 * (n - 1), 1)  # the edge itself is not repeated
    place = np.abs(np.arange(start, start + side)) % period
    nearest: IntArray = np.minimum(place, period - place)
    return nearest
