"""The compact network: a small convolutional network that says of each pixel whether it is nucleus.

Built for two processor cores. The image is looked at in steps of 2, 4 and 8 pixels only: pixels are
folded into channels at the entrance and unfolded at the exit, so that outlines keep the image's own
resolution. Three scales joined by addition are those of feature pyramids (Lin et al., CVPR 2017),
residual blocks those of He et al., CVPR 2016.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDE_PX = 8
"""Windows must begin at multiples of this and have sides that are."""

N_MAPS = 4

MEAN, STD = (178.5, 140.25, 178.5), (51.0, 56.1, 43.35)
"""Of H&E tissue, roughly, in bytes of light: a fixed scale, the same for every image."""


class CompactNetwork(nn.Module):
    """RGB in, maps of the same size out.

    Parameters
    ----------
    widths
        Channels at steps of 2, 4 and 8 pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.fine = nn.Sequential(nn.PixelUnshuffle(2), ConvNormRelu(12, fine), ResidualBlock(fine))
        self.middle = nn.Sequential(
            ConvNormRelu(fine, middle, stride=2), ResidualBlock(middle), ResidualBlock(middle)
        )
        self.coarse = nn.Sequential(
            ConvNormRelu(middle, coarse, stride=2), *[ResidualBlock(coarse) for _ in range(3)]
        )
        self.to_middle = nn.Conv2d(coarse, middle, 1)
        self.join_middle = ConvNormRelu(middle, middle)
        self.to_fine = nn.Conv2d(middle, fine, 1)
        self.join_fine = nn.Sequential(ConvNormRelu(fine, fine), ConvNormRelu(fine, fine))
        self.head = nn.Sequential(nn.Conv2d(fine, 4 * N_MAPS, 1), nn.PixelShuffle(2))

    def forward(self, images: Tensor) -> Tensor:
        """Maps (n, 4, h, w) of ``images`` (n, 3, h, w) in 0..255; sides multiples of 8.

        The logit of being nucleus; depth: the distance to the nucleus' own edge as a share of its
        greatest; offset: x and y from its centroid as shares of its radius.
        """
        fine = self.fine((images - self.mean) / self.std)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.join_middle(middle + _doubled(self.to_middle(coarse)))
        fine = self.join_fine(fine + _doubled(self.to_fine(middle)))
        maps: Tensor = self.head(fine)
        return maps


class ConvNormRelu(nn.Module):
    """A 3 x 3 convolution, normalised over the batch, cut off at 0."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_out, h / stride, w / stride)."""
        return relu(self.norm(self.convolution(x)))


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvNormRelu(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Like ``x`` (n, width, h, w)."""
        return relu(x + self.norm(self.second(self.first(x))))


def fold_norms(network: CompactNetwork) -> CompactNetwork:
    """A copy for inference, in which normalisations are part of the convolutions before them."""
    folded = copy.deepcopy(network).eval()
    for block in folded.modules():
        if isinstance(block, ConvNormRelu):
            block.convolution = _folded(block.convolution, block.norm)
        elif isinstance(block, ResidualBlock):
            block.second = _folded(block.second, block.norm)
        else:
            continue
        block.norm = nn.Identity()
    return folded


def _folded(convolution: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    if not isinstance(norm, nn.BatchNorm2d):
        raise TypeError(f"only plain batch normalisation can be folded, not {type(norm).__name__}")
    return fuse_conv_bn_eval(convolution, norm)


def _doubled(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2.0, mode="nearest")
