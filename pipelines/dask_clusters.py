"""Starting, or reaching, the Dask workers that a machine file describes."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import dask
from dask.system import cpu_count
from distributed import Client, LocalCluster, SpecCluster, WorkerPlugin
from distributed.scheduler import DEFAULT_EXTENSIONS
from distributed.security import Security
from distributed.spans import SpansSchedulerExtension
from distributed.system import MEMORY_LIMIT

from ccrl_wsi.errors import ConfigError, RunStopped
from pipelines.freed_memory import ONE_ARENA
from pipelines.lanes import CORES
from pipelines.machines import (
    AddressMachine,
    GpuMachine,
    LocalMachine,
    MachineSettings,
    SlurmMachine,
)
from pipelines.worker_setup import WorkerSetup
from pipelines.worker_watch import Watch, telling_lost, watched

log = logging.getLogger("ccrl_wsi")

CONNECT_SECONDS = 30
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
"""Workers are one per core: libraries that start threads of their own would only queue."""


MEMORY_OF_A_WORKER_GIB = 2
"""What a partition needs at least."""


FOR_DEVELOPERS = {
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.log-length": 900,
    "distributed.worker.profile.enabled": False,
}
"""What Dask keeps and measures for its dashboard, as little as there is use for without one.

By itself it holds the last 1000 messages of every connection, each with whole jobs, and looks at
clocks, disks and stacks up to a hundred times a second.
"""


class SpansThatForget(SpansSchedulerExtension):  # type: ignore[misc]  # distributed is untyped
    """What Dask keeps of all tasks together, without the line it adds for each of them."""

    def observe_tasks(self, *told: Any, **named: Any) -> Any:
        """Called by the scheduler with new tasks."""
        if "span_metadata" in named:
            named["span_metadata"] = {}
        return super().observe_tasks(*told, **named)


def _scheduler_options() -> dict[str, Any]:
    extensions = {**DEFAULT_EXTENSIONS, "spans": SpansThatForget}
    if not dask.config.get("distributed.scheduler.work-stealing"):
        del extensions["stealing"]
    return {"extensions": extensions}


def library_threads(partitions_at_once: int, cores: int | None = None) -> dict[str, str]:
    """What libraries are told so that all cores work and no more threads than cores.

    ``partitions_at_once`` are those that share the ``cores``; None: those of this computer.
    """
    share = str(max(1, (cores or cpu_count()) // partitions_at_once))
    return {**dict.fromkeys(ONE_THREAD, share), CORES: share, **ONE_ARENA}


class LeaveInterruptsToTheDriver(WorkerPlugin):  # type: ignore[misc]  # distributed is untyped
    """Ctrl-C reaches every process of a terminal; workers end when the driver does."""

    def setup(self, worker: Any) -> None:
        """Runs once in each worker."""
        del worker
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class Workers(NamedTuple):
    """Who works: a client, what a partition must ask for now, and what is known of the others."""

    client: Client
    resources: Callable[[], dict[str, int]]
    watch: Watch


@contextmanager
def connect(machine: MachineSettings, setup: WorkerSetup | None = None) -> Iterator[Workers]:
    """Workers that fit.

    Raises
    ------
    ConfigError
        If nothing answers, no worker comes, one does not fit, or a package is missing.
    RunStopped
        If the scheduler goes away meanwhile.
    """
    with dask.config.set(_measured_less(machine)), _connected(machine, setup) as workers:
        yield workers


@contextmanager
def _connected(machine: MachineSettings, setup: WorkerSetup | None) -> Iterator[Workers]:
    if isinstance(machine, AddressMachine):
        with _reach(machine) as client, _told_once(client):
            with telling_lost(client):
                _say_if_nobody_works(client, machine.address)
            with watched(client, setup) as watch:
                # Workers with GPUs may come and go.
                yield Workers(client, lambda: GPU if _announces_gpu(client) else {}, watch)
        return
    with (
        _started(machine) as cluster,
        Client(cluster, set_as_default=False) as client,
        _told_once(client),
    ):
        client.register_plugin(LeaveInterruptsToTheDriver())
        _wait_for_worker(client, machine)
        if getattr(machine, "dashboard", None):
            log.info("Dask's dashboard: %s", client.dashboard_link)
        has_gpu = isinstance(machine, GpuMachine) or getattr(machine, "gpu", False)
        with watched(client, setup) as watch:
            yield Workers(client, lambda: GPU if has_gpu else {}, watch)


def _measured_less(machine: MachineSettings) -> dict[str, Any]:
    """:data:`FOR_DEVELOPERS`, without what the user's own Dask configuration says."""
    if getattr(machine, "dashboard", None):
        return {}
    usual = dask.config.merge(*dask.config.defaults)
    return {
        name: value
        for name, value in FOR_DEVELOPERS.items()
        if dask.config.get(name) == dask.config.get(name, config=usual)
    }


