"""A GPU beside the host: its streams, when it was at what, and a tile that it still has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from ccrl_wsi.arrays import AnyArray
from ccrl_wsi.errors import ModelError

if TYPE_CHECKING:
    import torch

FIRST = -1
"""Priority of streams whose little work shall not wait for that of a network."""

CLOCK_SECONDS = 600.0
"""CUDA tells times in milliseconds as float32: after hours these would be rough."""


class Span(NamedTuple):
    """When a GPU was at some ``work``, in seconds of ``time.perf_counter``."""

    work: str
    begin: float
    end: float


@dataclass(frozen=True, eq=False, slots=True)
class TileOnGpu:
    """A tile's pixels in a GPU's memory, for as long as this is kept.

    Parameters
    ----------
    pixels
        (h, w, 3) uint8.
    there
        The end of their upload.
    """

    pixels: torch.Tensor
    there: torch.cuda.Event


@dataclass(frozen=True, eq=False, slots=True)
class GpuWork:
    """Work that a GPU was given, between two moments of a stream. Pauses in it count."""

    name: str
    clock: _Clock
    began: torch.cuda.Event
    ended: torch.cuda.Event

    def tell(self) -> None:
        """Tell who listens in this thread. Only when ``ended`` is over."""
        if _LISTENER.get() is not None:
            begin = self.clock.seconds_at(self.began)
            tell(Span(self.name, begin, begin + self.began.elapsed_time(self.ended) / 1000))


@contextmanager
def gpu_work(name: str, device: str) -> Iterator[GpuWork]:
    """What the block gives to the current stream of ``device``, which must be the current one."""
    import torch

    clock = _clock(device)
    began, ended = (
        torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
        for _ in range(2)
    )
    began.record(torch.cuda.current_stream())
    yield GpuWork(name, clock, began, ended)
    ended.record(torch.cuda.current_stream())


@contextmanager
def told_work(name: str, device: str) -> Iterator[None]:
    """:func:`gpu_work` that is waited for and told; on CPU cores nothing."""
    if not device.startswith("cuda"):
        yield
        return
    import torch

    with torch.cuda.device(device), gpu_work(name, device) as work:
        yield
    work.ended.synchronize()
    work.tell()


@contextmanager
def enough_memory(device: str, asked: str, advice: str) -> Iterator[None]:
    """Say what was ``asked`` of ``device`` and what to do where its memory is too small for it.

    Raises
    ------
    ModelError
        In place of PyTorch's own error.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{device} has too little memory for {asked}. {advice}") from error


@contextmanager
def listening(listener: Callable[[Span], None]) -> Iterator[None]:
    """Let ``listener`` know of work that this thread finds done in the block."""
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)


def tell(span: Span) -> None:
    """Let who listens in this thread know."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(span)


def pinned(array: AnyArray) -> torch.Tensor:
    """A copy of ``array`` that a GPU fetches without the host.

    It may be let go at once: PyTorch hands its memory out again only when the copies are done.
    """
    import torch

    staged = torch.empty(array.shape, dtype=getattr(torch, array.dtype.name), pin_memory=True)
    staged.numpy()[...] = array
    return staged


def stream_of(device: str, use: str, priority: int = 0) -> torch.cuda.Stream:
    """The stream of ``device`` for ``use``; made once, whichever thread asks first."""
    import torch

    with _MAKING:
        if (device, use) not in _STREAMS:
            made = torch.cuda.Stream(device, priority=priority)  # type: ignore[no-untyped-call]
            _STREAMS[device, use] = made
        return _STREAMS[device, use]


class _Clock:
    """Puts a GPU's moments among those of ``perf_counter``, by one that both know."""

    def __init__(self, device: str) -> None:
        import torch

        self._known = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        # On a stream without work the moment is now.
        self._known.record(stream_of(device, "clock", FIRST))
        self._known.synchronize()
        self.made = perf_counter()

    def seconds_at(self, moment: torch.cuda.Event) -> float:
        """When ``moment`` was."""
        return self.made + float(self._known.elapsed_time(moment)) / 1000


_LISTENER: ContextVar[Callable[[Span], None] | None] = ContextVar("listener", default=None)
_STREAMS: dict[tuple[str, str], torch.cuda.Stream] = {}
_CLOCKS: dict[str, _Clock] = {}
_MAKING, _SETTING = Lock(), Lock()


def _clock(device: str) -> _Clock:
    with _SETTING:
        clock = _CLOCKS.get(device)
        if clock is None or perf_counter() - clock.made > CLOCK_SECONDS:
            clock = _CLOCKS[device] = _Clock(device)
        return clock
