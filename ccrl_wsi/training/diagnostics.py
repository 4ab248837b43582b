"""Is the space of embeddings in order? Measures that need no labels.

They take no gradient and compute in float32, autocast or not. Rows are scaled to length 1 first
where the measure is one of directions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


@torch.no_grad()
def uniformity(embeddings: Tensor, t: float = 2.0) -> Tensor:
    """Log of the mean Gaussian potential of all pairs of (n, d) embeddings; lower is more even.

    Wang & Isola 2020: log mean exp(-t |x - y|^2) over pairs x, y of different rows; 0 when all
    are one point. Takes n^2 / 2 floats of memory: give a batch, not a data set. NaN for one row.
    """
    distances = torch.pdist(normalize(embeddings.float(), dim=1))
    return distances.square().mul(-t).exp().mean().log()


@torch.no_grad()
def spread(embeddings: Tensor) -> Tensor:
    """Mean over the d dimensions of the standard deviation of (n, d) embeddings of length 1.

    The measure of collapse of Chen & He 2021 (SimSiam): 0 when all are one point, about
    1 / sqrt(d) when they fill all directions evenly, and never more than that.
    """
    return normalize(embeddings.float(), dim=1).std(dim=0, correction=0).mean()


@torch.no_grad()
def effective_rank(embeddings: Tensor) -> Tensor:
    """How many directions (n, d) embeddings fill, 1 to min(n, d): exp of the entropy of spectrum.

    Roy & Vetterli 2007, of the matrix as given: take the mean off first to ask about the spread.
    The only measure here that makes the host wait for the device. NaN if all are 0, or if any is
    no finite number.
    """
    if not torch.isfinite(embeddings).all():
        return embeddings.new_tensor(torch.nan, dtype=torch.float32)
    values: Tensor = torch.linalg.svdvals(embeddings.float())
    shares = values / values.sum()
    entropy: Tensor = torch.special.entr(shares).sum()
    return entropy.exp()
