"""Changing how much stain there is, not what colour light has: HED jitter.

Tellez et al., IEEE Trans. Med. Imaging 37 (2018) 2126: the image's optical density is taken apart
into haematoxylin, eosin and a third stain, each density c becomes a c + b, and the image is put
together again. Stain vectors: Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001) 291.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ccrl_wsi.training.view_change import Change
from ccrl_wsi.training.view_parameters import ViewParameters

STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical densities in red, green and blue of haematoxylin, eosin and DAB of density 1."""

DARKEST = 1 / 255
"""Light that counts as this much at least: of none at all the density is infinite."""


def staining(p: ViewParameters) -> Change:
    """The change of stain of those crops that have one."""
    rows = np.flatnonzero(p.is_stained)
    # Apart, a c + b and together again are one affine map of the optical density.
    apart = np.linalg.inv(STAINS)
    mix = np.einsum("is,ns,so->noi", apart, p.stain_factor[rows], STAINS)
    shift = p.stain_shift[rows] @ STAINS
    return Change(rows, np.hstack([mix.reshape(-1, 9), shift]), _stain)


def _stain(pixels: Tensor, numbers: Tensor) -> Tensor:
    n = len(pixels)
    mix, shift = numbers[:, :9].reshape(n, 3, 3), numbers[:, 9:, None]
    log_light = pixels.clamp(DARKEST, 1).log_().flatten(2)
    changed = torch.bmm(mix, log_light).sub_(shift).exp_().clamp_(0, 1)
    return changed.view_as(pixels)
