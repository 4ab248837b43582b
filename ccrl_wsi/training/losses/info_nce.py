"""InfoNCE: know your own key among all others (paper, Eq. 2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ccrl_wsi.training.losses.cosines import Cosines


def info_nce(found: Cosines, temperature: float) -> Tensor:
    r"""Contrastive loss () of queries against their keys and the negatives.

    .. math:: -\log \frac{e^{q_i k_i / \tau}}{e^{q_i k_i / \tau} + \sum_j e^{q_i n_j / \tau}}

    The paper's Eq. 2 (van den Oord et al. 2018; He et al. 2020), as a mean over the batch instead
    of its sum, so that learning rates do not depend on the batch. VOLTA's further factor 2 tau is
    left out. A query without any negative that counts gives 0.

    Parameters
    ----------
    found
        :func:`~ccrl_wsi.training.losses.cosines.cosines` of queries, keys and negatives.
    temperature
        tau, 0.07 in the paper.
    """
    others = (found.negative / temperature).logsumexp(dim=1)
    # log(1 + e^(others - positive)): exact for small losses too, where a difference of logarithms
    # would round.
    return functional.softplus(others - found.positive / temperature).mean()
