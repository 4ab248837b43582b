"""Even light over a plate's fields, and 16 bits brought to 8 by what the plate shows.

As Singh, Bray, Jones and Carpenter 2014 (J. Microsc. 256:231) and DeepProfiler do it: the mean of
all fields of a plate, made small and median-filtered, is the light's shape, for each channel;
fields are divided by it. Then each channel's darkest and brightest thousandth on the plate become 0
and 255.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import median_filter

from ccrl_wsi.arrays import AnyArray, ByteArray, FloatArray

SMALLER = 4
MEDIAN_PX = 24
"""Side of the median filter, in pixels of the smaller image; at most half of that."""
DARKEST_PERCENTILE = 2
"""Of the light's shape, which counts as 1: robust against dark corners."""
SAMPLED_EVERY = 4
"""Of the smaller image's pixels, for the plate's range."""
RANGE_PERCENTILES = (0.1, 99.9)


@dataclass(frozen=True, eq=False, slots=True)
class PlateLight:
    """How fields (h, w, channels) of one plate become bytes.

    Parameters
    ----------
    shape
        (h, w, channels) float32 the light's shape, about 1 where it is weakest.
    low, high
        (channels,) values of corrected pixels that become 0 and 255.
    """

    shape: FloatArray
    low: FloatArray
    high: FloatArray

    def corrected(self, field: AnyArray) -> ByteArray:
        """The ``field`` (h, w, channels) in even light, as bytes."""
        even = field.astype(np.float32) / self.shape
        scaled = (even - self.low) * (255 / np.maximum(self.high - self.low, 1e-6))
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


class PlateLightEstimate:
    """Takes a plate's fields one after the other; keeps a sum and a sample, not the fields.

    Parameters
    ----------
    even
        False: the light is taken as even, and only the range is found.
    """

    def __init__(self, *, even: bool = True) -> None:
        self._even = even
        self._sum: FloatArray | None = None
        self._samples: list[FloatArray] = []
        self.field_shape: tuple[int, ...] | None = None

    def add(self, field: AnyArray) -> None:
        """Count a field (h, w, channels).

        Raises
        ------
        ValueError
            If its shape is not that of the fields before.
        """
        if self.field_shape not in (None, field.shape):
            raise ValueError(f"is {field.shape}, others of its plate are {self.field_shape}")
        self.field_shape = field.shape
        small = _smaller(field)
        self._sum = small if self._sum is None else self._sum + small
        self._samples.append(small[::SAMPLED_EVERY, ::SAMPLED_EVERY])

    def light(self) -> PlateLight:
        """What the fields so far tell.

        Raises
        ------
        ValueError
            If there was none.
        """
        if self._sum is None or self.field_shape is None:
            raise ValueError("there is no field to learn the light from")
        shape = np.ones_like(self._sum)
        if self._even:
            for channel in range(shape.shape[2]):
                shape[..., channel] = _shape_of_light(self._sum[..., channel])
        sampled = np.stack(self._samples) / shape[::SAMPLED_EVERY, ::SAMPLED_EVERY]
        low, high = np.percentile(sampled, RANGE_PERCENTILES, axis=(0, 1, 2)).astype(np.float32)
        height, width = self.field_shape[:2]
        large = cv2.resize(shape, (width, height), interpolation=cv2.INTER_LINEAR)
        return PlateLight(large.reshape(self.field_shape).astype(np.float32), low, high)


def _smaller(field: AnyArray) -> FloatArray:
    height, width, n_channels = field.shape
    size = (max(1, width // SMALLER), max(1, height // SMALLER))
    small = cv2.resize(field.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    kept: FloatArray = small.reshape(size[1], size[0], n_channels)
    return kept


def _shape_of_light(total: FloatArray) -> FloatArray:
    side = min(MEDIAN_PX, max(3, min(total.shape) // 2))
    smooth = median_filter(total, size=side, mode="nearest")
    darkest = np.percentile(smooth, DARKEST_PERCENTILE)
    shape: FloatArray = (
        np.maximum(smooth / max(darkest, 1e-6), 1.0) if darkest > 0 else smooth * 0 + 1
    )
    return shape
