"""The maps a HoVer-Net would predict, made from known nuclei.

Tests, benchmarks and the constants of :mod:`ccrl_wsi.nuclei.hovernet_instances` stand on them.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage

from ccrl_wsi.arrays import FloatArray, IntArray


class HoVerMaps(NamedTuple):
    """What the network says of each pixel.

    Parameters
    ----------
    probability
        (height, width) float32 in 0..1: the pixel belongs to a nucleus.
    hv
        (height, width, 2) float32 in about -1..1: where in its nucleus the pixel lies, from
        left (-1) to right (1) and from top to bottom.
    """

    probability: FloatArray
    hv: FloatArray


def scatter_nuclei(side_px: int, n: int, rng: np.random.Generator) -> IntArray:
    """Draw ``n`` ellipses of 8 to 28 px, some overlapped by others: (side, side) int32 labels."""
    labels = np.zeros((side_px, side_px), np.int32)
    centres = rng.integers(0, side_px, (n, 2)).tolist()
    axes = rng.integers(4, 15, (n, 2)).tolist()
    angles = rng.integers(0, 180, n).tolist()
    for number, (centre, axis, angle) in enumerate(zip(centres, axes, angles, strict=True), 1):
        cv2.ellipse(labels, centre, axis, angle, 0, 360, number, cv2.FILLED)
    return labels


def ideal_maps(labels: IntArray) -> HoVerMaps:
    """What the network is trained to say of nuclei ``labels`` (height, width)."""
    hv = np.zeros((*labels.shape, 2), np.float32)
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is not None:
            inside = labels[window] == number
            hv[window][inside] = _positions(inside)
    return HoVerMaps((labels > 0).astype(np.float32), hv)


def imitate_network(
    labels: IntArray, rng: np.random.Generator, *, blur_px: float = 1.2, noise: float = 0.06
) -> HoVerMaps:
    """Ideal maps made as soft and as uncertain as a network's.

    ``blur_px`` is the sigma of the blur; ``noise`` the standard deviation, on the scale of hv, of
    errors that are smooth over a few pixels, as those of a decoder are.
    """
    ideal = ideal_maps(labels)
    hv = cv2.GaussianBlur(ideal.hv, (0, 0), blur_px)
    hv = 0.95 * hv + noise * smooth_noise((*labels.shape, 2), rng)
    soft = cv2.GaussianBlur(ideal.probability, (0, 0), blur_px)
    logit = 9 * (soft - 0.5) + 12 * noise * smooth_noise(labels.shape, rng)
    return HoVerMaps((1 / (1 + np.exp(-logit))).astype(np.float32), hv.astype(np.float32))


def smooth_noise(
    shape: tuple[int, ...], rng: np.random.Generator, *, sigma_px: float = 3.0
) -> FloatArray:
    """Noise of unit variance whose neighbouring pixels agree: ``shape`` float32."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), sigma_px)
    unit: FloatArray = noise / noise.std()
    return unit


def _positions(inside: np.ndarray) -> FloatArray:
    """Position (m, 2) of each pixel of one nucleus, both sides of its centre stretched to 1."""
    rows, columns = np.nonzero(inside)
    xy = np.stack([columns - columns.mean(), rows - rows.mean()], axis=1)
    reach = np.where(xy < 0, -xy.min(axis=0), xy.max(axis=0))
    scaled: FloatArray = xy / np.maximum(reach, 1e-6)
    return scaled
