"""A network's maps of a whole tile: one upload, windows cut on the device, one download.

On a GPU nothing here waits: the tile goes up, the network looks at it and the maps come down while
the host does other things. Uploads and downloads have streams of their own, so that they pass
beside the network. Staging buffers come from PyTorch's pool of pinned memory, which hands a
buffer out again only when the copies from or to it are done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.devices import ASKING_GPU
from ccrl_wsi.interfaces import Maps, Prediction
from ccrl_wsi.nuclei.inference import inference
from ccrl_wsi.nuclei.windows import Windows

if TYPE_CHECKING:
    import torch

    Tensors: TypeAlias = Mapping[str, torch.Tensor]
    Moment: TypeAlias = torch.cuda.Event

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
    """

    look: Callable[[torch.Tensor], Tensors]
    device: str
    precision: str
    batch_size: int

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
    device_seconds: float = 0.0

    def wait(self) -> Maps:
        """The maps."""
        return self.maps


class OnTheirWay:
    """Maps that a GPU is still working on, or that are on their way down."""

    def __init__(self, maps: Tensors, working: tuple[Moment, Moment], arrived: Moment) -> None:
        self._maps, self._working, self._arrived = maps, working, arrived

    @property
    def device_seconds(self) -> float:
        """From the network's first layer to its last map, pauses between kernels included."""
        began, ended = self._working
        return float(began.elapsed_time(ended)) / 1000

    def wait(self) -> Maps:
        """The maps, in pinned memory. A GPU that failed meanwhile is a ``RuntimeError`` here."""
        self._arrived.synchronize()
        return {name: tensor.numpy() for name, tensor in self._maps.items()}


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
            _mirrored(range(first, first + length), n, tile.device)
            for first, length, n in zip(corner, windows.size, windows.shape, strict=True)
        )
        cuts.append(tile.index_select(0, rows).index_select(1, columns))
    return torch.stack(cuts).permute(0, 3, 1, 2).float()


def _mirrored(places: range, n: int, device: torch.device) -> torch.Tensor:
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

    device = torch.device(question.device)
    with torch.cuda.device(device):
        streams = _streams(question.device)
        compute = torch.cuda.current_stream()
        began, ended, arrived = (
            torch.cuda.Event(enable_timing=is_timed, blocking=True)  # type: ignore[no-untyped-call]
            for is_timed in (True, True, False)
        )
        staged = torch.empty(rgb.shape, dtype=torch.uint8, pin_memory=True)
        staged.numpy()[...] = rgb
        with torch.cuda.stream(streams.up):
            tile = staged.to(device, non_blocking=True)
        tile.record_stream(compute)
        with ASKING_GPU:
            compute.wait_stream(streams.up)
            began.record(compute)
            maps = _look_at_tile(tile, windows, question)
            ended.record(compute)
        streams.down.wait_event(ended)
        with torch.cuda.stream(streams.down):
            sent = {name: _sent(tensor) for name, tensor in maps.items()}
            arrived.record(streams.down)
        for tensor in maps.values():
            tensor.record_stream(streams.down)
    return OnTheirWay(sent, (began, ended), arrived)


def _sent(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


class _Streams:
    """The streams beside the network's own, of one GPU."""

    def __init__(self, device: str) -> None:
        import torch

        self.up: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.down: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


_STREAMS: dict[str, _Streams] = {}
_MAKING = Lock()


def _streams(device: str) -> _Streams:
    """Those of ``device``; made once, whichever thread asks first."""
    with _MAKING:
        if device not in _STREAMS:
            _STREAMS[device] = _Streams(device)
        return _STREAMS[device]


def _writable(rgb: ByteArray) -> ByteArray:
    """What PyTorch takes without a warning; it is not written to."""
    whole = np.ascontiguousarray(rgb)
    return whole if whole.flags.writeable else whole.copy()
