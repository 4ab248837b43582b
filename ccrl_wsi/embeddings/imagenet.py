"""Features of a network trained on photographs: torchvision's ResNet before its last layer.

The CCRL paper's ImageNet row names neither network nor layer. Chosen here: ResNet-18, as CCRL's own
backbone is of that family (``imagenet50``: ResNet-50), ``IMAGENET1K_V1`` weights, the mean over the
last feature map, crops enlarged to 224 px bilinearly and normalised by ImageNet's colours.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.config import EmbeddingSettings
from ccrl_wsi.device_work import enough_memory, told_work
from ccrl_wsi.devices import computing, move_to, warn_of_slow_precision
from ccrl_wsi.embeddings.imagenet_weights import (
    download_place,
    imagenet_weights,
    load_imagenet_weights,
)
from ccrl_wsi.embeddings.resnet import plain_resnet

SIDE_PX = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours, on a scale of 0..1."""
NETWORKS = {"imagenet": "resnet18", "imagenet50": "resnet50"}
_OR_SET = (
    "name it with --set embedding.weights=FILE (ccrl-wsi evaluate: --set imagenet_weights=FILE)."
)
CPU_BATCH = 32


class ImageNet:
    """A photograph network's 512 (ResNet-50: 2048) features.

    Parameters
    ----------
    settings
        ``encoder`` is a key of ``NETWORKS``; ``weights`` torchvision's state dictionary (.pth) or
        the same tensors as .safetensors, None: torchvision's download, or what an earlier one
        left; ``batch_size`` on a CPU never counts for more than ``CPU_BATCH``.
    device
        As PyTorch names it.

    Raises
    ------
    ModelError
        If weights cannot be had, or are those of another network.
    """

    standardise = False

    def __init__(self, settings: EmbeddingSettings, device: str) -> None:
        name, weights, batch_size = settings.encoder, settings.weights, settings.batch_size
        self.name, architecture = name, NETWORKS[name]
        warn_of_slow_precision("embedding", settings.precision, device)
        self._precision = settings.precision
        network: Any = plain_resnet(architecture)
        self.n_dimensions = int(network.n_dimensions)
        state = imagenet_weights(architecture, weights, _OR_SET)
        origin = f"{weights or download_place(architecture)} was given for {name} ({architecture})"
        load_imagenet_weights(network, state, origin)
        self._device = torch.device(device)
        self._network = network.eval()
        move_to(self._network, self._device)
        self.fingerprint = _fingerprint(network)
        self._batch_size = min(batch_size, CPU_BATCH) if self._device.type == "cpu" else batch_size
        mean, std = (torch.tensor(v, device=self._device).view(1, 3, 1, 1) for v in (MEAN, STD))
        self._mean, self._std = mean, std

    def __call__(self, crops: ByteArray, measurements: FloatArray) -> FloatArray:
        """Embeddings (n, d) float32 of ``crops`` (n, side, side, 3); measurements are not used."""
        vectors = np.empty((len(crops), self.n_dimensions), np.float32)
        device, advice = str(self._device), "Set embedding.batch_size lower."
        with (
            computing(device, self._precision),
            enough_memory(device, "a batch of crops", advice),
        ):
            for start in range(0, len(crops), self._batch_size):
                place = slice(start, start + self._batch_size)
                with told_work("encoder", device):
                    vectors[place] = self._look(crops[place]).cpu().numpy()
        return vectors

    def _look(self, crops: ByteArray) -> torch.Tensor:
        """Features (n, d) float32 of crops, on the device."""
        pixels = torch.tensor(crops).to(self._device).permute(0, 3, 1, 2).float() / 255
        large = interpolate(pixels, (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True)
        found: torch.Tensor = self._network((large - self._mean) / self._std)
        return found.float()


def _fingerprint(network: nn.Module) -> str:
    digest = hashlib.sha256(f"{SIDE_PX} {MEAN} {STD}".encode())
    for key, tensor in network.state_dict().items():
        digest.update(key.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
