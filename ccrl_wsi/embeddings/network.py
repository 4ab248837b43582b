"""The backbone: a pre-activation ResNet-18 for small images.

As in the paper and the code of its authors' next one: the CIFAR stem (one 3 x 3 convolution of
stride 1, no max-pooling, so that 32 px end as 4 px) and *no* normalisation or ReLU after the last
block: the embedding is the plain mean of what the residual blocks add up to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccrl_wsi.embeddings.dcae_network import DcaeEncoder
from ccrl_wsi.embeddings.infogan_network import InfoganCritic
from ccrl_wsi.embeddings.pixel_network import PixelProjection
from ccrl_wsi.embeddings.resnet import PLAIN_RESNETS, plain_resnet

WIDTHS = (64, 128, 256, 512)
BLOCKS_PER_STAGE = 2


class PreActBlock(nn.Module):
    """Two 3 x 3 convolutions, each after normalisation and ReLU, added to the input."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(n_in)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(n_in, n_out, 1, stride, bias=False) if stride > 1 or n_in != n_out else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, n_in, h, w) to (b, n_out, h / stride, w / stride)."""
        active = functional.relu(self.norm1(x))
        # Where the shape changes, the shortcut branches off after the activation.
        kept = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(functional.relu(self.norm2(self.conv1(active))))
        return out + kept


class PreActResNet18(nn.Module):
    """(b, n_channels, h, w) float images to (b, widths[-1]) embeddings.

    Parameters
    ----------
    n_channels
        Colour channels of the input.
    widths
        Channels of the stages; stages after the first halve the image.
    stem_stride
        2 halves the image at once, for a quarter of the cost; the paper's is 1.

    Raises
    ------
    ValueError
        If ``stem_stride`` is less than 1.
    """

    def __init__(
        self, n_channels: int = 3, widths: Sequence[int] = WIDTHS, stem_stride: int = 1
    ) -> None:
        super().__init__()
        if stem_stride < 1:
            raise ValueError(f"stem_stride={stem_stride} must be 1 or more")
        self.n_dimensions = widths[-1]
        self.stem = nn.Conv2d(n_channels, widths[0], 3, stem_stride, padding=1, bias=False)
        blocks: list[nn.Module] = []
        n_in = widths[0]
        for stage, width in enumerate(widths):
            for block in range(BLOCKS_PER_STAGE):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(PreActBlock(n_in, width, stride))
                n_in = width
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Mean over the last stage's pixels."""
        mean: Tensor = self.blocks(self.stem(x)).mean(dim=(2, 3))
        return mean


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "preact_resnet18": PreActResNet18,
    "dcae_encoder": DcaeEncoder,
    "infogan_critic": InfoganCritic,
    "pixel_projection": PixelProjection,
    **{name: partial(plain_resnet, name) for name in PLAIN_RESNETS},
}


def build_network(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network called ``architecture``, with fresh weights.

    Raises
    ------
    KeyError, TypeError
        If there is no such architecture, or it does not take ``arguments``.
    """
    return ARCHITECTURES[architecture](**arguments)


def n_dimensions(architecture: str, arguments: Mapping[str, Any]) -> int:
    """Length of the embeddings a network gives, found without allocating it."""
    with torch.device("meta"):
        return cast(int, build_network(architecture, arguments).n_dimensions)


def expected_shapes(architecture: str, arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors, found without allocating them."""
    with torch.device("meta"):
        state = build_network(architecture, arguments).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def multiply_adds(architecture: str, arguments: Mapping[str, Any], size_px: int) -> int:
    """Multiplications of all convolutions for one image of ``size_px`` squared, found untouched."""
    counted: list[int] = []

    def count(layer: nn.Conv2d, _inputs: Any, output: Tensor) -> None:
        counted.append(layer.weight.numel() * output.shape[2] * output.shape[3])

    with torch.device("meta"):
        network = build_network(architecture, arguments).eval()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(count)
        n_channels = int(arguments.get("n_channels", 3))
        network(torch.empty(1, n_channels, size_px, size_px))
    return sum(counted)
