"""Crops to embeddings with a trained CCRL network."""

from __future__ import annotations

import hashlib
from collections import deque
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.device_work import GpuWork, enough_memory, gpu_work, pinned
from ccrl_wsi.devices import (
    ASKING_GPU,
    computing,
    move_to,
    warn_of_slow_precision,
    with_precision,
)
from ccrl_wsi.embeddings.checkpoint import CheckpointHeader, load_checkpoint
from ccrl_wsi.embeddings.network import build_network
from ccrl_wsi.embeddings.size_feature import size_column
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.measurement_names import columns_of

CPU_BATCH = 128
"""Crops at once on a CPU, whose cache holds no more: with 1024 it takes up to twice as long."""

GPU_AHEAD = 2
"""Batches a GPU is given before the first of them is done: more would only fill pinned memory."""


class CcrlEncoder:
    """A checkpoint's network, ready on ``device``; the embedding is the encoder's plain output.

    Where the checkpoint says so, it is scaled to unit length, and the nucleus' size follows as the
    last dimension.

    Equal calls give equal bits on the CPU. Which other crops share a batch changes an embedding
    by rounding only (about 1e-6 of its length).

    Parameters
    ----------
    path
        A checkpoint; see :mod:`ccrl_wsi.embeddings.checkpoint`.
    device
        As PyTorch names it: ``cpu``, ``cuda``, ``cuda:1``.
    batch_size
        Crops the network takes at once; on a CPU never more than ``CPU_BATCH``.
    precision
        What it computes in; see :class:`EmbeddingSettings`. Embeddings are float32 in any case.

    Raises
    ------
    ModelError
        If the checkpoint is missing, damaged or foreign.
    """

    def __init__(
        self, path: Path, device: str, batch_size: int, precision: str = "float32"
    ) -> None:
        self.header, state = load_checkpoint(path)
        warn_of_slow_precision("embedding", precision, device)
        self._precision = precision
        self._device = torch.device(device)
        is_cpu = self._device.type == "cpu"
        self._is_gpu = self._device.type == "cuda"
        self._batch_size = min(batch_size, CPU_BATCH) if is_cpu else batch_size
        self._network = _ready_network(path, self.header, state)
        move_to(self._network, self._device)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        self._fingerprint = with_precision(digest, precision)
        # (x / 255 - mean) / std, in one multiplication and one addition.
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=self._device).view(1, -1, 1, 1)
            for v in (self.header.mean, self.header.std)
        )
        self._factor, self._shift = 1 / (255 * std), -mean / std

    @property
    def name(self) -> str:
        """The name in the checkpoint's header."""
        return self.header.name

    @property
    def n_dimensions(self) -> int:
        """512 for the paper's network; one more with the size."""
        return self.header.n_dimensions

    @property
    def fingerprint(self) -> str:
        """Of the whole checkpoint file (weights, normalisation, crop rule) and the precision."""
        return self._fingerprint

    @property
    def standardise(self) -> bool:
        """No: the network's dimensions have one unit, and the size has its weight already."""
        return False

    def __call__(self, crops: ByteArray, measurements: FloatArray) -> FloatArray:
        """Embeddings (n, d) float32 of ``crops`` (n, side, side, 3) uint8.

        ``measurements`` (n, m) are looked at only if the size is a dimension.
        """
        side = self.header.crop.size_px
        if crops.shape[1:] != (side, side, len(self.header.mean)):
            raise ConfigError(
                f"{self.name} takes crops of {side} x {side} px; these are {crops.shape[1:]}. "
                f"Set crops.size_px={side}."
            )
        vectors = self._seen(crops)
        if self.header.size is None:
            return vectors
        area_um2 = columns_of(measurements, ("area_um2",))[:, 0]
        return np.column_stack([vectors, size_column(area_um2, self.header.size)])

    def _seen(self, crops: ByteArray) -> FloatArray:
        """What the network makes of crops."""
        n_seen = self.n_dimensions - (self.header.size is not None)
        # Kept on the device until the end, so that a GPU waits for nothing between batches.
        found = torch.empty((len(crops), n_seen), device=self._device)
        under_way: deque[GpuWork] = deque()
        with computing(str(self._device), self._precision):
            for start in range(0, len(crops), self._batch_size):
                place = slice(start, start + self._batch_size)
                if not self._is_gpu:
                    found[place] = self._look(torch.tensor(crops[place]))
                    continue
                if len(under_way) == GPU_AHEAD:
                    _await(under_way.popleft())
                under_way.append(self._asked(crops[place], found[place]))
        for work in under_way:
            _await(work)
        vectors: FloatArray = found.cpu().numpy()
        return unit_rows(vectors) if self.header.unit_length else vectors

    def _asked(self, crops: ByteArray, found: Tensor) -> GpuWork:
        """Ask a GPU, which puts its answer into ``found`` before its work ends."""
        device, advice = str(self._device), "Set embedding.batch_size lower."
        # Moments are of the current device, and a thread begins with the first.
        with enough_memory(device, f"{len(crops)} crops", advice), torch.cuda.device(self._device):
            staged = pinned(crops)
            with ASKING_GPU, gpu_work("encoder", device) as work:
                found.copy_(self._look(staged.to(self._device, non_blocking=True)))
        return work

    def _look(self, batch: Tensor) -> Tensor:
        """What the network says of crops (n, side, side, 3) uint8, where they are."""
        pixels = batch.permute(0, 3, 1, 2).float() * self._factor + self._shift
        seen: Tensor = self._network(pixels)
        return seen


def _await(work: GpuWork) -> None:
    work.ended.synchronize()
    work.tell()


def unit_rows(vectors: FloatArray) -> FloatArray:
    """``vectors`` (n, d) divided by their lengths; a vector of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: FloatArray = vectors / np.maximum(length, np.finfo(np.float32).tiny)
    return scaled


def _ready_network(path: Path, header: CheckpointHeader, state: dict[str, Tensor]) -> nn.Module:
    network = build_network(header.architecture, header.arguments)
    network.load_state_dict(state)
    n_given = cast(int, network.n_dimensions) + (header.size is not None)
    if n_given != header.n_dimensions:
        more = ", the size among them" if header.size else ""
        raise ModelError(
            f"The checkpoint {path} promises {header.n_dimensions} dimensions; its network gives "
            f"{n_given}{more}. Copy or download it again."
        )
    return network.eval()
