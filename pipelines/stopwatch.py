"""Time by stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from pipelines.faults import telling


class Stopwatch:
    """Adds up the seconds spent in named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block as ``name``; an error in it knows its stage."""
        begin = perf_counter()
        try:
            with telling(stage=name):
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - begin
