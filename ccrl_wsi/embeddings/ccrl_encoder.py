"""Crops to embeddings with a trained CCRL network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.embeddings.checkpoint import CheckpointHeader, load_checkpoint
from ccrl_wsi.embeddings.network import build_network
from ccrl_wsi.errors import ConfigError, ModelError


class CcrlEncoder:
    """A checkpoint's network, ready on ``device``; the embedding is the encoder's plain output.

    Equal calls give equal bits on the CPU. Which other crops share a batch changes an embedding
    by rounding only (about 1e-6 of its length).

    Parameters
    ----------
    path
        A checkpoint; see :mod:`ccrl_wsi.embeddings.checkpoint`.
    device
        As PyTorch names it: ``cpu``, ``cuda``, ``cuda:1``.
    batch_size
        Crops the network takes at once.

    Raises
    ------
    ModelError
        If the checkpoint is missing, damaged or foreign.
    """

    def __init__(self, path: Path, device: str, batch_size: int) -> None:
        self.header, state = load_checkpoint(path)
        self._device, self._batch_size = torch.device(device), batch_size
        self._network = _ready_network(path, self.header, state).to(self._device)
        with path.open("rb") as file:
            self._fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:16]
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
        """512 for the paper's network."""
        return self.header.n_dimensions

    @property
    def fingerprint(self) -> str:
        """Hash of the whole checkpoint file: weights, normalisation and crop rule."""
        return self._fingerprint

    @property
    def standardise(self) -> bool:
        """No: all dimensions have the same unit."""
        return False

    def __call__(self, crops: ByteArray, measurements: FloatArray) -> FloatArray:
        """Embeddings (n, d) float32 of ``crops`` (n, side, side, 3) uint8."""
        side = self.header.crop.size_px
        if crops.shape[1:] != (side, side, len(self.header.mean)):
            raise ConfigError(
                f"{self.name} takes crops of {side} x {side} px; these are {crops.shape[1:]}. "
                f"Set crops.size_px={side}."
            )
        vectors = np.empty((len(crops), self.n_dimensions), np.float32)
        with torch.inference_mode():
            for start in range(0, len(crops), self._batch_size):
                batch = torch.tensor(crops[start : start + self._batch_size])
                pixels = batch.to(self._device).permute(0, 3, 1, 2).float()
                found = self._network(pixels * self._factor + self._shift)
                vectors[start : start + self._batch_size] = found.float().cpu().numpy()
        return vectors


def _ready_network(path: Path, header: CheckpointHeader, state: dict[str, Tensor]) -> nn.Module:
    network = build_network(header.architecture, header.arguments)
    network.load_state_dict(state)
    if network.n_dimensions != header.n_dimensions:
        raise ModelError(
            f"The checkpoint {path} promises {header.n_dimensions} dimensions; its network gives "
            f"{network.n_dimensions}. Copy or download it again."
        )
    return network.eval()
