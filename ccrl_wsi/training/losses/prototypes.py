"""Clusters pushed apart: the prototype scattering loss of ProPos (Huang et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ccrl_wsi.training.losses.cosines import unit


def prototype_scattering(
    queries: Tensor, keys: Tensor, assignment: Tensor, n_classes: int, temperature: float
) -> Tensor:
    r"""Contrastive loss () of the prototypes of the pseudo-classes in the batch.

    A class' prototype is the normalised mean of its unit queries, :math:`\mu_c`, or of its unit
    keys, :math:`\mu'_c`. Over the classes that are present,

    .. math:: -\frac{1}{C} \sum_c \log \frac{e^{\mu_c \mu'_c / \tau}}
              {e^{\mu_c \mu'_c / \tau} + \sum_{b \neq c} e^{\mu_c \mu_b / \tau}}

    (Huang et al., Learning Representation for Clustering via Prototype Scattering and Positive
    Sampling, TPAMI 2022). Fewer than two classes in the batch give 0.

    Parameters
    ----------
    queries, keys
        (n, d); gradients flow through both if they have any.
    assignment
        (n,) int64 pseudo-class of each; outside 0 .. n_classes - 1: of none.
    n_classes
        Number of pseudo-classes.
    temperature
        tau, 0.5 in ProPos.
    """
    with torch.autocast(queries.device.type, enabled=False):
        classes = torch.arange(n_classes, device=queries.device)
        member = (assignment == classes[:, None]).float()
        present = member.sum(dim=1) > 0
        of_queries, of_keys = unit(member @ unit(queries)), unit(member @ unit(keys))
        own = (of_queries * of_keys).sum(dim=1) / temperature
        itself = torch.eye(n_classes, dtype=torch.bool, device=queries.device)
        between = of_queries @ of_queries.T / temperature
        others = between.masked_fill(itself | ~present, -torch.inf).logsumexp(dim=1)
        losses = functional.softplus(others - own).masked_fill(~present, 0)
        return losses.sum() / present.sum().clamp(min=1)
