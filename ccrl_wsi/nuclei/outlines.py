"""From a label image to one closed, valid ring a nucleus.

Pixel (0, 0) covers [0, 1) x [0, 1). A ring runs along the *outer edge* of the pixels, not
through their centres, and encloses exactly as much area as the pixels and the holes between
them. Rings have a positive shoelace area (RFC 7946's counter-clockwise, y read as upwards; on
the screen, where y points down, they run clockwise).
"""

from __future__ import annotations

import cv2
import numpy as np
import shapely

from ccrl_wsi.arrays import BoolArray, FloatArray, IntArray
from ccrl_wsi.geometry import PixelGrid
from ccrl_wsi.nuclei.regions import Regions, find_regions
from ccrl_wsi.records import Outlines

TOLERANCE_PX = 0.25
"""A vertex is dropped where the ring moves by less than this."""
DECIMALS = 2
"""QuPath reduces geometry to 0.01 px and refuses a file in which that breaks a polygon."""

_SUBPIXELS = 256
# Directions 0..7 clockwise on the screen, from +x; even ones point across a pixel's edges.
_DX = np.array([1, 1, 0, -1, -1, -1, 0, 1])
_DY = np.array([0, 1, 1, 1, 0, -1, -1, -1])
_DIRECTION = np.zeros((3, 3), np.int64)
_DIRECTION[_DY + 1, _DX + 1] = np.arange(8)


def trace_outlines(labels: IntArray, regions: Regions | None = None) -> Outlines:
    """Rings of the nuclei of ``labels`` (h, w) int32, in image pixels.

    Of a nucleus in several pieces (pixels touching at a corner are one piece) the largest is
    drawn; holes are filled. The same nucleus at another place gives the same ring, shifted,
    bit for bit.

    Parameters
    ----------
    regions
        The nuclei to trace; all of them by default.
    """
    regions = find_regions(labels) if regions is None else regions
    if len(regions) == 0:
        return Outlines.concat([])
    exact = _edge_rings(_border_pixels(labels, regions))
    # A ring through the middles of pixel edges cuts an eighth of a pixel off each convex corner
    # and adds as much at each concave one; there are always four more of the former.
    area = shapely.area(as_polygons(exact)) + 0.5
    short = _simplified(exact)
    short = _replaced(short, np.diff(short.start) < 4, exact)
    short, exact = _scaled_to(short, area), _scaled_to(exact, area)
    local = _replaced(short, ~are_valid(short), exact)
    corner = np.repeat(regions.boxes[:, :2], np.diff(local.start), axis=0)
    return Outlines(local.xy + corner, local.start)


def outlines_to_level0(outlines: Outlines, origin_xy: tuple[int, int], grid: PixelGrid) -> Outlines:
    """Rings of an image as level-0 pixels, rounded to two decimals and still valid.

    Parameters
    ----------
    outlines
        As from :func:`trace_outlines`.
    origin_xy
        Grid pixel at the image's top-left corner.
    """
    exact = grid.to_level0(outlines.xy + np.asarray(origin_xy, dtype=np.float64))
    rounded = _without_repeats(Outlines(_rounded(exact), outlines.start))
    broken = np.flatnonzero(~are_valid(rounded))
    if len(broken) == 0:
        return rounded
    mended = [
        _mended(exact[outlines.start[row] : outlines.start[row + 1]]) for row in broken.tolist()
    ]
    order = np.arange(len(rounded))
    order[broken] = len(rounded) + np.arange(len(broken))
    return Outlines.concat([rounded, *map(_single, mended)]).where(order)


def as_polygons(outlines: Outlines) -> FloatArray:
    """(n,) object array of shapely polygons; every ring needs four vertices or more."""
    polygons: FloatArray = shapely.polygons(
        shapely.linearrings(outlines.xy, indices=_row_of_vertex(outlines))
    )
    return polygons


def are_valid(outlines: Outlines) -> BoolArray:
    """Which rings make a simple polygon with an inside: boolean (n,)."""
    valid: BoolArray = np.diff(outlines.start) >= 4
    if valid.any():
        polygons = as_polygons(outlines.where(valid))
        valid[valid] = shapely.is_valid(polygons) & (shapely.area(polygons) > 0)
    return valid


def _border_pixels(labels: IntArray, regions: Regions) -> Outlines:
    """Outer border pixels of each nucleus, in order and not closed, from its box's corner."""
    borders = []
    for label, (left, top, width, height) in zip(
        regions.label.tolist(), regions.boxes.tolist(), strict=True
    ):
        mask = (labels[top : top + height, left : left + width] == label).view(np.uint8)
        found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        borders.append(found[0] if len(found) == 1 else _largest(found, mask))
    start = np.concatenate([[0], np.cumsum([len(b) for b in borders])]).astype(np.int64)
    return Outlines(np.concatenate(borders)[:, 0].astype(np.int64), start)


def _largest(borders: tuple[IntArray, ...], mask: IntArray) -> IntArray:
    """The border of the piece with the most pixels; of equal ones the first."""
    sizes = []
    for border in borders:
        filled = np.zeros_like(mask)
        cv2.drawContours(filled, [border], 0, 1, cv2.FILLED)
        sizes.append(np.count_nonzero(filled & mask))
    return borders[int(np.argmax(sizes))]


