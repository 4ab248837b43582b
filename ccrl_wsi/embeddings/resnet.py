"""The plain ResNets (He et al. 2016) for crops of 64 px and more, with any number of channels."""

from __future__ import annotations

from typing import Any

from torch import nn

PLAIN_RESNETS = ("resnet18", "resnet50")


def plain_resnet(name: str, n_channels: int = 3) -> nn.Module:
    """The ResNet of torchvision without its classifier: (b, n_channels, h, w) to (b, 512 or 2048).

    The embedding is the mean over the last stage's pixels. Weights are fresh.
    """
    from torchvision import models

    network: Any = models.get_model(name, weights=None)
    network.n_dimensions = network.fc.in_features
    network.fc = nn.Identity()
    if n_channels != 3:
        network.conv1 = nn.Conv2d(n_channels, 64, 7, stride=2, padding=3, bias=False)
    found: nn.Module = network
    return found
