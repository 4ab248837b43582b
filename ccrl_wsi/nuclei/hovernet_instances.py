"""From a HoVer-Net's maps to nuclei.

The steps and constants are those of ``HoVerNet.postproc`` in TIAToolbox (Graham et al. 2019,
section 3.2), with which single tiles agree. Two things differ. The reference scales the gradient
of the maps by its smallest and largest value *in the tile*, so that a nucleus may be split in one
tile and not in another; here the range is fixed. And the cost grows with pixels plus nuclei, not
with their product.
"""

from __future__ import annotations

import cv2
import numpy as np
from skimage.segmentation import watershed

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray

GRADIENT_RANGE = (-0.24, 0.17)
"""Change of hv per pixel that counts as 0 and as 1 on the reference's scale.

Theory: the 21-tap Sobel kernel differentiates a Gaussian blur of sigma sqrt(20) / 2 = 2.24 px.
Where two nuclei touch, hv falls from 1 to -1: -2 / (2.24 sqrt(2 pi)) = -0.36 for ideal maps, plus
the slope of the nuclei themselves (2 / width: 0.1 at 20 px). Inside the smallest nuclei (8 px) the
slope is 0.25 before blurring. Measured on soft maps of CoNSeP's nuclei, 256 to 1000 px, medians:
lowest -0.15 to -0.24, highest 0.12 to 0.18. What splits nuclei is where the two meet the limit
below, 0.4 * low + 0.6 * high = 0.006 per pixel: where hv stops rising. Between 0 and 0.01 the
agreement with the reference on 1000-px tiles is flat (89-95 % of nuclei at IoU >= 0.99, 98-99 % at
0.5), since the reference agrees no better with itself from tile to tile (87-94 %).
"""

_KERNEL_PX = 21
# Sum of the kernel's positive half: the response in units of hv per pixel.
_KERNEL_GAIN = 2.0 ** (2 * (_KERNEL_PX - 2) + 1)
_IS_NUCLEUS = 0.5
_IS_BOUNDARY = 0.4
_SPECK_PX = 9
# A larger hole may reach beyond what one tile sees.
_HOLE_PX = 1024
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_ROUND = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


def extract_instances(
    nucleus_probability: FloatArray,
    hv: FloatArray,
    *,
    gradient_range: tuple[float, float] | None = GRADIENT_RANGE,
) -> IntArray:
    """Nuclei of one image: (height, width) int32, 0 is background, nuclei are 1..n.

    Parameters
    ----------
    nucleus_probability
        (height, width) float32 in 0..1.
    hv
        (height, width, 2) float32, horizontal then vertical.
    gradient_range
        Slopes of hv per pixel that are 0 and 1 on the scale of the boundary's limit; ``None``
        takes the image's own lowest and highest, as the reference does.
    """
    blobs, boxes = _find_blobs(nucleus_probability)
    if len(boxes) == 1:
        return blobs
    rise = _relative_rise(hv, gradient_range)
    rise[blobs == 0] = 0
    largest_hole = None if gradient_range is None else _HOLE_PX
    markers = _find_markers(rise, blobs > 0, largest_hole)
    return _flood(rise, blobs, boxes, markers)


def assign_types(labels: IntArray, type_map: ByteArray) -> tuple[IntArray, FloatArray]:
    """Type of each nucleus and the share of its pixels that agree.

    The most frequent type wins, the lower number where two are equal; background (0) only where
    a nucleus has nothing else.

    Parameters
    ----------
    labels
        (height, width) with nuclei 1..n.
    type_map
        (height, width) uint8: the most likely type of each pixel.

    Returns
    -------
    types (n,) int16, share (n,) float32 in 0..1.
    """
    n = int(labels.max(initial=0))
    n_types = int(type_map.max(initial=0)) + 1
    pixels = np.flatnonzero(labels)
    pairs = (labels.ravel()[pixels] - 1) * np.int64(n_types) + type_map.ravel()[pixels]
    votes = np.bincount(pairs, minlength=n * n_types).reshape(n, n_types)
    foreground = votes.copy()
    foreground[:, 0] = 0
    types = foreground.argmax(axis=1)
    share = votes[np.arange(n), types] / np.maximum(votes.sum(axis=1), 1)
    return types.astype(np.int16), share.astype(np.float32)


def mean_probability(labels: IntArray, nucleus_probability: FloatArray) -> FloatArray:
    """Mean of ``nucleus_probability`` over each nucleus 1..n of ``labels``: (n,) float32."""
    n = int(labels.max(initial=0))
    pixels = np.flatnonzero(labels)
    of_pixel = labels.ravel()[pixels]
    total = np.bincount(of_pixel, nucleus_probability.ravel()[pixels], minlength=n + 1)[1:]
    count = np.bincount(of_pixel, minlength=n + 1)[1:]
    mean: FloatArray = (total / np.maximum(count, 1)).astype(np.float32)
    return mean


def _find_blobs(probability: FloatArray) -> tuple[IntArray, IntArray]:
    """Connected nucleus pixels without specks: labels, and cv2's statistics of each label."""
    inside = (probability >= _IS_NUCLEUS).view(np.uint8)
    _, blobs, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] > _SPECK_PX
    keep[0] = True
    if keep.all():
        return blobs, stats
    number = np.where(keep, np.cumsum(keep) - 1, 0).astype(np.int32)
    return np.take(number, blobs), stats[keep]


