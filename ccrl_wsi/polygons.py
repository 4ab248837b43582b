"""Outlines as shapely polygons and back."""

from __future__ import annotations

import numpy as np
import shapely

from ccrl_wsi.arrays import AnyArray
from ccrl_wsi.records import Outlines


def to_polygons(outlines: Outlines) -> AnyArray:
    """The n outlines as an array (n,) of shapely polygons."""
    ring = np.repeat(np.arange(len(outlines)), np.diff(outlines.start))
    polygons: AnyArray = shapely.polygons(shapely.linearrings(outlines.xy, indices=ring))
    return polygons


def from_polygons(polygons: AnyArray) -> Outlines:
    """The outer rings of shapely polygons (n,)."""
    rings = shapely.get_exterior_ring(polygons)
    counts = shapely.get_num_coordinates(rings)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Outlines(shapely.get_coordinates(rings), start)
