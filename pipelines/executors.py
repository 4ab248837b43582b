"""Where work is done: here and in order, or on Dask workers. Both give the same results."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pipelines.faults import Fault, fault_of, guarded

if TYPE_CHECKING:
    from pipelines.dask_clusters import Workers
    from pipelines.machines import MachineSettings
    from pipelines.worker_setup import WorkerSetup

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger("ccrl_wsi")

RETRIES = 2
"""How often an item is tried again unless the caller says otherwise."""

LOOK_SECONDS = 2.0
"""Workers are looked at anew after this long: asking costs a message."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: a result, or what was wrong at the last try."""

    item: Item
    result: Result | None
    fault: Fault | None = None

    @property
    def failed(self) -> bool:
        """Whether there is no result."""
        return self.fault is not None

    @property
    def error(self) -> str:
        """The sentence that says what was wrong; empty where nothing was."""
        return self.fault.message if self.fault else ""


class Executor(Protocol):
    """Applies a function to items; order of the outcomes is not promised."""

    @property
    def description(self) -> str:
        """What does the work, for people."""
        ...

    @property
    def keeps_order(self) -> bool:
        """Whether items are worked on in their order, one after the other."""
        ...

    @property
    def n_slots(self) -> int:
        """Items that are worked on at once."""
        ...

    def run(
        self, work: Callable[[Item], Result], take: Callable[[], Item | None]
    ) -> Iterator[Outcome[Item, Result]]:
        """Outcomes of ``work`` on what ``take`` gives, which is asked only when there is room.

        None means that there is nothing for now; what an outcome brings about may be taken later.
        All is done when there is nothing and nothing is under way.
        """
        ...


def each(
    executor: Executor, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Outcome[Item, Result]]:
    """Outcomes of ``work`` on ``items``, which are drawn only as they can be taken."""
    waiting = iter(items)
    return executor.run(work, lambda: next(waiting, None))


class Serial:
    """Here, in order. What every other executor must agree with."""

    description = "this process"
    keeps_order = True
    n_slots = 1

    def __init__(self, retries: int = RETRIES) -> None:
        self.retries = retries

    def run(
        self, work: Callable[[Item], Result], take: Callable[[], Item | None]
    ) -> Iterator[Outcome[Item, Result]]:
        """Outcomes in the order of the items."""
        queue = _Queue(take, self.retries)
        while (attempt := queue.next(is_alone=True)) is not None:
            outcome = Outcome(attempt.item, *guarded(work, attempt.item))
            if not queue.takes_back(attempt, outcome):
                yield outcome


