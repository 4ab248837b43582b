"""A network's maps of a whole tile: one upload, windows cut on the device, one download.

On a GPU nothing here waits: the tile goes up, the network looks at it and the maps come down while
the host does other things. Uploads and downloads have streams of their own, so that they pass
beside the network. Staging buffers come from PyTorch's pool of pinned memory, which hands a
buffer out again only when the copies from or to it are done. The tile stays up until nobody has
its prediction any more, so that crops can be cut from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.device_work import GpuWork, TileOnGpu, gpu_work, pinned, stream_of
from ccrl_wsi.devices import ASKING_GPU
from ccrl_wsi.interfaces import Maps, Prediction
from ccrl_wsi.nuclei.inference import inference
from ccrl_wsi.nuclei.windows import Windows

if TYPE_CHECKING:
    import torch

    Tensors: TypeAlias = Mapping[str, torch.Tensor]

PIXELS_OF_A_WINDOW = 1024**2
"""``batch_size`` counts windows of this size: memory is a matter of pixels."""


@dataclass(frozen=True, slots=True)
class Question:
    """How a network is asked.

    Parameters
    ----------
    look
        Takes windows (n, 3, h, w) float32 in 0..255, gives maps by name, each
        (n, kept h, kept w, ...).
    device, precision, batch_size
        As of a segmenter.
    reduce
        What a GPU makes of the maps (h, w, ...) of the whole tile before they come down; on CPU
        cores the host's own filters are faster.
    """

    look: Callable[[torch.Tensor], Tensors]
    device: str
    precision: str
    batch_size: int
    reduce: Callable[[Tensors], Tensors] | None = None

    def at_once(self, windows: Windows) -> int:
        """Windows in one batch. CPU cores take one: more need memory and save no time."""
        if self.device == "cpu":
            return 1
        height, width = windows.size
        return max(1, self.batch_size * PIXELS_OF_A_WINDOW // (height * width))


@dataclass(frozen=True, slots=True)
class Arrived:
    """Maps that are there: those of a CPU."""

    maps: Maps
    tile: TileOnGpu | None = None

    def wait(self) -> Maps:
        """The maps."""
        return self.maps


@dataclass(frozen=True, eq=False, slots=True)
class OnTheirWay:
    """Maps that a GPU is still working on, or that are on their way down to pinned memory."""

    sent: Tensors
    tile: TileOnGpu
    work: GpuWork
    arrived: torch.cuda.Event

    def wait(self) -> Maps:
        """The maps, in pinned memory. A GPU that failed meanwhile is a ``RuntimeError`` here."""
        self.arrived.synchronize()
        self.work.tell()
        return {name: tensor.numpy() for name, tensor in self.sent.items()}


def predict_tile(rgb: ByteArray, windows: Windows, question: Question) -> Prediction:
    """Maps of the tile ``rgb`` (h, w, 3) uint8, put together from those of its ``windows``.

    Raises
    ------
    ModelError
        If the device has too little memory.
    """
    import torch

    at_once = min(question.at_once(windows), len(windows.starts))
    with inference(question.device, question.precision, at_once, max(windows.size)):
        if torch.device(question.device).type == "cuda":
            return _on_gpu(rgb, windows, question)
        maps = _look_at_tile(torch.from_numpy(_writable(rgb)), windows, question)
        return Arrived({name: tensor.numpy() for name, tensor in maps.items()})


def cut_windows(tile: torch.Tensor, windows: Windows, numbers: range) -> torch.Tensor:
    """Windows (n, 3, height, width) float32 of ``tile`` (h, w, 3) uint8, where the tile is.

    As :meth:`Windows.cut` gives them: beyond the tile's edges it is mirrored. Channels come last in
    memory.
    """
    import torch

    cuts = []
    for number in numbers:
        corner = (start - windows.margin for start in windows.starts[number])
        rows, columns = (
            mirrored(range(first, first + length), n, tile.device)
            for first, length, n in zip(corner, windows.size, windows.shape, strict=True)
        )
        cuts.append(tile.index_select(0, rows).index_select(1, columns))
    return torch.stack(cuts).permute(0, 3, 1, 2).float()


def mirrored(places: range, n: int, device: torch.device) -> torch.Tensor:
    """Which of the pixels 0..n - 1 is seen at each of ``places``; the edge is not repeated.

    Counted on the device: what is sent there from ordinary memory would have to wait for it.
    """
    import torch

    period = max(2 * (n - 1), 1)
    place = torch.arange(places.start, places.stop, device=device).abs() % period
    return torch.minimum(place, period - place)


def _look_at_tile(
    tile: torch.Tensor, windows: Windows, question: Question
) -> dict[str, torch.Tensor]:
    """Maps (h, w, ...) on the device of ``tile``."""
    maps: dict[str, torch.Tensor] = {}
    n, at_once = len(windows.starts), question.at_once(windows)
    for first in range(0, n, at_once):
        numbers = range(first, min(first + at_once, n))
        for name, batch in question.look(cut_windows(tile, windows, numbers)).items():
            if name not in maps:
                maps[name] = batch.new_empty((*windows.shape, *batch.shape[3:]))
            for number, part in zip(numbers, batch, strict=True):
                place = windows.place_of(number)
                target = maps[name][place]
                target.copy_(part[: target.shape[0], : target.shape[1]])
    return maps


def _on_gpu(rgb: ByteArray, windows: Windows, question: Question) -> OnTheirWay:
    import torch

    device = question.device
    with torch.cuda.device(device):
        compute, down = torch.cuda.current_stream(), stream_of(device, "download")
        tile = _uploaded(rgb, device)
        tile.pixels.record_stream(compute)
        with ASKING_GPU:
            compute.wait_event(tile.there)
            with gpu_work("network", device) as work:
                maps: Tensors = _look_at_tile(tile.pixels, windows, question)
                maps = question.reduce(maps) if question.reduce else maps
        down.wait_event(work.ended)
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(down):
            sent = {name: _down(tensor) for name, tensor in maps.items()}
            arrived.record(down)
        for tensor in maps.values():
            tensor.record_stream(down)
    return OnTheirWay(sent, tile, work, arrived)


def _uploaded(rgb: ByteArray, device: str) -> TileOnGpu:
    import torch

    up = stream_of(device, "upload")
    there = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    staged = pinned(rgb)
    with torch.cuda.stream(up):
        pixels = staged.to(device, non_blocking=True)
        there.record(up)
    return TileOnGpu(pixels, there)


def _down(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _writable(rgb: ByteArray) -> ByteArray:
    """What PyTorch takes without a warning; it is not written to."""
    whole = np.ascontiguousarray(rgb)
    return whole if whole.flags.writeable else whole.copy()
