"""Crops cut where the pixels are: the bytes of :func:`ccrl_wsi.crops.cut.cut_crops`, in batches.

Windows of similar sides go together. Their weights come from tables, and are applied tap by tap:
each product and each sum is a rounding of its own in float32, as in OpenCV. (A matrix product
would do it in fewer steps, in any order and, where somebody has allowed TF32, with ten bits.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import Tensor

from ccrl_wsi.arrays import ByteArray, IntArray
from ccrl_wsi.crops.cut import WHITE
from ccrl_wsi.crops.resize_taps import taps_of
from ccrl_wsi.device_work import (
    FIRST,
    TileOnGpu,
    enough_memory,
    gpu_work,
    pinned,
    stream_of,
)

PIXELS_AT_ONCE = 2**21
"""Of windows or crops, whichever are larger: a batch takes about 50 MB."""

STEPS = (0, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Windows of sides between two of these go together, padded to the greater: asking a GPU for one
more batch costs more than the padding. Larger windows are rare, and go with those of their side."""


def crops_on_device(image: Tensor, windows: IntArray, size_px: int) -> Tensor:
    """Crops (n, size_px, size_px, 3) uint8 of square windows (n, 4), white outside ``image``.

    They are where ``image`` (h, w, 3) uint8 is. The host does not wait for a GPU, but
    when a side is met first and its weights go up.
    """
    crops = image.new_empty((len(windows), size_px, size_px, 3))
    order = np.argsort(windows[:, 2], kind="stable")
    sorted_windows, numbers = (_up(array, image.device) for array in (windows[order, :3], order))
    for some, low, high in _batches(windows[order, 2], size_px):
        corners, side = sorted_windows[some, :2], sorted_windows[some, 2]
        taps = [
            table[side - low]
            for table in _taps_there(low, high, size_px, image.device, not cv2.ipp.useIPP())
        ]
        crops[numbers[some]] = _resized(_pixels(image, corners, high), *taps)
    return crops


def begin_crops(tile: TileOnGpu, windows: IntArray, size_px: int) -> Callable[[], ByteArray]:
    """Have a GPU cut crops of its ``tile`` beside its other work; what is returned waits for them.

    Both may be called from any thread. Arguments as of :func:`crops_on_device`.

    Raises
    ------
    ModelError
        If the GPU has too little memory.
    """
    device = str(tile.pixels.device)
    advice = "Set nuclei.batch_size lower, or threads in the machine file."
    with (
        enough_memory(device, f"the {len(windows)} crops of a tile", advice),
        torch.inference_mode(),
        torch.cuda.device(tile.pixels.device),
    ):
        stream = stream_of(device, "crops", FIRST)
        stream.wait_event(tile.there)
        tile.pixels.record_stream(stream)
        with torch.cuda.stream(stream), gpu_work("crops", device) as work:
            crops = crops_on_device(tile.pixels, windows, size_px)
            sent = torch.empty(crops.shape, dtype=torch.uint8, pin_memory=True)
            sent.copy_(crops, non_blocking=True)

    def arrived() -> ByteArray:
        work.ended.synchronize()
        work.tell()
        # Pinned memory is scarce, and crops stay until the partition is done.
        return sent.numpy().copy()

    return arrived


def _batches(sides: IntArray, size_px: int) -> Iterator[tuple[slice, int, int]]:
    """Windows of ascending ``sides`` that go together, and the least and greatest such side."""
    steps = [*STEPS, *np.unique(sides[sides > STEPS[-1]]).tolist()]
    ends = np.searchsorted(sides, steps, side="right").tolist()
    for step, (first, end) in enumerate(pairwise(ends)):
        high = steps[step + 1]
        low = steps[step] + 1 if high <= STEPS[-1] else high
        at_once = max(1, PIXELS_AT_ONCE // max(high, size_px) ** 2)
        for begin in range(first, end, at_once):
            yield slice(begin, min(begin + at_once, end)), low, high


@lru_cache(maxsize=256)
def _taps_there(
    low: int, high: int, size_px: int, device: torch.device, in_fixed_point: bool
) -> tuple[Tensor, ...]:
    """The tables of :func:`taps_of`, where they are needed."""
    taps = taps_of(range(low, high + 1), size_px, in_fixed_point=in_fixed_point)
    tables = (taps.places, taps.across, taps.down, taps.factor, taps.shift)
    return tuple(torch.from_numpy(table).to(device) for table in tables)


def _pixels(image: Tensor, corners: Tensor, side: int) -> Tensor:
    """Squares (n, side, side, 3) uint8 of ``image`` from ``corners`` (n, 2: left, top) on."""
    along = torch.arange(side, device=image.device)
    columns, rows = (corners[:, axis, None] + along for axis in (0, 1))
    height, width = image.shape[:2]
    is_outside = ((rows < 0) | (rows >= height))[:, :, None]
    is_outside = is_outside | ((columns < 0) | (columns >= width))[:, None, :]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    pixels = image[rows[:, :, None], columns[:, None, :]]
    return pixels.masked_fill_(is_outside[..., None], WHITE)


def _resized(
    pixels: Tensor, places: Tensor, across: Tensor, down: Tensor, factor: Tensor, shift: Tensor
) -> Tensor:
    """Squares resized, (n, size, size, 3) uint8, as :class:`Taps` tell, given for each square."""
    n, side = pixels.shape[:2]
    number = torch.arange(n, device=pixels.device)[:, None]
    row = torch.arange(side, device=pixels.device)[None, :, None]
    rows = _summed(
        lambda tap: pixels[number[:, None], row, places[:, None, :, tap]],
        across[:, None, :, None, :],
    )
    sums = _summed(lambda tap: rows[number, places[:, :, tap]], down[:, :, None, None, :])
    sums *= factor[:, None, None, None]
    sums += shift[:, None, None, None]
    return sums.round_().clamp_(0, 255).byte()


def _summed(values_of: Callable[[int], Tensor], weights: Tensor) -> Tensor:
    """Sum over taps of values (n, h, w, 3) times weights (..., taps), one after the other."""
    total = values_of(0).float().mul_(weights[..., 0])
    for tap in range(1, weights.shape[-1]):
        total += values_of(tap).float().mul_(weights[..., tap])
    return total


def _up(array: IntArray, device: torch.device) -> Tensor:
    """``array`` there; a GPU's stream fetches it when it comes to it."""
    if device.type != "cuda":
        return torch.from_numpy(array.astype(np.int64))
    return pinned(array.astype(np.int64)).to(device, non_blocking=True)
