"""Clusters that sharpen themselves: soft assignment, target and loss of DEC.

Xie, Girshick, Farhadi, ICML 2016, equations 1 to 3; DCEC and Vununu et al. 2020 use the same.
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_assignment(vectors: Tensor, centres: Tensor) -> Tensor:
    """Soft assignment q (n, k): Student's t of one degree of freedom, rows sum to 1 (equation 1).

    Parameters
    ----------
    vectors, centres
        (n, d) and (k, d).
    """
    # Written out: torch.cdist has no gradient where a vector lies on a centre.
    squares = (vectors[:, None] - centres[None]).square().sum(dim=2)
    closeness = 1 / (1 + squares)
    return closeness / closeness.sum(dim=1, keepdim=True)


def target_distribution(q: Tensor) -> Tensor:
    """Target p (n, k): q squared over the cluster's total, rows made to sum to 1 (equation 3).

    It trusts sure assignments more, and keeps large clusters from swallowing all.
    """
    weight = q.square() / q.sum(dim=0)
    return weight / weight.sum(dim=1, keepdim=True)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Mean over n of KL(p || q) (equation 2); rows of both sum to 1."""
    tiny = torch.finfo(q.dtype).tiny
    return (p * (p.clamp_min(tiny).log() - q.clamp_min(tiny).log())).sum(dim=1).mean()
