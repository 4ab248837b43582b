"""Thirty numbers about the boundary of a nucleus: the geometry and shape of Bhaskar et al. (2019).

Bhaskar et al., bioRxiv 623793, describe cells by 48 values; the CCRL paper's baseline has "30
geometrical and shape attributes" and does not say which. Taken here are their geometric and shape
groups (35 values without Hu's moments) less five that tell how a nucleus lies or fail on small
ones: orientation of ellipse and of rectangle, perimeter and area after erosion, Euler number.

Everything is measured on the outline along the outer edge of the pixels (holes are filled), in
micrometres, 128 points equally far apart, or 16 where curvature is asked for. Open in the sources,
and chosen here:

- vectors of three pixels become chords over two of the 128 steps, of half weight, for the
  perimeter; the polygon has every second point as a vertex;
- variance is the spread over the mean of the points' distances: from the fitted circle's centre,
  and, by Mahalanobis' distance, from the ellipse of the points;
- the circle is the least-squares fit of Kasa (IEEE Trans. Instrum. Meas. 25 (1976) 8);
- the periodic cubic spline of the boundary goes through 16 points, each the mean of eight, because
  through every pixel it would describe stairs; a protrusion is a maximum of its curvature, at 500
  places, above that of the circle of equal area, an indentation a minimum below 0; both stand out
  by a fifth of that circle's curvature, and are ten places apart;
- Feret's diameters are the sides of the smallest rectangle around.

Drawn finely, all but ``extent``, whose box does not turn with the nucleus, stay as a nucleus turns.
Cut out of pixels, the six of curvature do not: at the size of a nucleus (half axes of 14 and 10 px)
stairs of the outline bend the spline as much as its form does, and an ellipse, which has two
protrusions and no indentation, has two to seven and up to three as it turns. Lengths, areas and
ratios stay within a few per cent.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import shapely
from scipy.interpolate import CubicSpline
from scipy.signal import find_peaks
from scipy.special import ellipe

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.measurement_names import SHAPE_NAMES
from ccrl_wsi.nuclei.outlines import as_polygons
from ccrl_wsi.records import Outlines

N_POINTS = 128
N_KNOTS = 16
N_CURVATURES = 500
PEAKS_APART = 10
PEAK_PROMINENCE = 0.2
"""Of the curvature of the circle of equal area."""
AT_ONCE = 2048
"""Nuclei at once; bounds memory."""


def measure_boundaries(outlines: Outlines, um_per_px: float) -> FloatArray:
    """The shapes (n, 30) float32 of the nuclei in ``outlines``, columns ``SHAPE_NAMES``.

    Parameters
    ----------
    outlines
        Closed rings in pixels of side ``um_per_px``.
    """
    parts = [np.zeros((0, len(SHAPE_NAMES)), np.float32)]
    for start in range(0, len(outlines), AT_ONCE):
        some = outlines.where(np.arange(start, min(start + AT_ONCE, len(outlines))))
        parts.append(_shapes(some, um_per_px))
    return np.concatenate(parts)


def _shapes(outlines: Outlines, um_per_px: float) -> FloatArray:
    # From each ring's first vertex: far from 0, sums would lose digits.
    first = np.repeat(outlines.xy[outlines.start[:-1]], np.diff(outlines.start), axis=0)
    local = Outlines((outlines.xy - first) * um_per_px, outlines.start)
    polygons = as_polygons(local)
    area, perimeter = shapely.area(polygons), shapely.length(polygons)
    points = resampled(local, N_POINTS)
    columns = {
        "area_um2": area,
        "perimeter_um": perimeter,
        "equivalent_diameter_um": np.sqrt(4 * area / np.pi),
        **_polygon(points),
        **_ellipse(local, points),
        **_circle(points),
        **_curvature(points, area),
        **_ratios(polygons, area, perimeter),
    }
    return np.stack([columns[name] for name in SHAPE_NAMES], axis=1).astype(np.float32)


def resampled(rings: Outlines, n_points: int) -> FloatArray:
    """Points (n, n_points, 2) equally far apart along each ring, from its first vertex on."""
    step = np.linalg.norm(np.diff(rings.xy, axis=0, prepend=rings.xy[:1]), axis=1)
    step[rings.start[:-1]] = 0
    along = np.cumsum(step)
    begin, end = along[rings.start[:-1]], along[rings.start[1:] - 1]
    # One long line: rings follow each other without a gap, so one interpolation does for all.
    wanted = begin[:, None] + (end - begin)[:, None] * np.arange(n_points) / n_points
    wanted = np.maximum(wanted, np.nextafter(begin, np.inf)[:, None])
    right = np.searchsorted(along, wanted.ravel(), side="left")
    left = right - 1
    share = (wanted.ravel() - along[left]) / np.maximum(along[right] - along[left], 1e-300)
    found: FloatArray = rings.xy[left] + share[:, None] * (rings.xy[right] - rings.xy[left])
    return found.reshape(len(rings), n_points, 2)


def curvatures(points: FloatArray) -> FloatArray:
    """Curvature (n, 500) of the spline through ``points`` (n, 128, 2); convex is positive."""
    n = len(points)
    middle = N_POINTS // N_KNOTS // 2
    # The mean is over the points around a knot, so that no part of the boundary is left out.
    around = np.roll(points, middle, axis=1).reshape(n, N_KNOTS, -1, 2).mean(axis=2)
    to_slope, to_bend = _spline_derivatives()
    slope, bend = to_slope @ around, to_bend @ around
    cross = slope[..., 0] * bend[..., 1] - slope[..., 1] * bend[..., 0]
    speed = np.maximum((slope**2).sum(axis=2), 1e-12)
    turn: FloatArray = cross / speed**1.5
    return turn


@cache
def _spline_derivatives() -> tuple[FloatArray, FloatArray]:
    """(500, 16) matrices from knots to first and second derivatives of a periodic cubic spline."""
    knots = np.eye(N_KNOTS)
    spline = CubicSpline(np.arange(N_KNOTS + 1), np.vstack([knots, knots[:1]]), bc_type="periodic")
    places = np.arange(N_CURVATURES) * N_KNOTS / N_CURVATURES
    return spline(places, 1), spline(places, 2)


def _polygon(points: FloatArray) -> dict[str, FloatArray]:
    chords = np.linalg.norm(np.roll(points, -1, axis=1) - np.roll(points, 1, axis=1), axis=2)
    corners = points[:, ::2]
    after = np.roll(corners, -1, axis=1)
    doubled = corners[..., 0] * after[..., 1] - corners[..., 1] * after[..., 0]
    return {
        "vectors_perimeter_um": chords.sum(axis=1) / 2,
        "polygon_perimeter_um": np.linalg.norm(after - corners, axis=2).sum(axis=1),
        "polygon_area_um2": np.abs(doubled.sum(axis=1)) / 2,
    }


def _ellipse(rings: Outlines, points: FloatArray) -> dict[str, FloatArray]:
    from ccrl_wsi.nuclei.measurements import ellipse_axes

    major, minor, _ = ellipse_axes(rings)
    squared = np.clip(1 - (minor / major) ** 2, 0, 1)
    centred = points - points.mean(axis=1, keepdims=True)
    spread = np.einsum("nij,nik->njk", centred, centred) / points.shape[1]
    distance = np.sqrt(
        np.maximum(np.einsum("nij,njk,nik->ni", centred, np.linalg.pinv(spread), centred), 0)
    )
    return {
        "ellipse_eccentricity": np.sqrt(squared),
        "ellipse_major_axis_um": major,
        "ellipse_minor_axis_um": minor,
        "ellipse_area_um2": np.pi * major * minor / 4,
        "ellipse_perimeter_um": 2 * major * ellipe(squared),
        "ellipse_variance": _spread_over_mean(distance),
    }


def _circle(points: FloatArray) -> dict[str, FloatArray]:
    """Kasa's fit: x^2 + y^2 = 2 a x + 2 b y + c is linear in centre and c."""
    centred = points - points.mean(axis=1, keepdims=True)
    x, y = centred[..., 0], centred[..., 1]
    squares = x**2 + y**2
    xx, yy, xy = (x * x).sum(axis=1), (y * y).sum(axis=1), (x * y).sum(axis=1)
    right = np.stack([(x * squares).sum(axis=1), (y * squares).sum(axis=1)]) / 2
    determinant = np.maximum(xx * yy - xy**2, 1e-300)
    a = (yy * right[0] - xy * right[1]) / determinant
    b = (xx * right[1] - xy * right[0]) / determinant
    radius = np.sqrt(squares.mean(axis=1) + a**2 + b**2)
    distance = np.hypot(x - a[:, None], y - b[:, None])
    return {
        "circle_radius_um": radius,
        "circle_perimeter_um": 2 * np.pi * radius,
        "circle_area_um2": np.pi * radius**2,
        "circle_variance": _spread_over_mean(distance),
    }


