"""Rings as QuPath will see them: in hundredths of a pixel, each a simple polygon.

One that crosses itself would fail the whole file, so each is looked at. Nearly all nuclei are
star-shaped about their middle, which whole numbers prove in a few passes over all rings at once;
only the others are given to shapely.
"""

from __future__ import annotations

import numpy as np
import shapely

from ccrl_wsi.arrays import BoolArray, FloatArray, IntArray
from ccrl_wsi.polygons import to_polygons
from ccrl_wsi.records import Outlines

_LARGEST_EXACT = 2.0**25
"""Products of two such numbers, added, are exact in float64."""


def sound_hundredths(outlines: Outlines, origin_px: tuple[int, int]) -> Outlines:
    """The rings less ``origin_px`` in whole hundredths of a pixel, those that cross mended."""
    moved = Outlines(np.rint((outlines.xy - np.asarray(origin_px)) * 100), outlines.start)
    rows = np.flatnonzero(~are_star_shaped(moved))
    if len(rows) == 0:
        return moved
    doubtful = moved.where(rows)
    polygons = to_polygons(Outlines(doubtful.xy / 100, doubtful.start))
    broken = np.flatnonzero(~shapely.is_valid(polygons))
    if len(broken) == 0:
        return moved
    rings = [moved.ring(i) for i in range(len(moved))]
    for row, polygon in zip(rows[broken].tolist(), polygons[broken], strict=True):
        rings[row] = np.rint(_mended_ring(polygon) * 100)
    start = np.concatenate([[0], np.cumsum([len(r) for r in rings])]).astype(np.int64)
    return Outlines(np.concatenate(rings), start)


def are_star_shaped(rings: Outlines) -> BoolArray:
    """Which closed rings of whole numbers surely are simple and counter-clockwise: (n,).

    Seen from the mean of its vertices, each vertex of such a ring lies further round than the one
    before, and all of them go round once. Other rings may be sound all the same.
    """
    if len(rings) == 0:
        return np.zeros(0, np.bool_)
    first, length = rings.start[:-1], np.diff(rings.start)
    x, y = (_from_the_mean(axis, first, length) for axis in rings.xy.T)
    turn = np.empty(len(x))
    turn[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
    rises = np.zeros(len(x), np.bool_)
    rises[:-1] = (y[:-1] < 0) & (y[1:] >= 0)
    last = rings.start[1:] - 1  # from one ring to the next
    turn[last], rises[last] = np.inf, False
    reach = np.maximum.reduceat(np.maximum(np.abs(x), np.abs(y)), first)
    is_star: BoolArray = (
        (np.minimum.reduceat(turn, first) > 0)
        & (np.add.reduceat(rises, first, dtype=np.int64) == 1)
        & (reach < _LARGEST_EXACT)
    )
    return is_star


def _from_the_mean(values: FloatArray, first: IntArray, length: IntArray) -> FloatArray:
    """Coordinates counted from each ring's mean, times its number of vertices: whole numbers."""
    # The closing vertex adds nothing when counted from the first, which it repeats.
    local = values - np.repeat(values[first], length)
    total = np.add.reduceat(local, first)
    centred: FloatArray = local * np.repeat(length - 1, length) - np.repeat(total, length)
    return centred


def _mended_ring(polygon: shapely.Polygon) -> FloatArray:
    """The largest valid piece of a polygon that crosses itself; its box if there is none."""
    snapped = shapely.set_precision(shapely.make_valid(polygon), 0.01)
    pieces = shapely.get_parts(shapely.get_parts(snapped))
    areas = shapely.area(pieces)
    if len(pieces) and areas.max() > 0:
        polygon = pieces[int(areas.argmax())]
    else:
        left, top, right, bottom = polygon.bounds
        polygon = shapely.box(left, top, max(right, left + 0.01), max(bottom, top + 0.01))
    ring: FloatArray = np.round(shapely.get_coordinates(polygon.exterior), 2)
    return ring
