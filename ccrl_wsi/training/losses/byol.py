"""Agreement without negatives (Grill et al. 2020, Bootstrap Your Own Latent)."""

from __future__ import annotations

from torch import Tensor

from ccrl_wsi.training.losses.cosines import unit


def byol(queries: Tensor, keys: Tensor) -> Tensor:
    r"""Squared distance () of unit vectors, :math:`\|q - k\|^2 = 2 - 2 \cos(q, k)`.

    Grill et al. 2020, Eq. 2, as a mean over the batch. ``queries`` and ``keys`` are (n, d). Only a
    prediction head on the queries and a key network that follows slowly keep all cells from
    becoming one point.
    """
    return (2 - 2 * (unit(queries) * unit(keys)).sum(dim=1)).mean()
