"""Principal components of pixels as a network of one layer, so that they can be a checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PixelProjection(nn.Module):
    """(b, n_channels, side, side) images of 0..1, centred and projected on fixed directions.

    Parameters
    ----------
    n_components
        Directions, and the length of an embedding.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, n_channels: int = 3, size_px: int = 32, n_components: int = 64) -> None:
        super().__init__()
        self.n_dimensions = n_components
        n_pixels = size_px**2 * n_channels
        self.register_buffer("mean", torch.zeros(n_pixels))
        self.register_buffer("components", torch.zeros(n_components, n_pixels))

    def forward(self, x: Tensor) -> Tensor:
        """Pixels lie row by row, their colours side by side, as in crops."""
        flat = x.permute(0, 2, 3, 1).flatten(1)
        projected: Tensor = (flat - self.mean) @ self.components.T
        return projected