class Dask:
    """On Dask workers; a bounded number of items is in flight."""

    keeps_order = False

    def __init__(self, workers: Workers, *, per_slot: int = 2, retries: int = RETRIES) -> None:
        self.client, self.watch = workers.client, workers.watch
        self.per_slot = per_slot
        self.retries = retries
        self._ask_resources = workers.resources
        self._n_threads = 0
        self.resources: dict[str, int] = {}
        self._look()

    @property
    def description(self) -> str:
        """Scheduler and workers."""
        return f"{self._n_threads} Dask worker threads at {self.client.scheduler.address}"

    @property
    def n_slots(self) -> int:
        """Threads of all workers, or one while there are none."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        return max(1, self._n_threads)

    def run(
        self, work: Callable[[Item], Result], take: Callable[[], Item | None]
    ) -> Iterator[Outcome[Item, Result]]:
        """Outcomes as they come in.

        An item whose workers died may only have stood beside the one that killed them. It is tried
        once more by itself when all else is done.
        """
        queue = _Queue(take, self.retries)
        flying: dict[Any, _Attempt[Item]] = {}
        done: SimpleQueue[Any] = SimpleQueue()
        try:
            while True:
                while len(flying) < self.per_slot * self.n_slots:
                    attempt = queue.next(is_alone=not flying)
                    if attempt is None:
                        break
                    future = self._submit(work, attempt.item)
                    flying[future] = attempt
                    future.add_done_callback(done.put)
                if not flying:
                    return
                future = self._next(done)
                attempt = flying.pop(future)
                outcome = self._outcome(attempt.item, future)
                if not queue.takes_back(attempt, outcome):
                    yield outcome
        finally:
            self._forget(list(flying))

    def _submit(self, work: Callable[[Item], Result], item: Item) -> Any:
        self._check_client()
        return self.client.submit(guarded, work, item, pure=False, resources=self.resources or None)

    def _next(self, done: SimpleQueue[Any]) -> Any:
        """The next future that is done; while there is none, workers are looked at."""
        while True:
            try:
                return done.get(timeout=LOOK_SECONDS)
            except Empty:
                self._look()
                self.watch.check(self._n_threads)

    def _outcome(self, item: Item, future: Any) -> Outcome[Item, Any]:
        """Worker deaths fail their item; the scheduler's death ends the run."""
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        from pipelines.worker_watch import lost

        try:
            return Outcome(item, *future.result())
        except KilledWorker:
            return Outcome(item, None, WORKERS_DIED)
        except FutureCancelledError:
            raise lost(self.client) from None
        except Exception as error:  # noqa: BLE001 (such as a task that a worker cannot understand)
            return Outcome(item, None, fault_of(error))

    def _look(self) -> None:
        """See how many workers there are and what they have."""
        from dask.utils import key_split

        self._looked = time.monotonic()
        # Dask keeps the names of the last 100,000 tasks, of which none comes again.
        getattr(key_split, "cache_clear", lambda: None)()
        self._check_client()
        try:
            self._n_threads = sum(self.client.nthreads().values())
            self.resources = self._ask_resources()
        except (OSError, RuntimeError):  # The scheduler is gone; the futures say so.
            self._n_threads = 0

    def _check_client(self) -> None:
        """The client closes when it has looked for a lost scheduler long enough."""
        from pipelines.worker_watch import lost

        if self.client.status in ("closing", "closed"):
            raise lost(self.client)

    def _forget(self, futures: list[Any]) -> None:
        """What nobody waits for any more must not keep workers busy."""
        if futures and self.client.status == "running":
            self.client.cancel(futures)


WORKERS_DIED = Fault(
    "Workers died while they worked on this, probably for want of memory. Give each more: on this "
    "computer fewer workers (a machine file with `kind: local` and `workers: N`), on a cluster "
    "more `memory` for a job.",
    stage="workers",
)


@dataclass(frozen=True, slots=True)
class _Attempt(Generic[Item]):
    item: Item
    number: int = 0
    is_suspect: bool = False


class _Queue(Generic[Item]):
    """What is to be done, and what is to be tried again."""

    def __init__(self, take: Callable[[], Item | None], retries: int) -> None:
        self._take, self._retries = take, retries
        self._again: deque[_Attempt[Item]] = deque()
        self._suspects: deque[_Attempt[Item]] = deque()

    def next(self, *, is_alone: bool) -> _Attempt[Item] | None:
        """What to try next, or nothing for now; ``is_alone``: nothing else is under way."""
        if self._again:
            return self._again.popleft()
        item = self._take()
        if item is not None:
            return _Attempt(item)
        return self._suspects.popleft() if is_alone and self._suspects else None

    def takes_back(self, attempt: _Attempt[Item], outcome: Outcome[Item, Any]) -> bool:
        """Whether the item is tried again, so that this outcome is not the last word."""
        if outcome.fault is None:
            return False
        if outcome.fault == WORKERS_DIED:
            if not attempt.is_suspect:
                self._suspects.append(replace(attempt, is_suspect=True))
            return not attempt.is_suspect
        if attempt.number >= self._retries:
            return False
        log.debug("Try %d failed: %s", attempt.number + 1, outcome.error)
        self._again.append(replace(attempt, number=attempt.number + 1))
        return True


@contextmanager
def open_executor(
    machine: MachineSettings, setup: WorkerSetup | None = None, retries: int = RETRIES
) -> Iterator[Executor]:
    """The executor that ``machine`` describes; closed at the end.

    Parameters
    ----------
    setup
        What every worker checks and loads before it is given work.
    retries
        How often an item is tried again.

    Raises
    ------
    ConfigError
        If a scheduler does not answer, workers do not fit, or an optional package is missing.
    """
    if machine.kind == "serial":
        yield Serial(retries)
        return
    from pipelines.dask_clusters import connect

    with connect(machine, setup) as workers:
        yield Dask(workers, retries=retries)


__all__ = ["Dask", "Executor", "Outcome", "Serial", "each", "open_executor"]
