"""A GPU's code on the CPU: what is called, in which order, on which stream, and when."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace

import pytest

from ccrl_wsi import device_work


class Stream:
    """Stands in for a CUDA stream: remembers what it was told."""

    def __init__(self, *_, **__):
        self.waits = []

    def wait_event(self, event):
        assert event.recorded_on is not None
        self.waits.append(event)


class Moment:
    """Stands in for a CUDA event of a GPU that has done everything at once, a second ahead."""

    def __init__(self, **options):
        self.options, self.recorded_on, self.is_over = options, None, False

    def record(self, stream):
        assert isinstance(stream, Stream)
        self.recorded_on, self._at = stream, time.perf_counter() + 1

    def synchronize(self):
        assert self.recorded_on is not None
        self.is_over = True

    def elapsed_time(self, later):
        """CUDA refuses moments that count no time."""
        assert self.options["enable_timing"]
        assert later.options["enable_timing"]
        return 1000 * (later._at - self._at)


@pytest.fixture
def pretended_gpu(monkeypatch):
    """The GPU's code on the CPU."""
    import torch

    compute, used = Stream(), []
    here = ContextVar("here", default=compute)
    current = ContextVar("current", default=None)  # each thread has its own, as with CUDA

    @contextmanager
    def on_stream(stream):
        before = here.set(stream)
        yield
        here.reset(before)

    @contextmanager
    def on_device(device):
        before = current.set(str(device))
        yield
        current.reset(before)

    def current_stream():
        assert current.get(), "that of whichever device is the current one"
        return here.get()

    empty = torch.empty

    def without_pinning(*size, pin_memory=False, **options):
        return empty(*size, **options)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Moment)
    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    monkeypatch.setattr(torch.cuda, "device", on_device)
    monkeypatch.setattr(torch, "empty", without_pinning)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: used.append(stream))
    monkeypatch.setattr(device_work, "_STREAMS", {})
    monkeypatch.setattr(device_work, "_CLOCKS", {})
    return SimpleNamespace(
        compute=compute, used=used, stream=lambda use: device_work._STREAMS["cpu", use]
    )
