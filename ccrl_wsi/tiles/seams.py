"""The owner rule: a nucleus belongs to the one tile whose core holds its centroid.

Two tiles that see a nucleus must agree on its centroid to the last bit, or it is lost or found
twice on a seam. So the rule compares integers: with n pixels whose column indices sum to s, the
centroid of the pixels' centres is s/n + 1/2, and left <= s/n + 1/2 < right is the same as
2 n left <= 2 s + n < 2 n right.
"""

from __future__ import annotations

import numpy as np

from ccrl_wsi.arrays import BoolArray, FloatArray, IntArray
from ccrl_wsi.geometry import Box
from ccrl_wsi.records import Tile


def shift_sums(sums: IntArray, n_pixels: IntArray, read: Box) -> IntArray:
    """Coordinate sums (n, 2) of pixels in an image as sums in the grid the image was cut from.

    Parameters
    ----------
    sums
        (n, 2) int64 sums of column and row indices over the pixels of each nucleus.
    n_pixels
        (n,) number of those pixels.
    read
        Where the image lies in the grid.
    """
    corner = np.array([read.left, read.top], np.int64)
    shifted: IntArray = sums.astype(np.int64) + n_pixels.astype(np.int64)[:, None] * corner
    return shifted


def centroids(sums: IntArray, n_pixels: IntArray) -> FloatArray:
    """Centroids (n, 2) x, y in grid coordinates, pixel (0, 0) being [0, 1) x [0, 1)."""
    centres: FloatArray = sums / np.maximum(n_pixels, 1)[:, None] + 0.5
    return centres


def is_owned(sums: IntArray, n_pixels: IntArray, core: Box) -> BoolArray:
    """Which nuclei have their centroid in ``core``: boolean (n,).

    ``sums`` are in the grid (see :func:`shift_sums`).
    """
    n = n_pixels.astype(np.int64)
    x2, y2 = 2 * sums[:, 0] + n, 2 * sums[:, 1] + n
    inside: BoolArray = (
        (2 * n * core.left <= x2)
        & (x2 < 2 * n * core.right)
        & (2 * n * core.top <= y2)
        & (y2 < 2 * n * core.bottom)
    )
    return inside


def inner_sides(tile: Tile, extent: Box) -> tuple[bool, bool, bool, bool]:
    """Which sides of ``tile.read`` (left, top, right, bottom) lie inside the slide.

    A nucleus that touches such a side is cut off by the tile; one that touches the slide's own
    edge is merely at the edge.
    """
    read = tile.read
    return (
        read.left > extent.left,
        read.top > extent.top,
        read.right < extent.right,
        read.bottom < extent.bottom,
    )
