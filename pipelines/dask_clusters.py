"""Starting, or reaching, the Dask workers that a machine file describes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import dask
from dask.system import cpu_count
from distributed import Client, LocalCluster, SpecCluster, WorkerPlugin
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from ccrl_wsi.errors import ConfigError
from pipelines.freed_memory import ONE_ARENA
from pipelines.lanes import CORES
from pipelines.machines import (
    AddressMachine,
    GpuMachine,
    LocalMachine,
    MachineSettings,
    SlurmMachine,
)
from pipelines.worker_setup import WorkerSetup, problems_here

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


def library_threads(partitions_at_once: int) -> dict[str, str]:
    """What libraries are told so that all cores work and no more threads than cores.

    ``partitions_at_once`` are those of this computer.
    """
    share = str(max(1, cpu_count() // partitions_at_once))
    return {**dict.fromkeys(ONE_THREAD, share), CORES: share, **ONE_ARENA}


class LeaveInterruptsToTheDriver(WorkerPlugin):  # type: ignore[misc]  # distributed is untyped
    """Ctrl-C reaches every process of a terminal; workers end when the driver does."""

    def setup(self, worker: Any) -> None:
        """Runs once in each worker."""
        del worker
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class LateWorkers(WorkerPlugin):  # type: ignore[misc]
    """Loads what a worker that joins later needs, before it gets work; what does not fit leaves."""

    def __init__(self, setup: WorkerSetup) -> None:
        self.worker_setup = setup

    async def setup(self, worker: Any) -> None:
        """Runs once in each worker."""
        problems = await asyncio.to_thread(problems_here, self.worker_setup)
        if problems:
            log.error("This worker does not fit the run and leaves: %s.", "; ".join(problems))
            worker.loop.add_callback(worker.close, reason="it does not fit the run")


@contextmanager
def connect(
    machine: MachineSettings, setup: WorkerSetup | None = None
) -> Iterator[tuple[Client, dict[str, int]]]:
    """A client with workers that fit, and the resources a partition must ask for.

    Raises
    ------
    ConfigError
        If nothing answers, no worker comes, one does not fit, or a package is missing.
    """
    if isinstance(machine, AddressMachine):
        with _reach(machine) as client:
            _say_if_nobody_works(client, machine.address)
            with _prepared(client, setup):
                yield client, {"GPU": 1} if _announces_gpu(client) else {}
        return
    with _started(machine) as cluster, Client(cluster, set_as_default=False) as client:
        client.register_plugin(LeaveInterruptsToTheDriver())
        _wait_for_worker(client, machine)
        if getattr(machine, "dashboard", None):
            log.info("Dask's dashboard: %s", client.dashboard_link)
        has_gpu = isinstance(machine, GpuMachine) or getattr(machine, "gpu", False)
        try:
            with _prepared(client, setup):
                yield client, {"GPU": 1} if has_gpu else {}
        except KeyboardInterrupt:
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
            raise


@contextmanager
def _prepared(client: Client, setup: WorkerSetup | None) -> Iterator[None]:
    """Workers that were looked at; those that come later are looked at when they do.

    Raises
    ------
    ConfigError
        If one that is there does not fit.
    """
    if setup is None:
        yield
        return
    _check_workers(client, setup)
    name = f"ccrl-wsi-{uuid4().hex}"
    client.register_plugin(LateWorkers(setup), name=name)
    try:
        yield
    finally:
        # The scheduler may outlive the run, and may be gone.
        with suppress(OSError, TimeoutError, ValueError):
            if client.status == "running":
                client.unregister_worker_plugin(name)


def _check_workers(client: Client, setup: WorkerSetup) -> None:
    answers = client.run(problems_here, setup, on_error="return")
    unfit = {}
    for worker, answer in answers.items():
        if isinstance(answer, Exception):
            # Most often the package is not there at all.
            unfit[worker] = f"it cannot be asked ({type(answer).__name__}: {answer})"
        elif answer:
            unfit[worker] = "; ".join(answer)
    if unfit:
        worker, said = min(unfit.items())
        more = f" So do {len(unfit) - 1} others." if len(unfit) > 1 else ""
        raise ConfigError(
            f"The worker {worker} does not fit: {said}.{more} Give all workers the same "
            "environment, weights and file systems as this computer, and start them again."
        )


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
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=machine.threads,
        memory_limit=machine.memory_limit,
        host="127.0.0.1",
        dashboard_address=machine.dashboard,
        scheduler_kwargs={"allowed_failures": DEATHS, **_dashboard(machine)},
        env=library_threads(workers * machine.threads),
        silence_logs=40,
    )


def fitting_workers(memory_gib: float = MEMORY_OF_A_WORKER_GIB) -> int:
    """As many processes as this computer has cores and memory for, at least one.

    ``memory_gib`` is what one of them needs.
    Limits of containers and batch systems count as the computer's own.
    """
    cores: int = cpu_count()
    return max(1, min(cores, int(MEMORY_LIMIT // (memory_gib * 2**30))))


def _dashboard(machine: LocalMachine | GpuMachine) -> dict[str, Any]:
    # Any free port: another run on this computer has the usual one.
    address = machine.dashboard or "127.0.0.1:0"
    return {"dashboard": machine.dashboard is not None, "dashboard_address": address}


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
    options = {"host": "127.0.0.1", "allowed_failures": DEATHS, **_dashboard(machine)}
    scheduler = {"cls": Scheduler, "options": options}
    # What the C library and BLAS read when they are loaded has to be there before a worker is.
    early = {
        f"distributed.nanny.pre-spawn-environ.{name}": environment[name]
        for name in (*ONE_THREAD, *ONE_ARENA)
    }
    with dask.config.set(early):
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
    if not machine.gpu:
        exports = [f"export {name}={value}" for name, value in {**ONE_THREAD, **ONE_ARENA}.items()]
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
