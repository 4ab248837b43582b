"""Where work is done: here and in order, or on Dask workers. Both give the same results."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ccrl_wsi.errors import CcrlError, ConfigError

if TYPE_CHECKING:
    from distributed import Client

    from pipelines.machines import MachineSettings

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: a result, or the sentence that says what was wrong."""

    item: Item
    result: Result | None
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether there is no result."""
        return self.result is None


class Executor(Protocol):
    """Applies a function to items; order of the outcomes is not promised."""

    @property
    def description(self) -> str:
        """What does the work, for people."""
        ...

    def map(
        self, work: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Outcome[Item, Result]]:
        """Outcomes of ``work`` on ``items``, which are drawn only as they can be taken."""
        ...


class Serial:
    """Here, in order. What every other executor must agree with."""

    description = "this process"

    def map(
        self, work: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Outcome[Item, Result]]:
        """Outcomes in the order of the items."""
        for item in items:
            result, error = guarded(work, item)
            yield Outcome(item, result, error)


class Dask:
    """On the workers of a Dask client; a bounded number of items is in flight."""

    def __init__(self, client: Client, *, per_worker: int = 2, resources: dict[str, int]) -> None:
        self.client = client
        self.per_worker = per_worker
        self.resources = resources

    @property
    def description(self) -> str:
        """Scheduler and workers."""
        return f"{self._n_threads()} Dask worker threads at {self.client.scheduler.address}"

    def map(
        self, work: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Outcome[Item, Result]]:
        """Outcomes as they come in."""
        from distributed import as_completed

        waiting = iter(items)
        flying: dict[Any, Item] = {}
        done = as_completed([], loop=self.client.loop)
        while True:
            room = self.per_worker * max(1, self._n_threads()) - len(flying)
            for item in islice(waiting, max(0, room)):
                future = self.client.submit(
                    guarded, work, item, pure=False, retries=2, resources=self.resources or None
                )
                flying[future] = item
                done.add(future)
            if not flying:
                return
            future = next(done)
            yield _outcome(flying.pop(future), future)

    def _n_threads(self) -> int:
        return sum(self.client.nthreads().values())


def guarded(work: Callable[[Item], Result], item: Item) -> tuple[Result | None, str]:
    """Result and no error, or no result and the sentence of a :class:`CcrlError`."""
    try:
        return work(item), ""
    except CcrlError as error:
        return None, f"{type(error).__name__}: {error}"


def _outcome(item: Item, future: Any) -> Outcome[Item, Any]:
    """Worker deaths fail their item; any other unknown error is ours and stops the run."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    try:
        result, error = future.result()
    except (KilledWorker, FutureCancelledError) as death:
        log.debug("%s", "".join(traceback.format_exception(death)))
        return Outcome(
            item,
            None,
            "Workers died while they worked on this, probably for want of memory. "
            "Run again with fewer workers: a machine file with `kind: local` and `workers: N`.",
        )
    return Outcome(item, result, error)


@contextmanager
def open_executor(machine: MachineSettings) -> Iterator[Executor]:
    """The executor that ``machine`` describes; closed at the end.

    Raises
    ------
    ConfigError
        If a scheduler does not answer or an optional package is missing.
    """
    if machine.kind == "serial":
        yield Serial()
        return
    from pipelines.dask_clusters import connect

    with connect(machine) as (client, resources):
        yield Dask(client, resources=resources)


__all__ = ["ConfigError", "Dask", "Executor", "Outcome", "Serial", "guarded", "open_executor"]
