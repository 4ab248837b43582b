"""An image in windows of one size, for networks that give back less than they see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.errors import ConfigError

ON_GPU_PX, ON_CPU_PX = 2048, 1024
"""A tile of 2048 px with its halo takes 2 x 2 windows or 3 x 3, which see 12 % more pixels."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows that cover an image.

    Parameters
    ----------
    shape
        Height and width of the image.
    kept
        Height and width of what each window contributes.
    margin
        What a window sees beyond that on every side.
    """

    shape: tuple[int, int]
    kept: tuple[int, int]
    margin: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what each window sees."""
        return self.kept[0] + 2 * self.margin, self.kept[1] + 2 * self.margin

    @property
    def starts(self) -> list[tuple[int, int]]:
        """Row and column where each window's contribution begins."""
        rows, columns = (range(0, n, k) for n, k in zip(self.shape, self.kept, strict=True))
        return [(row, column) for row in rows for column in columns]

    def cut(self, rgb: ByteArray) -> Iterator[ByteArray]:
        """The windows of ``rgb``; beyond its edges the image is mirrored."""
        ends = [math.ceil(n / k) * k - n for n, k in zip(self.shape, self.kept, strict=True)]
        m = self.margin
        padded = cv2.copyMakeBorder(rgb, m, m + ends[0], m, m + ends[1], cv2.BORDER_REFLECT_101)
        height, width = self.size
        for row, column in self.starts:
            yield padded[row : row + height, column : column + width]

    def blank(self, batch: np.ndarray) -> np.ndarray:
        """An empty map of the image for contributions such as those of ``batch`` (n, h, w, ...)."""
        return np.empty((*self.shape, *batch.shape[3:]), batch.dtype)

    def place_of(self, number: int) -> tuple[slice, slice]:
        """Rows and columns of the image that window ``number`` contributes."""
        row, column = self.starts[number]
        (height, width), (kept_height, kept_width) = self.shape, self.kept
        return (
            slice(row, min(row + kept_height, height)),
            slice(column, min(column + kept_width, width)),
        )

    def place(self, number: int, part: np.ndarray, onto: np.ndarray) -> None:
        """Put what window ``number`` contributes, (kept height, kept width, ...), onto the map."""
        target = onto[self.place_of(number)]
        target[...] = part[: target.shape[0], : target.shape[1]]


def predict_in_windows(
    rgb: ByteArray,
    windows: Windows,
    batch_size: int,
    infer: Callable[[ByteArray], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Maps of the image ``rgb`` (h, w, 3), put together from those of its windows.

    Parameters
    ----------
    batch_size
        Windows at once.
    infer
        Takes windows (n, height, width, 3), gives by name what they contribute: (n, kept height,
        kept width, ...).
    """
    cuts = list(windows.cut(rgb))
    maps: dict[str, np.ndarray] = {}
    for first in range(0, len(cuts), batch_size):
        for name, batch in infer(np.stack(cuts[first : first + batch_size])).items():
            if name not in maps:
                maps[name] = windows.blank(batch)
            for number, part in enumerate(batch, start=first):
                windows.place(number, part, maps[name])
    return maps


def longest_side(given: int | None, device: str) -> int:
    """``nuclei.window_px``, or what suits ``device``."""
    if given is not None:
        return given
    return ON_GPU_PX if device.startswith("cuda") else ON_CPU_PX


def plan_windows(shape: tuple[int, int], window_px: int, margin: int, multiple: int = 1) -> Windows:
    """Windows of at most ``window_px``, all of one size and as few and as small as cover the image.

    What a window contributes is a ``multiple`` of pixels, so that layers that halve the image
    halve it alike in each window.

    Raises
    ------
    ConfigError
        If the margins leave nothing of a window.
    """
    largest = (window_px - 2 * margin) // multiple * multiple
    if largest < 1:
        least = 2 * margin + multiple
        raise ConfigError(
            f"nuclei.window_px={window_px} is too small for this network: set {least} or more."
        )
    height, width = (_share(n, largest, multiple) for n in shape)
    return Windows(shape, (height, width), margin)


def _share(length: int, largest: int, multiple: int) -> int:
    n_windows = max(1, math.ceil(length / largest))
    return max(1, math.ceil(length / n_windows / multiple)) * multiple