@contextmanager
def _told_once(client: Client) -> Iterator[None]:
    """Whoever ends a run, or loses its scheduler, hears of it once; not from every part of Dask."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, RunStopped):
        _silence_dask()
        raise
    if client.status != "running":  # Lost when all was done.
        _silence_dask()


def _silence_dask() -> None:
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


GPU = {"GPU": 1}
"""What a partition asks for where workers announce GPUs."""


@contextmanager
def _started(machine: MachineSettings) -> Iterator[SpecCluster]:
    cluster = _start(machine)
    try:
        yield cluster
    finally:
        # Workers that take long to end do not undo what is finished; they end with this process.
        with suppress(TimeoutError):
            cluster.close()


def _start(machine: MachineSettings) -> SpecCluster:
    if isinstance(machine, LocalMachine):
        return _local(machine)
    if isinstance(machine, GpuMachine):
        return _one_worker_per_gpu(machine)
    if isinstance(machine, SlurmMachine):
        return _slurm(machine)
    raise ConfigError(f"A machine of kind {machine.kind!r} has no workers to start.")


def _local(machine: LocalMachine) -> LocalCluster:
    workers = machine.workers or fitting_workers()
    environment = library_threads(workers * machine.threads)
    with dask.config.set(_before_it_starts(environment)):
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=machine.threads,
            memory_limit=machine.memory_limit,
            host="127.0.0.1",
            dashboard_address=machine.dashboard,
            scheduler_kwargs={"allowed_failures": DEATHS, **_scheduler(machine)},
            env=environment,
            silence_logs=40,
        )


def _before_it_starts(environment: dict[str, str]) -> dict[str, str]:
    """What the C library and BLAS read when they are loaded must be there before a worker is."""
    names = (*ONE_THREAD, *ONE_ARENA)
    return {f"distributed.nanny.pre-spawn-environ.{name}": environment[name] for name in names}


def fitting_workers(memory_gib: float = MEMORY_OF_A_WORKER_GIB) -> int:
    """As many processes as this computer has cores and memory for, at least one.

    ``memory_gib`` is what one of them needs. Limits of containers and batch systems count as
    this computer's.
    """
    cores: int = cpu_count()
    return max(1, min(cores, int(MEMORY_LIMIT // (memory_gib * 2**30))))


def _scheduler(machine: LocalMachine | GpuMachine) -> dict[str, Any]:
    # Any free port: another run on this computer has the usual one.
    address = machine.dashboard or "127.0.0.1:0"
    shown = {"dashboard": machine.dashboard is not None, "dashboard_address": address}
    return {**shown, **_scheduler_options()}


DEATHS = 1
"""On one computer workers die of what they do: a second death is enough to know."""


def _one_worker_per_gpu(machine: GpuMachine) -> SpecCluster:
    from distributed import Nanny, Scheduler

    visible = visible_gpus()
    if not visible:
        raise ConfigError(
            "--on gpu: no CUDA GPU is visible. Check `nvidia-smi` and `ccrl-wsi doctor`, "
            "or run with --on local."
        )
    options = {"nthreads": machine.threads, "memory_limit": machine.memory_limit}
    chosen = visible[: machine.gpus or len(visible)]
    environment = library_threads(len(chosen) * machine.threads)
    workers = {
        f"gpu{gpu}": {
            "cls": Nanny,
            "options": {
                **options,
                "host": "127.0.0.1",
                "resources": {"GPU": machine.threads},
                "env": {**environment, "CUDA_VISIBLE_DEVICES": gpu},
            },
        }
        for gpu in chosen
    }
    options = {"host": "127.0.0.1", "allowed_failures": DEATHS, **_scheduler(machine)}
    scheduler = {"cls": Scheduler, "options": options}
    with dask.config.set(_before_it_starts(environment)):
        return SpecCluster(scheduler=scheduler, workers=workers)


def visible_gpus() -> list[str]:
    """Numbers or names of the CUDA GPUs this process may use."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [gpu for gpu in listed.split(",") if gpu and gpu != "-1"]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _slurm(machine: SlurmMachine) -> SpecCluster:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise ConfigError('SLURM needs dask-jobqueue: pip install "ccrl-wsi[slurm]".') from None
    options = machine.cluster_options()
    options["scheduler_options"].update(_scheduler_options())
    environment = library_threads(machine.partitions_at_once, machine.cores)
    exports = [f"export {name}={value}" for name, value in environment.items()]
    # The user's own lines come later and are right.
    options["job_script_prologue"] = [*exports, *options.get("job_script_prologue", [])]
    cluster = SLURMCluster(**options)
    cluster.adapt(minimum_jobs=machine.minimum_jobs, maximum_jobs=machine.maximum_jobs)
    return cluster


def _reach(machine: AddressMachine) -> Client:
    # Without files of its own, TLS follows Dask's configuration.
    tls = {"security": Security(require_encryption=True, **machine.tls_options())}
    options = tls if machine.tls_options() else {}
    try:
        return Client(machine.address, timeout=CONNECT_SECONDS, set_as_default=False, **options)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise ConfigError(
            f"No Dask scheduler answers at {machine.address} ({error}). Start one with "
            "`dask scheduler`, or check the address, the firewall and the TLS files."
        ) from None


def _wait_for_worker(client: Client, machine: MachineSettings) -> None:
    if isinstance(machine, SlurmMachine):
        return  # Jobs may queue for hours; work starts when the first one does.
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS * 4)
    except TimeoutError:
        raise ConfigError("No Dask worker started. See the messages above.") from None


def _say_if_nobody_works(client: Client, address: str) -> None:
    if not client.nthreads():
        log.warning(
            "No worker yet at %s; waiting. Start one with `dask worker %s`.", address, address
        )


def _announces_gpu(client: Client) -> bool:
    workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return any("GPU" in worker.get("resources", {}) for worker in workers.values())
