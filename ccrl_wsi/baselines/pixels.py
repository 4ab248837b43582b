"""Pixels as they are: the first principal components of the crops. A floor for trained encoders."""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.linalg import eigh, svd
from threadpoolctl import threadpool_limits

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.errors import EvaluationError

N_COMPONENTS = 64
CHUNK = 4096
"""Crops taken at once; bounds memory."""


class PixelComponents:
    """Projection of crops, scaled to 0..1 and centred, on fixed directions; not whitened.

    Parameters
    ----------
    mean
        (p,) mean of every pixel and channel.
    components
        (n_components, p) orthonormal directions.
    shape
        (side, side, channels) of a crop; p is their product.
    """

    name = "pixels"
    standardise = False

    def __init__(
        self, mean: FloatArray, components: FloatArray, shape: tuple[int, int, int]
    ) -> None:
        self._mean = mean.astype(np.float32)
        self._components, self._shape = components.astype(np.float32), shape

    @property
    def directions(self) -> tuple[FloatArray, FloatArray]:
        """(p,) mean and (n_components, p) components, float32."""
        return self._mean, self._components

    @property
    def n_dimensions(self) -> int:
        """Number of components."""
        return len(self._components)

    @property
    def fingerprint(self) -> str:
        """Changes with mean and directions."""
        digest = hashlib.sha256(self._mean.tobytes() + self._components.tobytes())
        return digest.hexdigest()[:16]

    def __call__(self, crops: ByteArray, measurements: FloatArray) -> FloatArray:
        """Embeddings (n, d) float32 of ``crops`` (n, side, side, channels) uint8.

        Raises
        ------
        ValueError
            If the crops are of another shape than those the components were found on.
        """
        if crops.shape[1:] != self._shape:
            raise ValueError(f"crops of {crops.shape[1:]} px instead of {self._shape}")
        vectors = np.empty((len(crops), self.n_dimensions), np.float32)
        with threadpool_limits(1, user_api="blas"):
            for start in range(0, len(crops), CHUNK):
                part = _flat(crops[start : start + CHUNK]) - self._mean
                vectors[start : start + CHUNK] = part @ self._components.T
        return vectors


class PixelBaseline:
    """Principal components of whatever crops it is fitted on."""

    def __init__(self, n_components: int = N_COMPONENTS) -> None:
        self.n_components = n_components

    def fit(self, crops: CropSet) -> PixelComponents:
        """The directions of greatest variance of ``crops``; fewer if there are fewer crops.

        Raises
        ------
        EvaluationError
            If there are no crops.
        """
        if not len(crops):
            raise EvaluationError("There are no crops to find principal components of.")
        pixels = crops.crops
        n, p = len(pixels), int(np.prod(pixels.shape[1:]))
        mean = pixels.reshape(n, p).sum(axis=0, dtype=np.int64) / (255 * n)
        components = _leading_directions(pixels, mean, min(self.n_components, n, p))
        side, _, channels = pixels.shape[1:]
        return PixelComponents(mean, components, (side, side, channels))


def _leading_directions(pixels: ByteArray, mean: FloatArray, n_components: int) -> FloatArray:
    """Orthonormal (n_components, p), greatest variance first; the largest entry is positive."""
    n, p = len(pixels), len(mean)
    centre = mean.astype(np.float32)
    with threadpool_limits(1, user_api="blas"):
        if n < p:  # the same directions from a smaller matrix
            _, _, found = svd(_flat(pixels) - centre, full_matrices=False)
            directions: FloatArray = found[:n_components].astype(np.float64)
        else:
            scatter = np.zeros((p, p))
            for start in range(0, n, CHUNK):
                part = _flat(pixels[start : start + CHUNK]) - centre
                scatter += part.T @ part
            _, found = eigh(scatter, subset_by_index=(p - n_components, p - 1))
            directions = found.T[::-1]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    turned: FloatArray = directions * np.where(largest < 0, -1.0, 1.0)
    return turned


def _flat(crops: ByteArray) -> FloatArray:
    return crops.reshape(len(crops), -1).astype(np.float32) / np.float32(255)
