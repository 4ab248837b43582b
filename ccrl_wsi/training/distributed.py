"""Processes that train together, as torchrun starts them: joining, sharing rows and gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.training.learner import World

_TOLD_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def join_world(device: str) -> World:
    """Meet the other processes that torchrun started; without torchrun, be alone.

    Afterwards ``cuda`` means this process' own GPU.

    Parameters
    ----------
    device
        ``cpu`` or ``cuda``, as ``ccrl_wsi.devices.resolve_device`` gives it. NCCL connects GPUs,
        Gloo connects CPUs.

    Raises
    ------
    ConfigError
        If torchrun's variables are incomplete, or there are more processes than GPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return World()
    missing = [name for name in _TOLD_BY_TORCHRUN if name not in os.environ]
    if missing:
        raise ConfigError(
            f"RANK and WORLD_SIZE are set, but {', '.join(missing)} is not. Start several "
            "processes with torchrun, or unset RANK and WORLD_SIZE to train alone."
        )
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(_own_gpu(device, world))
    if world.size > 1:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", rank=world.rank, world_size=world.size
        )
    return world


def leave_world() -> None:
    """Part from the other processes, if there are any."""
    if are_together():
        dist.destroy_process_group()


def are_together() -> bool:
    """Whether several processes train together now."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_rows(rows: Tensor) -> Tensor:
    """The ``rows`` (n, ...) of all processes, in their order, without gradient: (size * n, ...).

    Alone, ``rows`` itself, detached. All processes shall give equally many.
    """
    rows = rows.detach()
    if not are_together():
        return rows
    rows = rows.contiguous()
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)


def gather_with_gradient(rows: Tensor) -> Tensor:
    """The ``rows`` (n, ...) of all processes, in their order: (size * n, ...).

    Each row's gradient is the sum of those that all processes have for it, so that averaging the
    parameters' gradients afterwards gives the gradient of the mean of all losses.
    """
    if not are_together():
        return rows
    gathered: Tensor = _GatherWithGradient.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.n = len(rows)
        return gather_rows(rows)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        start = dist.get_rank() * context.n
        return gradient[start : start + context.n]


def average_gradients(parameters: Iterable[Parameter]) -> None:
    """Replace every gradient by its mean over all processes. Alone, nothing happens."""
    if not are_together():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    # One message instead of one a parameter: small ones take as long as large ones.
    joined = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(joined)
    joined /= dist.get_world_size()
    parts = torch.split(joined, [g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of ``values`` over all processes, without gradient. Alone, ``values``."""
    values = values.detach()
    if are_together():
        values = values.clone()
        dist.all_reduce(values)
    return values


def copy_from_first(values: Tensor) -> Tensor:
    """The first process' ``values``, in all of them. Alone, ``values``."""
    if are_together():
        values = values.clone()
        dist.broadcast(values, src=0)
    return values


def _own_gpu(device: str, world: World) -> int:
    number = int(os.environ["LOCAL_RANK"])
    if device != "cuda" and world.size > 1:
        raise ConfigError(
            f"compute.device={device} names one GPU for {world.size} processes. "
            "Set compute.device=cuda: each process takes its own."
        )
    if device != "cuda":
        return int(device.partition(":")[2])
    n_gpus = torch.cuda.device_count()
    if number >= n_gpus:
        raise ConfigError(
            f"Process {number} of this machine finds no GPU of its own: PyTorch sees {n_gpus}. "
            f"Start torchrun with --nproc-per-node={n_gpus} at most."
        )
    return number
