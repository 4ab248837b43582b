"""The encoder of a deep convolutional auto-encoder with clusters of its own (DCEC).

Vununu, Lee, Kwon, Sensors 20 (2020) 2717 describe a convolutional auto-encoder with an embedded
clustering layer, and no table of layers that we could find. So layers are those of the work it
builds on, DCEC (Guo et al., ICONIP 2017): three convolutions of stride 2, a fully connected layer,
and centres that are learned with them. Our own choice: 32 dimensions instead of 10, for colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DcaeEncoder(nn.Module):
    """(b, n_channels, size_px, size_px) float images to (b, n_dimensions) embeddings.

    Parameters
    ----------
    n_clusters
        Centres of the clustering layer.
    widths
        Channels of the three convolutions.

    Raises
    ------
    ValueError
        If three halvings do not divide ``size_px``.
    """

    def __init__(
        self,
        n_channels: int = 3,
        size_px: int = 32,
        n_dimensions: int = 32,
        n_clusters: int = 4,
        widths: Sequence[int] = (32, 64, 128),
    ) -> None:
        super().__init__()
        if size_px % 8:
            raise ValueError(f"size_px={size_px} must be a multiple of 8")
        self.n_dimensions = n_dimensions
        first, second, third = widths
        self.layers = nn.Sequential(
            nn.Conv2d(n_channels, first, 5, 2, padding=2),
            nn.ReLU(),
            nn.Conv2d(first, second, 5, 2, padding=2),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, 2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(third * (size_px // 8) ** 2, n_dimensions),
        )
        self.centres = nn.Parameter(torch.zeros(n_clusters, n_dimensions))

    def forward(self, x: Tensor) -> Tensor:
        """The bottleneck."""
        vectors: Tensor = self.layers(x)
        return vectors

    def own_clusters(self, vectors: Tensor) -> Tensor:
        """How much each of ``vectors`` (n, d) belongs to each cluster: (n, k), the more the higher.

        Student's t falls with the distance to a centre, so the nearest one has most.
        """
        return -torch.cdist(vectors.float(), self.centres.float())
