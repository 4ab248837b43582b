"""Nuclei of cultured cells in a DNA stain: bright, round, on a dark ground.

Otsu's threshold on the smoothed image, and a watershed on distances from the edge that parts nuclei
that touch: what CellProfiler's ``IdentifyPrimaryObjects`` does, in plain form. For single-cell
crops, which need a centre and no exact outline.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from ccrl_wsi.arrays import AnyArray, FloatArray, IntArray

SMALLEST_SHARE = 0.2
"""Of the area of a typical nucleus: smaller ones are debris."""
NOISE_SPREADS = 5.0
"""A field whose threshold is nearer to its ground, in spreads of the ground, has no nuclei."""


def find_fluorescent_nuclei(dna: AnyArray, diameter_px: float) -> IntArray:
    """Labels (h, w) int32 of the nuclei of ``dna`` (h, w), 1 to n; 0 is background.

    Parameters
    ----------
    diameter_px
        Of a typical nucleus.
    """
    smooth = ndimage.gaussian_filter(dna.astype(np.float32), diameter_px / 12)
    labels = np.zeros(dna.shape, np.int32)
    if smooth.min() == smooth.max():
        return labels
    threshold = threshold_otsu(smooth)
    ground = smooth[smooth <= threshold]
    middle = np.median(ground)
    spread = 1.4826 * np.median(np.abs(ground - middle))
    if threshold - middle <= NOISE_SPREADS * spread:
        return labels
    mask = ndimage.binary_fill_holes(smooth > threshold)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), diameter_px / 12)
    peaks = peak_local_max(
        depth, min_distance=max(1, int(diameter_px / 3)), labels=mask.astype(np.int32)
    )
    markers = np.zeros(dna.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    found = watershed(-depth, markers, mask=mask)
    smallest = SMALLEST_SHARE * np.pi * diameter_px**2 / 4
    sizes = np.bincount(found.ravel())
    keep = sizes >= smallest
    keep[0] = False
    number = np.zeros(len(sizes), np.int32)
    number[keep] = np.arange(1, keep.sum() + 1)
    renumbered: IntArray = number[found]
    return renumbered


def centres_of(labels: IntArray) -> FloatArray:
    """Centroids (n, 2) x, y of the labels 1 to n, in pixels; the first pixel's middle is 0, 0."""
    n = int(labels.max(initial=0))
    if n == 0:
        return np.empty((0, 2))
    middles = ndimage.center_of_mass(labels > 0, labels, np.arange(1, n + 1))
    centres: FloatArray = np.array(middles)[:, ::-1]
    return centres
