"""From the compact network's maps to nuclei.

Nothing is scaled by the image: a nucleus comes out the same in every tile that sees it whole.
"""

from __future__ import annotations

import cv2
import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray, IntArray
from ccrl_wsi.nuclei.flooding import Blobs, find_blobs, flood
from ccrl_wsi.nuclei.hovernet_instances import extract_instances

BLUR_PX = 2.0
"""Sigma of the blur on depths before middles are looked for."""

REACH_PX = 8
"""Two nuclei's middles are further apart."""

CORE_SHARE = 0.75
"""Of the greatest depth within reach, that the pixels of a middle have."""

LEAST_DEPTH = 0.3
"""What is shallower everywhere has no middle of its own."""


def find_nuclei(maps: FloatArray, separation: str) -> IntArray:
    """Nuclei of one image: (h, w) int32, 0 is background, nuclei are 1..n.

    Parameters
    ----------
    maps
        (h, w, m) float32: the probability of nucleus, then the maps that part nuclei.
    separation
        ``depth``: one more map, see :func:`instances_by_depth`; ``offset``: two more, which rise
        through a nucleus and fall between two, as HoVer-Net's do.
    """
    probability = np.ascontiguousarray(maps[..., 0])
    if separation == "offset":
        return extract_instances(probability, np.ascontiguousarray(maps[..., 1:]))
    return instances_by_depth(probability, np.ascontiguousarray(maps[..., 1]))


def instances_by_depth(probability: FloatArray, depth: FloatArray) -> IntArray:
    """Nuclei of one image: (h, w) int32, 0 is background, nuclei are 1..n.

    Nuclei begin in the middles of ``depth`` and are flooded up to where ``probability`` falls
    below a half.

    Parameters
    ----------
    probability
        (h, w) float32 in 0..1.
    depth
        (h, w) float32: distance to the nucleus' own edge as a share of its greatest.
    """
    smooth = cv2.GaussianBlur(depth, (0, 0), BLUR_PX, borderType=cv2.BORDER_REFLECT_101)
    return instances_by_smooth_depth(probability, smooth)


def instances_by_smooth_depth(probability: FloatArray, smooth: FloatArray) -> IntArray:
    """:func:`instances_by_depth`, where the depth (h, w) is blurred already."""
    blobs = find_blobs(probability)
    if len(blobs.pixels) == 0:
        return np.zeros(probability.shape, np.int32)
    smooth = cv2.copyTo(smooth, blobs.inside)
    markers = _middles(smooth, blobs.inside)
    _mark_the_unmarked(markers, blobs)
    return flood(smooth, blobs, markers)


def _middles(depth: FloatArray, inside: ByteArray) -> IntArray:
    """A mark in the middle of each nucleus: (h, w) int32, 0 elsewhere, not consecutive."""
    side = 2 * REACH_PX + 1
    highest = cv2.dilate(depth, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    is_core = (depth >= highest * np.float32(CORE_SHARE)) & (depth >= LEAST_DEPTH) & (inside > 0)
    markers: IntArray = cv2.connectedComponents(is_core.astype(np.uint8), connectivity=4)[1]
    return markers


def _mark_the_unmarked(markers: IntArray, blobs: Blobs) -> None:
    """Make a blob in which no middle was found one nucleus, in ``markers`` itself."""
    is_marked = np.zeros(blobs.n + 1, np.bool_)
    is_marked[blobs.number[markers.ravel()[blobs.pixels] > 0]] = True
    lonely = ~is_marked[blobs.number]
    first = int(markers.max(initial=0))
    markers.ravel()[blobs.pixels[lonely]] = first + blobs.number[lonely]
