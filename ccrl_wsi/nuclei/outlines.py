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
    middles = _edge_middles(_border_pixels(labels, regions))
    # A ring through the middles of pixel edges cuts an eighth of a pixel off each convex corner
    # and adds as much at each concave one; there are always four more of the former.
    area = _areas(middles) + 0.5
    rings = shapely.simplify(
        _as_rings(_smoothed(middles), middles), TOLERANCE_PX, preserve_topology=False
    )
    _take_exact(rings, shapely.get_num_coordinates(rings) < 4, middles)
    local = _scaled_to(rings, area)
    is_sound = are_valid(local)
    if not is_sound.all():
        _take_exact(rings, ~is_sound, middles)
        local = _scaled_to(rings, area)
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
    polygons: FloatArray = shapely.polygons(_as_rings(outlines.xy, outlines))
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


def _edge_middles(border: Outlines) -> Outlines:
    """Open rings through the middles of the pixel edges between a nucleus and what is around it.

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
    return Outlines(middle, start)


def _areas(rings: Outlines) -> FloatArray:
    """Area (n,) inside open rings: exact, for coordinates that are whole or half pixels."""
    (x0, y0), (x1, y1) = rings.xy.T, rings.xy[_next(rings)].T
    twice = np.bincount(_row_of_vertex(rings), x0 * y1 - x1 * y0, minlength=len(rings))
    area: FloatArray = np.abs(twice) / 2
    return area


def _take_exact(rings: FloatArray, rows: BoolArray, middles: Outlines) -> None:
    """Put the unsimplified rings of ``middles`` where ``rows`` (n,) says, in ``rings`` itself."""
    if rows.any():
        exact = middles.where(rows)
        rings[rows] = _as_rings(exact.xy, exact)


def _smoothed(rings: Outlines) -> FloatArray:
    """Vertices of open rings after one (1, 2, 1) / 4 pass, which flattens stairs."""
    smooth: FloatArray = (rings.xy[_previous(rings)] + 2 * rings.xy + rings.xy[_next(rings)]) / 4
    return smooth


def _as_rings(xy: FloatArray, like: Outlines) -> FloatArray:
    """(n,) object array of shapely's closed rings of vertices ``xy``, parted as in ``like``."""
    rings: FloatArray = shapely.linearrings(xy, indices=_row_of_vertex(like))
    return rings


def _scaled_to(rings: FloatArray, area: FloatArray) -> Outlines:
    """Rings turned round and stretched about their centres to ``area``.

    They end on a lattice on which shifts by whole pixels are exact.
    """
    polygons = shapely.polygons(rings)
    now = shapely.area(polygons)
    factor = np.sqrt(area / np.where(now > 0, now, area))
    xy, row = shapely.get_coordinates(shapely.reverse(rings), return_index=True)
    centre = shapely.get_coordinates(shapely.centroid(polygons))[row]
    xy = np.round((centre + (xy - centre) * factor[row, None]) * _SUBPIXELS) / _SUBPIXELS
    end = np.cumsum(shapely.get_num_coordinates(rings))
    return Outlines(xy, np.concatenate([[0], end]).astype(np.int64))


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
