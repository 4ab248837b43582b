"""Time by stage, counted by all the threads that work on a partition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, current_thread
from time import perf_counter
from typing import NamedTuple

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

    def device_worked(self, seconds: float, end: float) -> None:
        """Count ``seconds`` of a GPU's work, which ended before ``end`` (``perf_counter``)."""
        with self._adding:
            self.device_seconds += seconds
        if self._keeps_events and seconds:
            self.events.append(Event("GPU", "network", end - seconds, end))

    def _add(self, event: Event) -> None:
        with self._adding:
            self.seconds[event.stage] = self.seconds.get(event.stage, 0.0) + event.end - event.begin
        if self._keeps_events:
            self.events.append(event)


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
