"""What a segmenter shall say of each pixel, made from nuclei that people drew.

Everything is a property of the nucleus alone and turns and grows with it: made once for an image,
it can be turned and resampled with the image on the device. HoVer-Net's distances (Graham et al.
2019) are stretched to the nucleus' upright box and could not.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray

FULL = 255
"""The byte that means 1."""


class Targets(NamedTuple):
    """Bytes, so that many images fit on the device.

    Parameters
    ----------
    inside
        (h, w) 255 in nuclei, else 0.
    depth
        (h, w) distance to the nucleus' own edge as a share of its greatest: 1 to 255; 0 outside.
    offset
        (h, w, 2) x and y from the nucleus' centroid as shares of its radius (the distance of its
        furthest pixel): 0 to 254, 127 is none; 127 outside.
    """

    inside: ByteArray
    depth: ByteArray
    offset: ByteArray


def make_targets(labels: IntArray) -> Targets:
    """Targets of nuclei ``labels`` (h, w), 0 being background; gaps in numbers are allowed."""
    row_of = _rows_of(labels)
    return Targets(
        inside=np.where(labels > 0, FULL, 0).astype(np.uint8),
        depth=_depths(labels, row_of),
        offset=_offsets(row_of),
    )


def without_specks(labels: IntArray, least_px: int) -> tuple[IntArray, int]:
    """``labels`` (h, w) without nuclei of fewer than ``least_px`` pixels, and how many those are.

    An image's edge cuts pieces off, and a slip of the pen leaves single pixels.
    """
    ids, n_pixels = np.unique(labels[labels > 0], return_counts=True)
    specks = ids[n_pixels < least_px]
    return np.where(np.isin(labels, specks), 0, labels).astype(np.int32), len(specks)


def _rows_of(labels: IntArray) -> IntArray:
    """0 for background, then 1.. for the numbers that occur."""
    values, rows = np.unique(labels, return_inverse=True)
    first = 0 if len(values) and values[0] == 0 else 1
    numbered: IntArray = rows.reshape(labels.shape) + first
    return numbered


def _depths(labels: IntArray, row_of: IntArray) -> ByteArray:
    """As of :class:`Targets`: the image's edge is no edge of a nucleus."""
    inner = (labels > 0) & ~_at_other_nucleus(labels)
    padded = cv2.copyMakeBorder(inner.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    # Pixels at another nucleus count as half a pixel from the edge, not as outside.
    distance = np.where(inner, distance, 0.5) * (labels > 0)
    n = int(row_of.max(initial=0))
    deepest = np.zeros(n + 1)
    deepest[1:] = ndimage.maximum(distance, row_of, np.arange(1, n + 1))
    share = distance / np.maximum(deepest, 0.5)[row_of]
    depth: ByteArray = np.ceil(share * FULL).astype(np.uint8)
    return depth


def _at_other_nucleus(labels: IntArray) -> BoolArray:
    """Pixels one of whose four neighbours belongs to another nucleus."""
    touches = np.zeros(labels.shape, np.bool_)
    for axis in (0, 1):
        first = np.take(labels, np.arange(labels.shape[axis] - 1), axis=axis)
        second = np.take(labels, np.arange(1, labels.shape[axis]), axis=axis)
        differs = (first != second) & (first > 0) & (second > 0)
        pad = [(0, 0), (0, 0)]
        for side in ((0, 1), (1, 0)):
            pad[axis] = side
            touches |= np.pad(differs, pad)
    return touches


def _offsets(row_of: IntArray) -> ByteArray:
    n = int(row_of.max(initial=0))
    rows, columns = np.nonzero(row_of)
    of = row_of[rows, columns]
    count = np.maximum(np.bincount(of, minlength=n + 1), 1)
    xy: FloatArray = np.stack([columns, rows], axis=1).astype(np.float64)
    centre = np.stack([np.bincount(of, v, minlength=n + 1) / count for v in xy.T], axis=1)
    xy -= centre[of]
    length = np.hypot(*xy.T)
    radius = np.ones(n + 1)
    np.maximum.at(radius, of, length)
    offset = np.full((*row_of.shape, 2), 127, np.uint8)
    offset[rows, columns] = np.rint(xy / radius[of, None] * 127 + 127).astype(np.uint8)
    return offset
