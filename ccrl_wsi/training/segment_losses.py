"""How far a segmenter's maps are from what was drawn."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

SEPARATION_BETA = 0.1
"""Errors below this are squared, above it counted as they are."""

BACKGROUND_WEIGHT = 0.25
"""Of pixels outside nuclei in the error of what parts nuclei: there it only has to be quiet."""


def probability_losses(logit: Tensor, inside: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy, and one minus the soft Dice coefficient (Milletari et al., 3DV 2016).

    Parameters
    ----------
    logit, inside, weight
        (n, h, w); ``inside`` in 0..1, pixels of ``weight`` 0 do not count.
    """
    logit, inside, weight = logit.float(), inside.float(), weight.float()
    each = binary_cross_entropy_with_logits(logit, inside, reduction="none")
    entropy = (each * weight).sum() / weight.sum().clamp_min(1)
    found = torch.sigmoid(logit) * weight
    drawn = inside * weight
    shared = (found * drawn).sum()
    # With 1 added, batches without a nucleus ask for none to be found.
    dice = 1 - (2 * shared + 1) / (found.sum() + drawn.sum() + 1)
    return entropy, dice


def separation_loss(found: Tensor, drawn: Tensor, inside: Tensor, weight: Tensor) -> Tensor:
    """Smooth absolute error of the maps that part nuclei.

    Parameters
    ----------
    found, drawn
        (n, c, h, w).
    inside, weight
        (n, h, w).
    """
    each = smooth_l1_loss(found.float(), drawn, reduction="none", beta=SEPARATION_BETA).sum(1)
    counts = weight * (BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * inside)
    return (each * counts).sum() / counts.sum().clamp_min(1)


@torch.no_grad()
def hard_dice(logit: Tensor, inside: Tensor, weight: Tensor) -> Tensor:
    """The Dice coefficient of the pixels called nucleus; 1 where there is and was found none."""
    found = (logit > 0) & (weight > 0)
    drawn = (inside > 0.5) & (weight > 0)
    shared = (found & drawn).sum()
    both = found.sum() + drawn.sum()
    return torch.where(both > 0, 2 * shared / both.clamp_min(1), torch.ones_like(shared))
