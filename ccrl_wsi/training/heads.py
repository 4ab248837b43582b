"""The small networks behind the backbone, and the weights everything starts from."""

from __future__ import annotations

from torch import nn


def projector(n_in: int, hidden: int, out: int) -> nn.Sequential:
    """(n, n_in) embeddings to (n, out): Linear, BatchNorm, ReLU, Linear.

    The widths 512-128-64 are the paper's; BatchNorm and ReLU between them are those of VOLTA.
    """
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)
    )


def plain_projector(n_in: int, hidden: int, out: int) -> nn.Sequential:
    """(n, n_in) embeddings to (n, out): Linear, ReLU, Linear (SimCLR; Perakis et al. 2021)."""
    return nn.Sequential(nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, out))


def predictor(n: int, hidden: int) -> nn.Sequential:
    """(n, n) projections to (n, n): the prediction head of the query side (paper: 64-32-64)."""
    return projector(n, hidden, n)


def draw_xavier(network: nn.Module) -> None:
    """Draw all convolutions and linear layers anew, as VOLTA does: Xavier-normal, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