def _edge_rings(border: Outlines) -> Outlines:
    """Rings through the middles of the pixel edges that part a nucleus from what is around it.

    Between the border pixel before and the one after it, a border pixel's neighbours are
    background; a ring visits the edge to each of those that share one.
    """
    pixels, count = border.xy.astype(np.int64), np.diff(border.start)
    step = pixels[_next(border)] - pixels
    ahead = _DIRECTION[step[:, 1] + 1, step[:, 0] + 1]
    behind = (ahead[_previous(border)] + 4) % 8
    is_diagonal = behind % 2
    n_edges = ((behind - ahead - 1) % 8 + is_diagonal) // 2
    first = (behind - 2 + is_diagonal) % 8
    lone = border.start[:-1][count == 1]
    n_edges[lone], first[lone] = 4, 6
    end = np.cumsum(n_edges)
    nth = np.arange(end[-1]) - np.repeat(end - n_edges, n_edges)
    across = (np.repeat(first, n_edges) - 2 * nth) % 8
    middle = np.repeat(pixels, n_edges, axis=0) + 0.5
    middle += 0.5 * np.stack([_DX[across], _DY[across]], axis=1)
    start = np.concatenate([[0], end[border.start[1:] - 1]]).astype(np.int64)
    return _closed(Outlines(middle, start))


def _closed(rings: Outlines) -> Outlines:
    """Open rings that run against RFC 7946, turned round and closed."""
    last = rings.start[1:] - 1
    start = rings.start + np.arange(len(rings.start))
    row = np.repeat(np.arange(len(rings)), np.diff(start))
    take = last[row] - (np.arange(start[-1]) - start[:-1][row])
    take[start[1:] - 1] = last
    return Outlines(rings.xy[take], start)


def _simplified(rings: Outlines) -> Outlines:
    """Smoothed by one (1, 2, 1) / 4 pass, which flattens stairs, and thinned out."""
    inner = np.ones(len(rings.xy), dtype=bool)
    inner[rings.start[1:] - 1] = False
    count = np.diff(rings.start) - 1
    start = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    ring = Outlines(rings.xy[inner], start)
    smooth = (ring.xy[_previous(ring)] + 2 * ring.xy + ring.xy[_next(ring)]) / 4
    lines = shapely.linearrings(smooth, indices=_row_of_vertex(ring))
    thin = shapely.simplify(lines, TOLERANCE_PX, preserve_topology=False)
    xy, row = shapely.get_coordinates(thin, return_index=True)
    kept = np.bincount(row, minlength=len(ring))
    return Outlines(xy, np.concatenate([[0], np.cumsum(kept)]).astype(np.int64))


def _scaled_to(rings: Outlines, area: FloatArray) -> Outlines:
    """Rings stretched about their centres to ``area``, on a lattice on which shifts are exact."""
    polygons = as_polygons(rings)
    now = shapely.area(polygons)
    factor = np.sqrt(area / np.where(now > 0, now, area))
    row = _row_of_vertex(rings)
    centre = shapely.get_coordinates(shapely.centroid(polygons))[row]
    xy = centre + (rings.xy - centre) * factor[row, None]
    return Outlines(np.round(xy * _SUBPIXELS) / _SUBPIXELS, rings.start)


def _replaced(rings: Outlines, bad: BoolArray, spare: Outlines) -> Outlines:
    if not bad.any():
        return rings
    rows = np.arange(len(rings))
    return Outlines.concat([rings, spare]).where(np.where(bad, rows + len(rings), rows))


def _without_repeats(rings: Outlines) -> Outlines:
    """Rings without vertices that equal the one before."""
    repeats = (rings.xy[1:] == rings.xy[:-1]).all(axis=1)
    keep = np.concatenate([[True], ~repeats])[: len(rings.xy)]
    keep[rings.start[:-1]] = True
    if keep.all():
        return rings
    kept = np.concatenate([[0], np.cumsum(keep)])
    return Outlines(rings.xy[keep], kept[rings.start].astype(np.int64))


def _mended(ring: FloatArray) -> FloatArray:
    """A valid ring on the lattice of two decimals, for one that rounding would break."""
    cell = 10.0**-DECIMALS
    parts = shapely.get_parts(shapely.set_precision(shapely.polygons(ring), cell))
    if len(parts):
        outer = shapely.get_exterior_ring(parts[int(np.argmax(shapely.area(parts)))])
        xy = _rounded(shapely.get_coordinates(outer))
        xy = xy if shapely.is_ccw(outer) else xy[::-1]
        if are_valid(_single(xy)).all():
            return xy
    # Smaller than a lattice cell: the smallest square there is.
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * cell
    return _rounded(_rounded(ring.mean(axis=0)) + corners)


def _rounded(xy: FloatArray) -> FloatArray:
    rounded: FloatArray = np.round(xy, DECIMALS) + 0.0  # no minus zero
    return rounded


def _single(ring: FloatArray) -> Outlines:
    return Outlines(ring, np.array([0, len(ring)], dtype=np.int64))


def _row_of_vertex(rings: Outlines) -> IntArray:
    return np.repeat(np.arange(len(rings)), np.diff(rings.start))


def _next(rings: Outlines) -> IntArray:
    """Row of the vertex after each one, in rings without a closing vertex."""
    rows = np.arange(1, len(rings.xy) + 1)
    rows[rings.start[1:] - 1] = rings.start[:-1]
    return rows


def _previous(rings: Outlines) -> IntArray:
    """Row of the vertex before each one, in rings without a closing vertex."""
    rows = np.arange(-1, len(rings.xy) - 1)
    rows[rings.start[:-1]] = rings.start[1:] - 1
    return rows
