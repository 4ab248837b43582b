"""Each channel's exposure by itself: how bright it is and how straight its camera answers.

In fluorescence every channel has a stain, a lamp and a camera time of its own, which say nothing
about the cell; changes of colour, which treat channels as one light's, cannot undo that.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ccrl_wsi.training.view_change import Change
from ccrl_wsi.training.view_parameters import MOST_CHANNELS, ViewParameters

DARKEST = 1 / 255
"""Of full light; a power is taken of this at least, so that its logarithm is finite."""


def exposing(p: ViewParameters) -> Change:
    """``gain * pixels ** gamma`` of each channel, of those crops that have one."""
    rows = np.flatnonzero(p.is_exposed)
    return Change(rows, np.hstack([p.gain[rows], p.gamma[rows]]), _expose)


def _expose(pixels: Tensor, numbers: Tensor) -> Tensor:
    n_channels = pixels.shape[1]
    each = numbers[..., None, None]
    gain, gamma = each[:, :n_channels], each[:, MOST_CHANNELS : MOST_CHANNELS + n_channels]
    changed = pixels.clamp_min(DARKEST).log_().mul_(gamma).exp_().mul_(gain)
    return changed.mul_(pixels > 0).clamp_(0, 1)
