"""The plain ResNets (He et al. 2016) for crops of 64 px and more, with any number of channels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ccrl_wsi.errors import ModelError

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


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The ImageNet weights (torchvision, version 1) of a ResNet, without its classifier.

    They are downloaded once, into torch's own folder.

    Raises
    ------
    ModelError
        If they are not there and cannot be downloaded.
    """
    from torchvision import models

    weights: Any = models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"The ImageNet weights of {name} cannot be fetched ({error}). Put {weights.url} into "
            "torch's folder hub/checkpoints (TORCH_HOME), or set network.pretrained=false."
        ) from None
    return {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