def _relative_rise(hv: FloatArray, gradient_range: tuple[float, float] | None) -> FloatArray:
    """The smaller of the two slopes of hv, on the scale of ``gradient_range``: (h, w) float32."""
    rises = []
    for axis in (0, 1):
        slope = cv2.Sobel(
            cv2.extractChannel(hv, axis),
            cv2.CV_32F,
            1 - axis,
            axis,
            ksize=_KERNEL_PX,
            scale=1 / _KERNEL_GAIN,
        )
        low, high = gradient_range or cv2.minMaxLoc(slope)[:2]
        gain = 1 / (high - low) if high > low else 0.0
        slope *= np.float32(gain)
        slope -= np.float32(low * gain)
        rises.append(slope)
    smaller: FloatArray = cv2.min(*rises)
    return smaller


def _find_markers(rise: FloatArray, inside: BoolArray, largest_hole: int | None) -> IntArray:
    """One mark in the middle of each nucleus: (h, w) int32, 0 elsewhere, not consecutive."""
    core = ((np.float32(1) - rise < _IS_BOUNDARY) & inside).view(np.uint8)
    _fill_holes(core, largest_hole)
    core = cv2.morphologyEx(core, cv2.MORPH_OPEN, _ROUND)
    markers: IntArray = cv2.connectedComponents(core, connectivity=4)[1]
    pixels = np.flatnonzero(core)
    area = np.bincount(markers.ravel()[pixels])
    is_speck = area <= _SPECK_PX
    specks = pixels[is_speck[markers.ravel()[pixels]]]
    markers.ravel()[specks] = 0
    return markers


def _fill_holes(mask: ByteArray, largest: int | None) -> None:
    """Set the pixels of ``mask`` that its ones enclose, in holes up to ``largest`` pixels."""
    n, outside = cv2.connectedComponents(1 - mask, connectivity=4)
    edges = (outside[0], outside[-1], outside[:, 0], outside[:, -1])
    is_hole = np.ones(n, np.uint8)
    is_hole[0] = 0
    is_hole[np.concatenate(edges)] = 0
    pixels = np.flatnonzero(np.take(is_hole, outside).view(np.bool_))
    if largest is not None:
        of_pixel = outside.ravel()[pixels]
        pixels = pixels[np.bincount(of_pixel, minlength=n)[of_pixel] <= largest]
    mask.ravel()[pixels] = 1


def _flood(rise: FloatArray, blobs: IntArray, boxes: IntArray, markers: IntArray) -> IntArray:
    """Give each pixel of each blob to one of the blob's markers; blobs without marker vanish."""
    pixels = np.flatnonzero((markers > 0) & (blobs > 0))
    blob, marker = blobs.ravel()[pixels], markers.ravel()[pixels]
    is_present = np.zeros(int(markers.max(initial=0)) + 1, np.bool_)
    is_present[marker] = True
    marker = np.cumsum(is_present, dtype=np.int32)[marker]
    owner = np.zeros(len(boxes), np.int32)
    owner[blob] = marker
    # A blob with one marker is the marker's as a whole: only the others need flooding.
    is_shared = np.zeros(len(boxes), np.bool_)
    is_shared[blob[marker != owner[blob]]] = True
    owner[is_shared] = 0
    labels = np.take(owner, blobs)
    shared = is_shared[blob]
    labels.ravel()[pixels[shared]] = marker[shared]
    height = -cv2.GaussianBlur(rise, (3, 3), 0)
    _flood_shared(height, blobs, np.flatnonzero(is_shared), boxes, labels)
    return labels


def _flood_shared(
    height: FloatArray, blobs: IntArray, shared: IntArray, boxes: IntArray, labels: IntArray
) -> None:
    """Flood the blobs ``shared``, laid out on one sheet, from the markers in ``labels``."""
    if len(shared) == 0:
        return
    places = _lay_out(boxes[shared, cv2.CC_STAT_WIDTH], boxes[shared, cv2.CC_STAT_HEIGHT])
    size = tuple(places[:, 2:].max(axis=0))
    heights, marks = np.zeros(size, np.float64), np.zeros(size, np.int32)
    inside = np.zeros(size, np.bool_)
    windows = []
    for number, (top, left, bottom, right) in zip(shared.tolist(), places.tolist(), strict=True):
        x, y = boxes[number, :2].tolist()
        here = np.s_[y : y + bottom - top, x : x + right - left]
        there = np.s_[top:bottom, left:right]
        inside[there] = blobs[here] == number
        heights[there] = height[here]
        np.copyto(marks[there], labels[here], where=inside[there])
        windows.append((here, there))
    # What lies inside a marker floods nothing.
    inside &= cv2.erode((marks > 0).view(np.uint8), _CROSS) == 0
    flooded = watershed(heights, marks, mask=inside)
    for here, there in windows:
        np.copyto(labels[here], flooded[there], where=inside[there])


def _lay_out(width: IntArray, height: IntArray) -> IntArray:
    """Places (n, 4) top, left, bottom, right of n boxes, a pixel apart, in rows on a sheet."""
    side = max(int(width.max()), int(np.sqrt((width * height).sum(dtype=np.float64))))
    places = np.empty((len(width), 4), np.int64)
    top = left = tallest = 0
    for i in np.argsort(-height, kind="stable").tolist():
        w, h = int(width[i]), int(height[i])
        if left + w > side:
            top, left, tallest = top + tallest + 1, 0, 0
        places[i] = top, left, top + h, left + w
        left, tallest = left + w + 1, max(tallest, h)
    return places
