"""Batch normalisation over the batch of all processes, so that two train as one would."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ccrl_wsi.training.distributed import are_together


def over_all_processes(module: nn.Module, device: str) -> nn.Module:
    """``module`` with every batch normalisation taken over all processes; alone, as it is.

    Parameters and running statistics stay the same tensors under the same names. On CUDA it is
    :class:`torch.nn.SyncBatchNorm`; that refuses CPUs, which get :class:`GlobalBatchNorm`.
    Use what is returned: a module that is itself a normalisation is replaced.
    """
    if not are_together():
        return module
    if device.startswith("cuda"):
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return converted
    return _converted(module)


class GlobalBatchNorm(_BatchNorm):
    """Batch normalisation (1d or 2d) with mean and variance over all processes, by any backend.

    Every process shall hold equally many rows. With running statistics in use (evaluation), no
    process talks to another.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalised (n, c, ...) like ``input``."""
        is_local = not self.training and self.running_mean is not None
        if is_local or not are_together():
            return super().forward(input)
        x = input.float()
        over = [axis for axis in range(x.ndim) if axis != 1]
        n = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _summed(x.sum(over)) / n
        centred = x - _along_channels(mean, x)
        # In two passes: the mean of squares less the square of the mean loses digits.
        variance = _summed(centred.square().sum(over)) / n
        if self.training:
            self._remember(mean.detach(), variance.detach() * (n / (n - 1)))
        y = centred * _along_channels(torch.rsqrt(variance + self.eps), x)
        if self.affine:
            y = y * _along_channels(self.weight, x) + _along_channels(self.bias, x)
        return y.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (n, c, ...), not {tuple(input.shape)}")

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        weight = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            if weight is None:
                weight = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight or 0.0)
        self.running_var.lerp_(variance, weight or 0.0)


class _Summed(torch.autograd.Function):
    """Sum over the processes. Each one's values enter every sum, so gradients are summed too."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _summed(values: Tensor) -> Tensor:
    result: Tensor = _Summed.apply(values)  # type: ignore[no-untyped-call]
    return result


def _along_channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.ndim - 2))


def _converted(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        twin = GlobalBatchNorm(
            module.num_features,
            module.eps,
            module.momentum,
            module.affine,
            module.track_running_stats,
        )
        # The same tensors, not copies: an optimiser or a key network may hold them already.
        twin._parameters = module._parameters
        twin._buffers = module._buffers
        twin.train(module.training)
        return twin
    for name, child in module.named_children():
        setattr(module, name, _converted(child))
    return module