def _curvature(points: FloatArray, area: FloatArray) -> dict[str, FloatArray]:
    found = curvatures(points)
    # Scale-free, so that 1 is a circle's.
    relative = found * np.sqrt(area / np.pi)[:, None]
    return {
        "curvature_mean_per_um": found.mean(axis=1),
        "curvature_std_per_um": found.std(axis=1),
        "n_protrusions": _count_peaks(relative, 1.0),
        "n_indentations": _count_peaks(-relative, 0.0),
        "curvature_max_per_um": found.max(axis=1),
        "curvature_min_per_um": found.min(axis=1),
    }


def _count_peaks(values: FloatArray, above: float) -> FloatArray:
    """How many peaks each closed row of ``values`` (n, m) has above ``above``."""
    lowest = values.argmin(axis=1)
    counts = np.zeros(len(values))
    for i in np.flatnonzero(values.max(axis=1) > above):
        # From the lowest place on and back to it: no peak lies across the ends.
        row = np.roll(values[i], -lowest[i])
        closed = np.append(row, row[0])
        peaks, _ = find_peaks(
            closed, height=above, distance=PEAKS_APART, prominence=PEAK_PROMINENCE
        )
        counts[i] = len(peaks)
    return counts


def _ratios(polygons: FloatArray, area: FloatArray, perimeter: FloatArray) -> dict[str, FloatArray]:
    hulls = shapely.convex_hull(polygons)
    left, top, right, bottom = shapely.bounds(polygons).T
    longest, shortest = _rectangle_sides(hulls)
    return {
        "rectangle_long_side_um": longest,
        "rectangle_short_side_um": shortest,
        "extent": area / ((right - left) * (bottom - top)),
        "solidity": np.minimum(area / shapely.area(hulls), 1),
        "compactness": np.sqrt(4 * area / np.pi) / longest,
        "elongation": 1 - shortest / longest,
        "convexity": np.minimum(shapely.length(hulls) / perimeter, 1),
        "circularity": 4 * np.pi * area / perimeter**2,
    }


def _rectangle_sides(hulls: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Long and short side (n,) of the smallest rectangle around each hull."""
    corners, row = shapely.get_coordinates(
        shapely.minimum_rotated_rectangle(hulls), return_index=True
    )
    first: IntArray = np.searchsorted(row, np.arange(len(hulls)))
    one = np.linalg.norm(corners[first + 1] - corners[first], axis=1)
    other = np.linalg.norm(corners[first + 2] - corners[first + 1], axis=1)
    return np.maximum(one, other), np.minimum(one, other)


def _spread_over_mean(distance: FloatArray) -> FloatArray:
    ratio: FloatArray = distance.std(axis=1) / np.maximum(distance.mean(axis=1), 1e-12)
    return ratio
