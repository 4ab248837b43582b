"""Cutting out, flipping and rotating in one resampling.

Done one after the other, each would blur the crop a little more. Here every pixel of the view is
followed back to where it comes from in the crop, and read there once, bilinearly. The borders
stay those of the separate steps: what a rotation brings in from outside is the cut-out's own
mirror image, and a cut-out does not read beyond its outermost pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ccrl_wsi.training.view_change import Change
from ccrl_wsi.training.view_parameters import ViewParameters


def moving(p: ViewParameters) -> Change:
    """Crop, flips and rotation of those crops that have any."""
    rows = np.flatnonzero(p.is_moved)
    angle = np.radians(p.angle_deg[rows])
    flip_x, flip_y = np.where(p.is_flipped[rows], -1.0, 1.0).T
    cos, sin = np.cos(angle), np.sin(angle)
    # From the view back: rotate clockwise (y points down), then flip.
    back = np.stack([flip_x * cos, -flip_x * sin, flip_y * sin, flip_y * cos], axis=1)
    return Change(rows, np.hstack([back, p.box[rows]]), _move)


def _move(pixels: Tensor, numbers: Tensor) -> Tensor:
    side = pixels.shape[-1]
    centred = torch.arange(side, device=pixels.device, dtype=pixels.dtype) - (side - 1) / 2
    xx, xy, yx, yy, left, top, width, height = numbers[:, :, None, None].unbind(1)
    across, down = centred[None, None, :], centred[None, :, None]
    grid = torch.stack(
        [
            _read_at(across * xx + down * xy, left, width, side),
            _read_at(across * yx + down * yy, top, height, side),
        ],
        dim=-1,
    )
    read = grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return read.clamp_(0, 1)  # the four weights add up to 1 only but for rounding


def _read_at(from_middle: Tensor, start: Tensor, length: Tensor, side: int) -> Tensor:
    """Where in the crop to read, on one axis: -1 and 1 are the crop's edges.

    ``from_middle`` (m, side, side) are pixels from the cut-out's middle, ``start`` and ``length``
    (m, 1, 1) the cut-out's place as shares of the side.
    """
    last = side - 1
    # Mirrored at the outermost pixels' centres, which do not appear twice (as OpenCV's 101).
    pixel = last - (last - (from_middle + last / 2).abs_()).abs_()
    place = (pixel * 2 + 1) * (length / side) + (2 * start - 1)
    first = 2 * start - 1 + 1 / side
    width = (2 * length - 2 / side).clamp_min(0)
    return torch.minimum(torch.maximum(place, first), first + width)
