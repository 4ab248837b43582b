"""Gaussian blur with a sigma for each crop, as two products with a matrix of the crop's side.

A crop's rows and columns are so few that a matrix of all weights between them costs less than a
convolution with another kernel for each crop, and nothing has to be cut off: the kernel reaches
as far as the crop and its mirror image at both ends go. (A kernel of 4 sigma, 8 px for the
largest sigma of the paper, would leave out less than 1e-4 of the weight, but would have to be
known for the whole batch.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ccrl_wsi.training.view_change import Change
from ccrl_wsi.training.view_parameters import ViewParameters

SMALLEST_SIGMA_PX = 0.01
"""Far below the sigma at which a blur moves any light; smaller ones would overflow."""


def blurring(p: ViewParameters) -> Change:
    """The blur of those crops that have one."""
    rows = np.flatnonzero(p.is_blurred)
    sigma = np.maximum(p.blur_px[rows], SMALLEST_SIGMA_PX)
    return Change(rows, (-0.5 / sigma**2)[:, None], _blur)


def _blur(pixels: Tensor, numbers: Tensor) -> Tensor:
    weights = _weights(pixels.shape[-1], numbers[:, :, None])
    across = torch.bmm(pixels.flatten(1, 2), weights.transpose(1, 2)).view_as(pixels)
    return torch.matmul(weights[:, None], across).clamp_(0, 1)


def _weights(side: int, exponent: Tensor) -> Tensor:
    """What pixel j gives to pixel i (n, side, side), for weights exp(exponent * distance^2).

    A pixel gives its light from its own place and from its two mirror images, about the outermost
    pixels' centres; those two pixels are their own images and give but once.
    """
    to = torch.arange(side, device=exponent.device, dtype=exponent.dtype)
    i, j = to[:, None], to[None, :]
    none = torch.full_like(to, torch.inf)
    before = torch.where(to > 0, -to, none)
    after = torch.where(to < side - 1, 2 * (side - 1) - to, none)
    weights = (exponent * (i - j) ** 2).exp_()
    weights += (exponent * (i - before) ** 2).exp_()
    weights += (exponent * (i - after) ** 2).exp_()
    return weights.div_(weights.sum(-1, keepdim=True))
