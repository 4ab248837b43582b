"""From nucleus pixels and one mark in each nucleus to nuclei.

The cost grows with pixels plus nuclei, not with their product.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.segmentation import watershed

from ccrl_wsi.arrays import AnyArray, ByteArray, FloatArray, IntArray

IS_NUCLEUS = 0.5
SPECK_PX = 9
# Short queues stay in the cache: fewer at once cost calls, more cost time per pixel.
_FLOODED_AT_ONCE = 16
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True, eq=False, slots=True)
class Blobs:
    """Connected nucleus pixels without specks.

    Parameters
    ----------
    inside
        (h, w) uint8, 1 in blobs.
    pixels, number
        (p,) flat positions of all pixels of blobs, ascending, and the number of their blob. Few
        pixels are nuclei: going through these costs less than going through the image.
    n
        Numbers are 1..n, though not all of them are in use.
    """

    inside: ByteArray
    pixels: IntArray
    number: IntArray
    n: int

    def spread(self, values: AnyArray) -> AnyArray:
        """An image (h, w) with ``values`` (p,) at ``pixels`` and 0 elsewhere."""
        image = np.zeros(self.inside.shape, values.dtype)
        image.ravel()[self.pixels] = values
        return image


def find_blobs(probability: FloatArray) -> Blobs:
    """The 4-connected pieces of the pixels of ``probability`` (h, w) of 0.5 or more."""
    inside = (probability >= IS_NUCLEUS).view(np.uint8)
    n, blobs = cv2.connectedComponents(inside, connectivity=4)
    pixels = np.flatnonzero(inside.view(np.bool_))  # four times as fast as of bytes
    number = blobs.ravel()[pixels]
    is_speck = (np.bincount(number, minlength=n) <= SPECK_PX)[number]
    inside.ravel()[pixels[is_speck]] = 0
    return Blobs(inside, pixels[~is_speck], number[~is_speck], n - 1)


def flood(rise: FloatArray, blobs: Blobs, markers: IntArray) -> IntArray:
    """Give each pixel of each blob to one of the blob's markers; blobs without marker vanish.

    Parameters
    ----------
    rise
        (h, w) float32, high in the middle of nuclei, low between them.
    markers
        (h, w) int32, a number a marker, 0 elsewhere.

    Returns
    -------
    (h, w) int32: 0 is background, nuclei are 1..n.
    """
    marker = markers.ravel()[blobs.pixels]
    marked = np.flatnonzero(marker)
    is_present = np.zeros(int(markers.max(initial=0)) + 1, np.bool_)
    is_present[marker[marked]] = True
    label = np.cumsum(is_present, dtype=np.int32)
    blob, mark = blobs.number[marked], label[marker[marked]]
    owner = np.zeros(blobs.n + 1, np.int32)
    owner[blob] = mark
    # A blob with one marker is the marker's as a whole: only the others need flooding.
    is_shared = np.zeros(blobs.n + 1, np.bool_)
    is_shared[blob[mark != owner[blob]]] = True
    owner[is_shared] = 0
    labels = np.zeros(rise.shape, np.int32)
    labels.ravel()[blobs.pixels] = owner[blobs.number]
    of_shared = is_shared[blob]
    labels.ravel()[blobs.pixels[marked[of_shared]]] = mark[of_shared]
    contested = np.flatnonzero(is_shared[blobs.number])
    smooth = cv2.GaussianBlur(rise, (3, 3), 0)
    _flood_shared(smooth, labels, blobs.pixels[contested], blobs.number[contested])
    return labels


def _flood_shared(rise: FloatArray, labels: IntArray, pixels: IntArray, number: IntArray) -> None:
    """Flood the blobs of ``pixels`` (flat), numbered ``number``, from the marks in ``labels``."""
    if len(pixels) == 0:
        return
    number = number.astype(np.min_scalar_type(int(number.max(initial=0))))
    order = np.argsort(number, kind="stable")  # of 16 bits in linear time
    pixels, number = pixels[order], number[order]
    edges = np.flatnonzero(number[1:] != number[:-1]) + 1
    start = np.concatenate([[0], edges, [len(number)]])
    for first in range(0, len(start) - 1, _FLOODED_AT_ONCE):
        of_some = start[first : first + _FLOODED_AT_ONCE + 1]
        _flood_sheet(rise, labels, pixels[of_some[0] : of_some[-1]], of_some - of_some[0])


def _flood_sheet(rise: FloatArray, labels: IntArray, pixels: IntArray, start: IntArray) -> None:
    """Flood blobs laid side by side; the pixels of blob i are those from ``start[i]`` on."""
    rows, columns = np.divmod(pixels, labels.shape[1])
    begin, count = start[:-1], np.diff(start)
    left, right = (limit.reduceat(columns, begin) for limit in (np.minimum, np.maximum))
    width = right - left + 2  # with a gap
    end = np.cumsum(width)
    rows -= np.repeat(rows[begin], count)
    columns += np.repeat(end - width - left, count)
    size = int(rows.max()) + 1, int(end[-1])
    places = rows * size[1] + columns
    heights, marks = np.zeros(size, np.float64), np.zeros(size, np.int32)
    before = labels.ravel()[pixels]
    heights.ravel()[places] = -rise.ravel()[pixels]
    marks.ravel()[places] = before
    # What lies inside a marker floods nothing.
    is_active = cv2.erode((marks > 0).view(np.uint8), _CROSS).ravel()[places] == 0
    inside = np.zeros(size, np.bool_)
    inside.ravel()[places] = is_active
    flooded = watershed(heights, marks, mask=inside).ravel()[places]
    labels.ravel()[pixels] = np.where(is_active, flooded, before)
