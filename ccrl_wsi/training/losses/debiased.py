"""InfoNCE that knows that some negatives are of the query's own class (Chuang et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from ccrl_wsi.training.losses.cosines import Cosines


def debiased(found: Cosines, temperature: float, same_class: float) -> Tensor:
    r"""Debiased contrastive loss () for keys from a queue.

    With N negatives, the sum over them in InfoNCE becomes N g,

    .. math:: g = \max\left(\frac{1}{1 - \tau^+} \left(\frac{1}{N} \sum_j e^{q n_j / \tau}
              - \tau^+ e^{q k / \tau}\right),\; e^{-1 / \tau}\right)

    (Chuang et al., Debiased Contrastive Learning, NeurIPS 2020, Eqs. 7 and 8, with one positive,
    the query's own key). A share of 0 is plain InfoNCE. A query without any negative that counts
    gives 0.

    Parameters
    ----------
    found
        :func:`~ccrl_wsi.training.losses.cosines.cosines` of queries, keys and negatives.
    temperature
        tau.
    same_class
        tau+, the share of negatives that are of the query's class, at least 0 and below 1.
    """
    positive, negative = found.positive / temperature, found.negative / temperature
    # All terms are divided by the largest, so that no exponential overflows: the loss is the same.
    top = torch.maximum(positive, negative.logsumexp(dim=1)).detach()
    own = (positive - top).exp()
    n_negatives = (negative > -torch.inf).sum(dim=1)
    mean = (negative - top[:, None]).exp().sum(dim=1) / n_negatives.clamp(min=1)
    lowest = torch.exp(-top - 1 / temperature)
    g = torch.maximum((mean - same_class * own) / (1 - same_class), lowest)
    return (torch.log(own + n_negatives * g) + top - positive).mean()
