"""Pixels to make views of, and parameters that change one thing only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccrl_wsi.training.settings import ViewSettings
from ccrl_wsi.training.view_parameters import (
    MOST_CHANNELS,
    NO_JITTER,
    WHOLE_BOX,
    ViewParameters,
    draw_views,
)

EVERYTHING = ViewSettings(p_stain=0.5, p_exposure=0.5)


def no_change(n: int, **fields: Any) -> ViewParameters:
    """Parameters of n crops that change nothing but the ``fields``."""
    same: dict[str, Any] = {
        "box": np.tile(WHOLE_BOX, (n, 1)),
        "is_flipped": np.zeros((n, 2), bool),
        "angle_deg": np.zeros(n),
        "stain_factor": np.ones((n, 3)),
        "stain_shift": np.zeros((n, 3)),
        "jitter": np.tile(NO_JITTER, (n, 1)),
        "order": np.tile(np.arange(4), (n, 1)),
        "is_grey": np.zeros(n, bool),
        "blur_px": np.zeros(n),
        "bend": np.zeros((n, 2, 5, 5)),
        "gain": np.ones((n, MOST_CHANNELS)),
        "gamma": np.ones((n, MOST_CHANNELS)),
    }
    return ViewParameters(**same | {name: np.asarray(value) for name, value in fields.items()})


def drawn(n: int, *, cropped: bool = True, seed: int = 0) -> ViewParameters:
    """Parameters of n crops with all there is."""
    return draw_views(EVERYTHING, n, np.random.default_rng(seed), cropped)


def noise(n: int, *, channels: int = 3, side: int = 32, seed: int = 0) -> Tensor:
    """Pixels without order, every tenth 0 or 1, and one crop in which all channels are equal."""
    rng = np.random.default_rng(seed)
    pixels = rng.random((n, channels, side, side), np.float32)
    pixels[pixels < 0.05], pixels[pixels > 0.95] = 0, 1
    pixels[n // 2] = pixels[n // 2, :1]
    return torch.from_numpy(pixels)
