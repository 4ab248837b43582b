"""Windows of one size around cells of a culture: no resizing, as the cell's size is a phenotype."""

from __future__ import annotations

import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray


def cut_fixed(
    image: ByteArray, centres_px: FloatArray, size_px: int
) -> tuple[ByteArray, BoolArray]:
    """Crops around ``centres_px`` (n, 2) x, y of ``image`` (h, w, channels) uint8.

    A window that reaches over the edge is left out: half a cell is no phenotype.

    Returns
    -------
    crops, is_whole
        (m, size_px, size_px, channels) uint8, and which m of the n centres they belong to.
    """
    height, width, n_channels = image.shape
    corner = np.rint(centres_px).astype(np.int64) - size_px // 2
    left, top = corner.reshape(-1, 2).T
    is_whole: BoolArray = (
        (left >= 0) & (top >= 0) & (left + size_px <= width) & (top + size_px <= height)
    )
    crops = np.empty((int(is_whole.sum()), size_px, size_px, n_channels), np.uint8)
    for i, (x, y) in enumerate(zip(left[is_whole], top[is_whole], strict=True)):
        crops[i] = image[y : y + size_px, x : x + size_px]
    return crops, is_whole
