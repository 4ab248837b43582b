"""Threads beside the network: reading runs ahead of it, nuclei are finished behind it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from ccrl_wsi.config import ComputeSettings

Item = TypeVar("Item")
Result = TypeVar("Result")

CORES = "CCRL_WSI_CORES"
"""Where a worker is told how many cores each of its partitions has, if others need some too."""

MOST_BEHIND = 4
"""Threads that ``auto`` takes at most: about what keeps pace with a GPU that needs 1 s per mm2."""

STAGES_OF = {
    "read": ("read",),
    "network": ("network",),
    "nuclei": ("segment", "outline", "measure", "crop"),
}
"""What each lane does while the others work."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """How many threads work beside the one that asks the network.

    Parameters
    ----------
    readers
        Threads that decode; 0: the tile's pixels are read when they are needed.
    ahead
        Tiles read before they are needed.
    behind
        Threads that turn maps into cells; 0: each tile is finished before the next is begun.
    """

    readers: int
    ahead: int
    behind: int

    def busy(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """Seconds by lane, if its threads share the ``seconds`` of its stages evenly."""
        threads = {"read": self.readers, "network": 1, "nuclei": self.behind}
        return {
            lane: sum(seconds.get(stage, 0.0) for stage in stages) / max(1, threads[lane])
            for lane, stages in STAGES_OF.items()
        }


def lanes_for(compute: ComputeSettings, *, on_gpu: bool) -> Lanes:
    """The threads of a worker, whose network is on a GPU or not.

    On CPU cores the network itself fills them, so that nothing is gained behind it.
    """
    readers = min(compute.read_ahead, 2 if on_gpu else 1)
    if compute.extract_behind != "auto":
        return Lanes(readers, compute.read_ahead, compute.extract_behind)
    beside_it = min(MOST_BEHIND, max(1, _usable_cores() - 2))
    return Lanes(readers, compute.read_ahead, beside_it if on_gpu else 0)


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    at_once: int,
    name: str,
) -> Iterator[Result]:
    """Results of ``work`` on ``items``, in their order; what it raises is raised here.

    No more than ``at_once`` items are drawn whose results were not, so that memory is bounded
    whoever is slow.

    Parameters
    ----------
    threads
        How many work; 0: the caller does, item by item.
    name
        Of the threads.
    """
    if threads == 0:
        yield from map(work, items)
        return
    waiting = iter(items)
    flying: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        try:
            while True:
                for item in islice(waiting, at_once - len(flying)):
                    flying.append(pool.submit(work, item))
                if not flying:
                    return
                yield flying.popleft().result()
        finally:
            for future in flying:
                future.cancel()


def _usable_cores() -> int:
    """Of one partition."""
    told = os.environ.get(CORES, "")
    if told.isdigit():
        return int(told)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
