"""Brightness, contrast, saturation and hue, in each crop's own order; and grey.

The four are those of torchvision's ColorJitter. Three of them are one formula, a blend of the
pixels with grey or the mean grey, and so are done for all crops at once whatever their order:

    pixels <- clamp(f pixels + g grey + m mean grey)

with f the factor, g = 1 - f for saturation, m = 1 - f for contrast, else 0. Hue is done in
between, for those crops whose turn it is; crops are sorted by that turn, so that these lie
together in memory.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.training.view_change import Change
from ccrl_wsi.training.view_parameters import CONTRAST, HUE, SATURATION, ViewParameters

TURNS = 4
NEVER = TURNS


def jittering(p: ViewParameters) -> Change:
    """The colour jitter of those crops that have one."""
    rows = np.flatnonzero(p.is_jittered)
    hue_turn = np.where(p.jitter[rows, HUE] != 0, (p.order[rows] == HUE).argmax(axis=1), NEVER)
    by_turn = np.argsort(hue_turn, kind="stable")
    rows = rows[by_turn]
    ends = np.searchsorted(hue_turn[by_turn], np.arange(TURNS + 1))
    blends = _blends(p.jitter[rows], p.order[rows])
    numbers = np.hstack([blends.reshape(-1, TURNS * 3), p.jitter[rows, HUE, None]])
    return Change(rows, numbers, partial(_jitter, ends=[int(end) for end in ends]))


def greying(p: ViewParameters) -> Change:
    """Grey for those crops that lose their colour."""
    rows = np.flatnonzero(p.is_grey)
    return Change(rows, np.empty((len(rows), 0)), _grey)


def _blends(jitter: FloatArray, order: IntArray) -> FloatArray:
    """Factors (n, 4, 3) of pixels, grey and mean grey at each of the four turns."""
    at_turn = np.take_along_axis(jitter, order, axis=1)
    factor = np.where(order == HUE, 1.0, at_turn)
    on_grey = np.where(order == SATURATION, 1 - factor, 0.0)
    on_mean = np.where(order == CONTRAST, 1 - factor, 0.0)
    return np.stack([factor, on_grey, on_mean], axis=2)


def _jitter(pixels: Tensor, numbers: Tensor, ends: list[int]) -> Tensor:
    """``ends``: where, among the sorted crops, those end whose hue is before turn 0, 1, 2, 3, 4."""
    blends = numbers[:, : TURNS * 3].view(-1, TURNS, 3, 1, 1, 1)
    turns = numbers[:, -1, None, None]
    for turn in range(TURNS):
        pixels = _blend(pixels, *blends[:, turn].unbind(1))
        start, end = ends[turn], ends[turn + 1]
        if end > start:
            pixels[start:end] = _shift_hue(pixels[start:end], turns[start:end])
    return pixels


def _blend(pixels: Tensor, factor: Tensor, on_grey: Tensor, on_mean: Tensor) -> Tensor:
    if pixels.shape[1] == 3:
        grey = _grey_of(pixels)
        other = grey.mean((1, 2, 3), keepdim=True).mul_(on_mean).addcmul(grey, on_grey)
    else:
        # Channels that are no colours of one light keep their own levels. Of one, this is grey.
        other = pixels.mean((2, 3), keepdim=True).mul_(on_mean)
    return pixels.mul(factor).add_(other).clamp_(0, 1)


def _shift_hue(rgb: Tensor, turns: Tensor) -> Tensor:
    """RGB (n, 3, side, side) with the hue ``turns`` (n, 1, 1) further; value and chroma stay.

    On the circle of hues, 6 long, a colour's channel is full up to 1 from its own pure hue,
    and empty from 2.
    """
    red, green, blue = rgb.unbind(1)
    low, high = rgb.amin(1), rgb.amax(1)
    chroma = high - low
    per_chroma = chroma.clamp_min(1e-12).reciprocal_()
    hue = torch.where(
        high == red,
        (green - blue) * per_chroma,
        torch.where(
            high == green, (blue - red).mul_(per_chroma).add_(2), (red - green) * per_chroma + 4
        ),
    )
    hue.add_(turns * 6)
    shifted = torch.empty_like(rgb)
    for channel, pure in enumerate((0, 2, 4)):
        away = (hue + (3 - pure)).remainder_(6).sub_(3).abs_()
        torch.addcmul(low, away.neg_().add_(2).clamp_(0, 1), chroma, out=shifted[:, channel])
    return shifted.clamp_(0, 1)


def _grey(pixels: Tensor, _: Tensor) -> Tensor:
    return _grey_of(pixels).expand_as(pixels)


def _grey_of(rgb: Tensor) -> Tensor:
    """Luma (n, 1, side, side) of RGB, as ITU-R BT.601 has it and torchvision rounds it."""
    return (rgb[:, :1] * 0.2989).add_(rgb[:, 1:2], alpha=0.587).add_(rgb[:, 2:], alpha=0.114)
