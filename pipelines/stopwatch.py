"""Time by stage, counted by all the threads that work on a partition."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, current_thread
from time import perf_counter
from typing import NamedTuple

from ccrl_wsi.device_work import Span
from pipelines.faults import telling


class Event(NamedTuple):
    """A stage that a thread was at, in seconds of ``time.perf_counter``."""

    lane: str
    stage: str
    begin: float
    end: float


class Stopwatch:
    """Adds up the seconds that threads are busy with named stages.

    Parameters
    ----------
    keeps_events
        Whether ``events`` says when each stage began and ended, for a picture of the run.
    """

    def __init__(self, *, keeps_events: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self.device_seconds = 0.0
        self.events: list[Event] = []
        self._keeps_events = keeps_events
        self._adding = Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block as ``name``; an error in it knows its stage."""
        begin = perf_counter()
        try:
            with telling(stage=name):
                yield
        finally:
            self._add(Event(current_thread().name, name, begin, perf_counter()))

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Show the time of the block as a wait for ``name``; it is nobody's work."""
        begin = perf_counter()
        try:
            yield
        finally:
            if self._keeps_events:
                event = Event(current_thread().name, f"wait for {name}", begin, perf_counter())
                self.events.append(event)

    def device_worked(self, span: Span) -> None:
        """Count what of ``span`` no other work of this process's GPU has covered yet."""
        seconds = GPU_AT_WORK.add(span.begin, span.end)
        with self._adding:
            self.device_seconds += seconds
        if self._keeps_events:
            self.events.append(Event(f"GPU {span.work}", f"GPU {span.work}", span.begin, span.end))

    def _add(self, event: Event) -> None:
        with self._adding:
            self.seconds[event.stage] = self.seconds.get(event.stage, 0.0) + event.end - event.begin
        if self._keeps_events:
            self.events.append(event)


class UnitedTime:
    """Time that is counted once, however many things happened in it."""

    def __init__(self) -> None:
        self._adding = Lock()
        # Stretches that neither meet nor overlap, in order.
        self._begins: list[float] = []
        self._ends: list[float] = []

    def add(self, begin: float, end: float) -> float:
        """The seconds from ``begin`` to ``end`` that were not in any stretch yet."""
        with self._adding:
            first, last = bisect_left(self._ends, begin), bisect_right(self._begins, end)
            met = list(zip(self._begins[first:last], self._ends[first:last], strict=True))
            known = sum(min(end, e) - max(begin, b) for b, e in met)
            self._begins[first:last] = [min([begin, *(b for b, _ in met)])]
            self._ends[first:last] = [max([end, *(e for _, e in met)])]
            if len(self._begins) > _STRETCHES:
                # Nothing that ended so long ago is still to be told.
                del self._begins[: _STRETCHES // 2], self._ends[: _STRETCHES // 2]
        return end - begin - known


_STRETCHES = 10_000
GPU_AT_WORK = UnitedTime()
"""Of this process's GPU, whichever partition it works for."""


class SharedTime:
    """The seconds that pass in this process, divided among the partitions in work."""

    def __init__(self) -> None:
        self._changing = Lock()
        self._shares: dict[object, float] = {}
        self._last = 0.0

    @contextmanager
    def share(self) -> Iterator[list[float]]:
        """A list that holds, after the block, the block's share of the time it took."""
        key, result = object(), [0.0]
        with self._changing:
            self._pass()
            self._shares[key] = 0.0
        try:
            yield result
        finally:
            with self._changing:
                self._pass()
                result[0] = self._shares.pop(key)

    def _pass(self) -> None:
        now = perf_counter()
        for key in self._shares:
            self._shares[key] += (now - self._last) / len(self._shares)
        self._last = now
