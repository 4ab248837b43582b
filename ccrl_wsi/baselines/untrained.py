"""The paper's network before any training: what its architecture alone makes of a crop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.crop_set import CropSet, channel_statistics
from ccrl_wsi.devices import computing
from ccrl_wsi.seeding import rng_for

CPU_BATCH = 128
"""Crops at once on a CPU, whose cache holds no more."""


@dataclass(frozen=True, slots=True)
class ChannelScale:
    """Mean and standard deviation of each colour channel, on a scale of 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Untrained:
    """A network with random weights as PyTorch draws them, in evaluation mode.

    Its batch normalisation has seen nothing, so it only scales by its initial values, mean 0 and
    variance 1. Equal seeds give equal weights, whatever else draws random numbers.

    Parameters
    ----------
    build
        Makes the network: images (b, channels, side, side) to vectors (b, ``n_dimensions``).
    scale
        Pixels are normalised with it, as a trained encoder's would be.
    seed
        Of the weights.
    device
        As PyTorch names it.
    batch_size
        Crops the network takes at once; on a CPU never more than ``CPU_BATCH``.
    """

    name = "untrained"
    standardise = False

    def __init__(
        self,
        build: Callable[[], nn.Module],
        scale: ChannelScale,
        seed: int,
        device: str = "cpu",
        batch_size: int = 1024,
    ) -> None:
        network = random_network(build, seed).eval()
        self.n_dimensions = cast(int, network.n_dimensions)
        self.fingerprint = _fingerprint(network, scale)
        self._network, self._device = network.to(device), torch.device(device)
        is_cpu = self._device.type == "cpu"
        self._scale = scale
        self._batch_size = min(batch_size, CPU_BATCH) if is_cpu else batch_size
        if is_cpu:  # as crops lie in memory anyway
            self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, crops: ByteArray, measurements: FloatArray) -> FloatArray:
        """Embeddings (n, d) float32 of ``crops`` (n, side, side, channels) uint8."""
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=self._device).view(1, -1, 1, 1)
            for v in (self._scale.mean, self._scale.std)
        )
        vectors = np.empty((len(crops), self.n_dimensions), np.float32)
        with computing(str(self._device), "float32"):
            for start in range(0, len(crops), self._batch_size):
                batch = torch.tensor(crops[start : start + self._batch_size]).to(self._device)
                found = self._network((batch.permute(0, 3, 1, 2).float() / 255 - mean) / std)
                vectors[start : start + self._batch_size] = found.float().cpu().numpy()
        return vectors


def random_network(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What ``build`` makes, with weights that depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng_for(seed, "untrained weights").integers(2**63)))
        return build()


def channel_scale(crops: CropSet) -> ChannelScale:
    """Mean and standard deviation of all pixels of ``crops``, as a training normalises by them."""
    mean, std = channel_statistics(crops.crops)
    return ChannelScale(tuple(mean.tolist()), tuple(std.tolist()))


def _fingerprint(network: nn.Module, scale: ChannelScale) -> str:
    digest = hashlib.sha256(repr(scale).encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
