"""Starting, or reaching, the Dask workers that a machine file describes."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask.system import cpu_count
from distributed import Client, LocalCluster, SpecCluster, WorkerPlugin

from ccrl_wsi.errors import ConfigError
from pipelines.machines import (
    AddressMachine,
    GpuMachine,
    LocalMachine,
    MachineSettings,
    SlurmMachine,
)
from pipelines.network_memory import ONE_ARENA

log = logging.getLogger("ccrl_wsi")

CONNECT_SECONDS = 30
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
"""Workers are one per core: libraries that start threads of their own would only queue."""


def library_threads(partitions_at_once: int) -> dict[str, str]:
    """What libraries are told so that all cores work and no more threads than cores.

    ``partitions_at_once`` are those of this computer.
    """
    share = max(1, cpu_count() // partitions_at_once)
    return {**dict.fromkeys(ONE_THREAD, str(share)), **ONE_ARENA}


NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
"""Any free port: another run on this computer has the usual one."""


class LeaveInterruptsToTheDriver(WorkerPlugin):  # type: ignore[misc]  # distributed is untyped
    """Ctrl-C reaches every process of a terminal; workers end when the driver does."""

    def setup(self, worker: Any) -> None:
        """Runs once in each worker."""
        del worker
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def connect(machine: MachineSettings) -> Iterator[tuple[Client, dict[str, int]]]:
    """A client with at least one worker, and the resources a partition must ask for.

    Raises
    ------
    ConfigError
        If nothing answers, no worker comes, or a package is missing.
    """
    if isinstance(machine, AddressMachine):
        with _reach(machine.address) as client:
            _say_if_nobody_works(client, machine.address)
            yield client, {"GPU": 1} if _announces_gpu(client) else {}
        return
    with _start(machine) as cluster, Client(cluster, set_as_default=False) as client:
        client.register_plugin(LeaveInterruptsToTheDriver())
        _wait_for_worker(client, machine)
        has_gpu = isinstance(machine, GpuMachine) or getattr(machine, "gpu", False)
        try:
            yield client, {"GPU": 1} if has_gpu else {}
        except KeyboardInterrupt:
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
            raise


def _start(machine: MachineSettings) -> SpecCluster:
    if isinstance(machine, LocalMachine):
        workers = machine.workers or cpu_count()
        return _local(workers, machine.threads, machine.memory_limit)
    if isinstance(machine, GpuMachine):
        return _one_worker_per_gpu(machine)
    if isinstance(machine, SlurmMachine):
        return _slurm(machine)
    raise ConfigError(f"A machine of kind {machine.kind!r} has no workers to start.")


def _local(workers: int, threads: int, memory_limit: str) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        memory_limit=memory_limit,
        host="127.0.0.1",
        dashboard_address=None,
        scheduler_kwargs=NO_DASHBOARD,
        env=library_threads(workers * threads),
        silence_logs=40,
    )


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
    workers = {
        f"gpu{gpu}": {
            "cls": Nanny,
            "options": {
                **options,
                "host": "127.0.0.1",
                "resources": {"GPU": machine.threads},
                "env": {"CUDA_VISIBLE_DEVICES": gpu},
            },
        }
        for gpu in chosen
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", **NO_DASHBOARD}}
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


def _reach(address: str) -> Client:
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError):
        raise ConfigError(
            f"No Dask scheduler answers at {address}. Start one with `dask scheduler`, "
            "or check the address and the firewall."
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
