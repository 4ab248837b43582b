"""How like queries are to their own key and to other cells' keys: what contrastive losses eat."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SHORTEST = 1e-6
"""Length below which a vector is rounding, not a direction."""


class Cosines(NamedTuple):
    """Cosine similarities of n queries.

    Parameters
    ----------
    positive
        (n,) float32, of each query and its own key.
    negative
        (n, m) float32, of each query and each negative; minus infinity where the pair does not
        count.
    """

    positive: Tensor
    negative: Tensor


def cosines(
    queries: Tensor, keys: Tensor, negatives: Tensor, ignored: Tensor | None = None
) -> Cosines:
    """Compare ``queries`` (n, d) with their ``keys`` (n, d) and with ``negatives`` (m, d).

    Parameters
    ----------
    queries, keys, negatives
        Of any length other than 0: they are normalised here.
    ignored
        (n, m) boolean, pairs that do not count; None: all do.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys, negatives = (unit(vectors) for vectors in (queries, keys, negatives))
        positive = (queries * keys).sum(dim=1)
        negative = queries @ negatives.T
        if ignored is not None:
            negative = negative.masked_fill(ignored, -torch.inf)
    return Cosines(positive, negative)


def unit(vectors: Tensor) -> Tensor:
    """``vectors`` (n, d) at length 1, float32.

    Those shorter than ``SHORTEST`` have no direction: they become 0 and get no gradient. A head
    whose hidden units are all off gives exactly 0, and a direction's gradient grows as 1 / length:
    one such cell would be the end of a training.
    """
    vectors = vectors.float()
    short = vectors.detach().norm(dim=1, keepdim=True) < SHORTEST
    return functional.normalize(vectors.masked_fill(short, 0), dim=1)


@torch.no_grad()
def mean_negative(found: Cosines) -> Tensor:
    """Mean cosine () of the negative pairs that count; 0 where none does."""
    counts = found.negative > -torch.inf
    total = found.negative.masked_fill(~counts, 0).sum()
    return total / counts.sum().clamp(min=1)


@torch.no_grad()
def top1(found: Cosines) -> Tensor:
    """Share () of the queries whose own key is nearer than every negative."""
    return (found.positive[:, None] > found.negative).all(dim=1).float().mean()
