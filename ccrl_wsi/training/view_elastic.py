"""Elastic deformation: every pixel read a little beside its place, neighbours much alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from ccrl_wsi.training.view_change import Change
from ccrl_wsi.training.view_parameters import BEND_POINTS, ViewParameters


def bending(p: ViewParameters) -> Change:
    """Elastic deformation of those crops that have any."""
    rows = np.flatnonzero(p.is_bent)
    return Change(rows, p.bend[rows].reshape(len(rows), 2 * BEND_POINTS**2), _bend)


def _bend(pixels: Tensor, numbers: Tensor) -> Tensor:
    """``pixels`` (m, c, side, side) read where ``numbers`` (m, 50), shares of the side, say."""
    n, side = len(pixels), pixels.shape[-1]
    points = numbers.reshape(n, 2, BEND_POINTS, BEND_POINTS)
    smooth = interpolate(points, size=(side, side), mode="bicubic", align_corners=True)
    # A share of the side is twice as much where the crop reaches from -1 to 1.
    shift = 2 * smooth.movedim(1, -1)
    places = (torch.arange(side, device=pixels.device, dtype=pixels.dtype) * 2 + 1) / side - 1
    y, x = torch.meshgrid(places, places, indexing="ij")
    grid = torch.stack([x, y], dim=-1) + shift
    read = grid_sample(
        pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return read.clamp_(0, 1)
