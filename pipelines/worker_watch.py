"""Keeps an eye on who works: workers that do not fit are refused, and the driver hears of them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from distributed import Client, SchedulerPlugin, WorkerPlugin

from ccrl_wsi.errors import ConfigError, RunStopped
from pipelines.worker_setup import WorkerSetup, problems_here

log = logging.getLogger("ccrl_wsi")

PREFIX = "ccrl-wsi-run-"
ENOUGH_REFUSED = 3
"""So many workers that do not fit, and none that does: waiting would not help."""

SILENCE_SECONDS = 120.0
"""After so long without a worker the driver says that it waits."""

REMEDY = (
    "Give all workers the same environment, weights and file systems as this computer, and start "
    "them again."
)


class LateWorkers(WorkerPlugin):  # type: ignore[misc]  # distributed is untyped
    """Loads what a worker that joins later needs, before it gets work; what does not fit leaves."""

    def __init__(self, setup: WorkerSetup, topic: str) -> None:
        self.worker_setup, self.topic = setup, topic

    async def setup(self, worker: Any) -> None:
        """Runs once in each worker."""
        problems = await asyncio.to_thread(problems_here, self.worker_setup)
        if problems:
            said = "; ".join(problems)
            log.error("This worker does not fit the run and leaves: %s.", said)
            worker.log_event(self.topic, {"worker": worker.address, "said": said})
            # In order: what was meant for it goes to others and is not held to have killed it.
            worker.loop.add_callback(worker.close_gracefully, reason="it does not fit the run")


class ForgetRun(SchedulerPlugin):  # type: ignore[misc]
    """Takes :class:`LateWorkers` away when its driver is gone, however it went."""

    def __init__(self, client: str, name: str) -> None:
        self.client, self.name = client, name

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Called by the scheduler when a client has left."""
        if client == self.client:
            scheduler.worker_plugins.pop(self.name, None)


class Watch:
    """What a driver knows of workers that were refused, and of there being none."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._refused: dict[str, str] = {}
        self._said: set[str] = set()
        self._alone_since: float | None = None

    def hear(self, event: tuple[float, dict[str, str]]) -> None:
        """A worker left because it does not fit."""
        _, told = event
        with self._lock:
            self._refused[told["worker"]] = told["said"]
            is_new = told["said"] not in self._said
            self._said.add(told["said"])
        if is_new:
            log.warning("The worker %s does not fit and left: %s.", told["worker"], told["said"])

    def check(self, n_workers: int) -> None:
        """Called while nothing happens.

        Raises
        ------
        ConfigError
            If there are no workers and those that came did not fit.
        """
        if n_workers:
            self._alone_since = None
            return
        with self._lock:
            refused = dict(self._refused)
        if len(refused) >= ENOUGH_REFUSED:
            raise unfit(refused)
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since > SILENCE_SECONDS:
            log.warning("No worker at %s; waiting.", self._client.scheduler.address)
            self._alone_since = now


@contextmanager
def watched(client: Client, setup: WorkerSetup | None) -> Iterator[Watch]:
    """Workers that were looked at; those that come later are looked at when they do.

    Raises
    ------
    ConfigError
        If one that is there does not fit.
    RunStopped
        If the scheduler goes away meanwhile.
    """
    watch = Watch(client)
    if setup is None:
        yield watch
        return
    name = PREFIX + uuid4().hex
    with telling_lost(client):
        _check(client, setup)
        client.subscribe_topic(name, watch.hear)
        client.register_plugin(ForgetRun(client.id, name), name=f"{name}-end")
        client.register_plugin(LateWorkers(setup, name), name=name)
    try:
        yield watch
    finally:
        # The scheduler may outlive the run, and may be gone.
        with suppress(OSError, RuntimeError, ValueError):
            if client.status == "running":
                client.unregister_worker_plugin(name)
                client.unregister_scheduler_plugin(f"{name}-end")


@contextmanager
def telling_lost(client: Client) -> Iterator[None]:
    """Tell of a scheduler that does not answer as what it is."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # The latter of a client that has given up.
        raise lost(client) from error


def lost(client: Client) -> RunStopped:
    """The error of a scheduler that is gone."""
    return RunStopped(
        f"The Dask scheduler at {client.scheduler.address} stopped answering. Start it again and "
        "give the same command: what is finished stays."
    )


def unfit(said: dict[str, str]) -> ConfigError:
    """The error of workers, by address, of which something else is true than of the driver."""
    worker, problem = min(said.items())
    more = f" So do {len(said) - 1} others." if len(said) > 1 else ""
    return ConfigError(f"The worker {worker} does not fit: {problem}.{more} {REMEDY}")


def _check(client: Client, setup: WorkerSetup) -> None:
    answers = client.run(problems_here, setup, on_error="return")
    said = {}
    for worker, answer in answers.items():
        if isinstance(answer, Exception):
            # Most often the package is not there at all.
            said[worker] = f"it cannot be asked ({type(answer).__name__}: {answer})"
        elif answer:
            said[worker] = "; ".join(answer)
    if said:
        raise unfit(said)
