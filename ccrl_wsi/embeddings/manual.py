"""The paper's manual features: SIFT and local binary patterns, after Hu et al. (2018).

The CCRL paper and its source say "SIFT and LBP" and no more. Chosen here: one SIFT descriptor
(Lowe, IJCV 60 (2004) 91; 128 numbers) at the centre of the grey crop, upright, its grid of 4 x 4
cells as wide as the crop; and the histogram of uniform patterns that are not turned round (8
neighbours at 1 px; 59 bins; Ojala et al., IEEE PAMI 24 (2002) 971), of the pixels that have all
neighbours: the outermost are not counted. Each block has unit length, so both weigh the same; a
crop without any edge has a SIFT block of zeros.
"""

from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray

N_SIFT, N_PATTERNS = 128, 59
N_NEIGHBOURS, RADIUS_PX = 8, 1
SIFT_WIDTHS = 6.0
"""OpenCV's descriptor is 4 cells of 3 sigma wide, and a keypoint's size is 2 sigma."""


class Manual:
    """SIFT of the whole crop and its local binary patterns, side by side: (n, 187)."""

    @property
    def name(self) -> str:
        """As it is chosen and recorded."""
        return "manual"

    @property
    def n_dimensions(self) -> int:
        """128 of SIFT, 59 of patterns."""
        return N_SIFT + N_PATTERNS

    @property
    def fingerprint(self) -> str:
        """Changes with the definition."""
        text = json.dumps(["sift", N_SIFT, SIFT_WIDTHS, "lbp", N_NEIGHBOURS, RADIUS_PX, "inner"])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def standardise(self) -> bool:
        """No: both blocks have unit length."""
        return False

    def __call__(self, crops: ByteArray, measurements: FloatArray) -> FloatArray:
        """Embeddings (n, 187) float32; measurements are not looked at."""
        vectors = np.zeros((len(crops), self.n_dimensions), np.float32)
        if not len(crops):
            return vectors
        sift = cv2.SIFT.create()
        for row, crop in enumerate(crops):
            grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
            vectors[row, :N_SIFT] = sift_of(grey, sift)
            vectors[row, N_SIFT:] = _unit(patterns_of(grey))
        return vectors


def sift_of(grey: ByteArray, sift: cv2.SIFT) -> FloatArray:
    """The descriptor (128,) of unit length of a square image; zeros where nothing has an edge."""
    side = len(grey)
    middle = (side - 1) / 2
    keypoint = cv2.KeyPoint(x=middle, y=middle, size=side / SIFT_WIDTHS, angle=0)
    _, found = sift.compute(grey, [keypoint])
    return _unit(found[0].astype(np.float32))


def patterns_of(grey: ByteArray) -> FloatArray:
    """Histogram (59,) of the uniform patterns of an image, its edge left out; sums to 1."""
    from skimage.feature import local_binary_pattern  # half a second that other encoders save

    pattern = local_binary_pattern(grey, N_NEIGHBOURS, RADIUS_PX, "nri_uniform").astype(np.int64)
    inner = pattern[RADIUS_PX:-RADIUS_PX, RADIUS_PX:-RADIUS_PX]  # scikit-image sees zeros outside
    counts = np.bincount(inner.ravel(), minlength=N_PATTERNS)
    shares: FloatArray = (counts / counts.sum()).astype(np.float32)
    return shares


def _unit(values: FloatArray) -> FloatArray:
    length = float(np.linalg.norm(values))
    return values / length if length else values
