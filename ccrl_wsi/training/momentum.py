"""The key network follows the query network (paper, Eq. 1)."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(key_module: nn.Module, query_module: nn.Module, momentum: float) -> None:
    """Set each key parameter to momentum * key + (1 - momentum) * query, in place.

    Parameters only, as in VOLTA: the running statistics of BatchNorm are buffers, and the key
    network gathers its own from what passes through it.

    Raises
    ------
    ValueError
        If the two do not have the same parameters.
    """
    keys, queries = dict(key_module.named_parameters()), dict(query_module.named_parameters())
    if keys.keys() != queries.keys():
        raise ValueError(f"not the same parameters: {sorted(keys.keys() ^ queries.keys())}")
    for name, key in keys.items():
        key.lerp_(queries[name], 1 - momentum)
