"""Turning, scaling and cutting fields together with what is known of their pixels, on the device.

Every view is read once from its field, bilinearly, at places that a rotation, a flip and a scale
give. What is a direction (the offsets) is turned along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.training.segment_settings import FieldViewSettings


@dataclass(frozen=True, eq=False, slots=True)
class Places:
    """Where each of n views lies in its field.

    Parameters
    ----------
    matrix
        (n, 2, 2) from a step in the view to a step in the field, in pixels of both.
    centre
        (n, 2) x and y of the view's middle, as shares of the field's side.
    """

    matrix: FloatArray
    centre: FloatArray

    def part(self, rows: slice) -> Places:
        """Those of some views only."""
        return Places(self.matrix[rows], self.centre[rows])


def draw_places(
    settings: FieldViewSettings,
    scale: FloatArray,
    share: FloatArray,
    rng: np.random.Generator,
) -> Places:
    """Draw a place for each view.

    Parameters
    ----------
    settings
        Range of the zoom.
    scale
        (n,) pixels of the field a pixel of the network: mpp of the network / mpp of the field.
    share
        (n,) how much of the field's side an unzoomed view sees. Middles are drawn so that views
        that are not turned reach beyond a field by a quarter of their side at most.
    rng
        Where the numbers come from.
    """
    n = len(scale)
    u = rng.random((n, 6))
    angle = 2 * np.pi * u[:, 0]
    mirror = np.where(u[:, 1] < 0.5, -1.0, 1.0)
    low, high = np.log(settings.zoom)
    zoom = np.exp(low + u[:, 2] * (high - low))
    stretch = np.exp((2 * u[:, 3] - 1) * np.log(settings.stretch))
    cos, sin = np.cos(angle), np.sin(angle)
    turned = np.stack([cos, -sin, sin, cos], axis=1).reshape(n, 2, 2)
    sides = np.stack([mirror * np.sqrt(stretch), 1 / np.sqrt(stretch)], axis=1)
    matrix = turned * sides[:, None, :] * (scale / zoom)[:, None, None]
    margin = np.minimum(0.5, share / zoom / 4)[:, None]
    centre = margin + u[:, 4:6] * (1 - 2 * margin)
    return Places(matrix, centre)


def read_views(
    rgb: Tensor, targets: Tensor, places: Places, side_px: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Views of fields, read at ``places``.

    Parameters
    ----------
    rgb, targets
        (n, 3, s, s) and (n, 5, s, s) uint8, the fields as in
        :class:`ccrl_wsi.training.field_set.FieldSet`.
    side_px
        Side of a view.

    Returns
    -------
    pixels
        (n, 3, side, side) float32 in 0..1; beyond a field its mirror image.
    maps
        (n, 4, side, side) float32: inside and depth in 0..1, offsets in -1..1.
    weight
        (n, side, side) float32 in 0..1, 0 beyond a field.
    """
    grid = _grid(places, rgb.shape[-1], side_px, rgb.device)
    pixels = grid_sample(rgb.float(), grid, padding_mode="reflection", align_corners=False)
    read = grid_sample(targets.float(), grid, padding_mode="zeros", align_corners=False)
    inside, depth = (read[:, :2] / 255).clamp_(0, 1).unbind(1)
    # Nothing of a direction is left where it was averaged with what lies outside nuclei.
    offset = (read[:, 2:4] - 127) / 127
    turned = torch.einsum("nij,njhw->nihw", _back(places, rgb.device), offset)
    weight = (read[:, 4] / 255 > 0.99).float()
    maps = torch.cat([torch.stack([inside, depth], dim=1), turned * weight[:, None]], dim=1)
    return (pixels / 255).clamp_(0, 1), maps, weight


def _grid(places: Places, field_px: int, side_px: int, device: torch.device) -> Tensor:
    """Where to read (n, side, side, 2): -1 and 1 are the field's edges."""
    step = torch.arange(side_px, device=device, dtype=torch.float32) - (side_px - 1) / 2
    view = torch.stack(torch.meshgrid(step, step, indexing="xy"), dim=-1)
    matrix = torch.tensor(places.matrix, dtype=torch.float32, device=device)
    centre = torch.tensor(places.centre, dtype=torch.float32, device=device)
    offset = torch.einsum("nij,hwj->nhwi", matrix, view) * (2 / field_px)
    return offset + (2 * centre - 1)[:, None, None, :]


def _back(places: Places, device: torch.device) -> Tensor:
    """From directions in the field to directions in the view (n, 2, 2), lengths kept on average."""
    inverse = np.linalg.inv(places.matrix)
    size = np.sqrt(np.abs(np.linalg.det(inverse)))[:, None, None]
    return torch.tensor(inverse / size, dtype=torch.float32, device=device)


def view_share(side_px: int, scale: FloatArray, field_px: int) -> FloatArray:
    """How much of a field's side an unzoomed view sees (n,)."""
    share: FloatArray = side_px * scale / field_px
    return share


def gather(fields: Tensor, rows: IntArray) -> Tensor:
    """The ``rows`` of ``fields`` (n, ...), on their device."""
    return fields[torch.from_numpy(rows).to(fields.device)]
