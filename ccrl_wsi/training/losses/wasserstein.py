"""The penalty that keeps a critic's slope at 1: Gulrajani et al., NeurIPS 2017, equation 3."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor
) -> Tensor:
    """Mean over n of (|gradient| - 1) squared, at points between ``real`` and ``fake``.

    Parameters
    ----------
    critic
        Images to scores (n,), each of its own image alone.
    real, fake
        (n, channels, h, w).
    share
        (n,) in 0..1: how near to ``fake`` the point is.
    """
    weight = share.view(-1, 1, 1, 1)
    between = ((1 - weight) * real + weight * fake).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty
