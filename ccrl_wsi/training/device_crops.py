"""The training set where the network is: bytes on the device, pixels as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.crop_set import CropSet, channel_statistics

EMBED_AT_ONCE = 2048


class DeviceCrops:
    """Crops on a device, to be learned from by rows.

    Parameters
    ----------
    crops
        The training set; labels are not looked at.
    device
        Where they are kept, as uint8 (n, channels, side, side).
    """

    def __init__(self, crops: CropSet, device: torch.device) -> None:
        self._bytes = torch.from_numpy(crops.crops).permute(0, 3, 1, 2).contiguous().to(device)
        self._mean, self._std = (
            torch.tensor(v, dtype=torch.float32, device=device).view(1, -1, 1, 1)
            for v in channel_statistics(crops.crops)
        )

    def indices(self, rows: IntArray) -> Tensor:
        """``rows`` (m,) on the device."""
        return torch.from_numpy(rows).to(self._bytes.device, non_blocking=True)

    def pixels(self, indices: Tensor) -> Tensor:
        """The crops ``indices`` (m,): (m, channels, side, side) float32 in 0..1."""
        return self._bytes[indices].float() / 255

    def normalised(self, pixels: Tensor) -> Tensor:
        """``pixels`` (m, channels, side, side) in 0..1, less the set's mean, by its deviation."""
        return (pixels - self._mean) / self._std

    def portions(self) -> Iterator[Tensor]:
        """All crops in order, normalised, as many at once as fit beside a network."""
        for part in torch.split(self._bytes, EMBED_AT_ONCE):
            yield self.normalised(part.float() / 255)
