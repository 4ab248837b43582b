"""Size, shape, stain and texture of nuclei: finite numbers, whatever the nucleus.

Columns and definitions are those of :data:`ccrl_wsi.measurement_names.MEASUREMENTS`. Every value
follows from the pixels within :data:`AROUND_UM` of the nucleus' box, never from the tile.
"""

from __future__ import annotations

import cv2
import numpy as np
import shapely

from ccrl_wsi.arrays import ByteArray, FloatArray, IntArray
from ccrl_wsi.geometry import um_to_px
from ccrl_wsi.measurement_names import NAMES
from ccrl_wsi.nuclei.outlines import as_polygons
from ccrl_wsi.nuclei.regions import Regions
from ccrl_wsi.records import Outlines

AROUND_UM = 1.5
"""How far around a nucleus' box its surroundings reach."""
GREY_BINS = 16

# Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001) 291.
_HAEMATOXYLIN = np.array([0.650, 0.704, 0.286])
_EOSIN = np.array([0.072, 0.990, 0.105])
_DENSITY = np.repeat(-np.log10(np.maximum(np.arange(256), 1) / 255)[None, :, None], 3, axis=2)
_DENSITY = _DENSITY.astype(np.float32)


def measure(
    rgb: ByteArray, labels: IntArray, regions: Regions, outlines: Outlines, mpp: float
) -> FloatArray:
    """Measurements (n, m) float32 of the nuclei in ``regions``.

    Parameters
    ----------
    rgb, labels
        (h, w, 3) uint8 image and (h, w) int32 numbers of its nuclei.
    regions, outlines
        Which nuclei, and their rings in image pixels; row i of both is nucleus i.
    """
    columns = {
        **measure_shapes(regions, outlines, mpp),
        **measure_pixels(rgb, labels, regions, mpp),
    }
    return np.stack([columns[name] for name in NAMES], axis=1).astype(np.float32)


def measure_shapes(regions: Regions, outlines: Outlines, mpp: float) -> dict[str, FloatArray]:
    """Size and shape, by column name: (n,) float64 each."""
    corner = np.repeat(regions.boxes[:, :2], np.diff(outlines.start), axis=0)
    local = Outlines(outlines.xy - corner, outlines.start)  # the same sums in every tile
    polygons = as_polygons(local)
    area, perimeter = shapely.area(polygons), shapely.length(polygons)
    hull = shapely.area(shapely.convex_hull(polygons))
    major, minor, orientation = _ellipse_axes(local)
    area_um2 = regions.n_pixels * mpp**2
    return {
        "area_um2": area_um2,
        "perimeter_um": perimeter * mpp,
        "equivalent_diameter_um": np.sqrt(4 / np.pi * area_um2),
        "major_axis_um": major * mpp,
        "minor_axis_um": minor * mpp,
        "eccentricity": np.sqrt(np.clip(1 - (minor / major) ** 2, 0, 1)),
        "orientation_deg": orientation,
        "circularity": 4 * np.pi * area / perimeter**2,
        "solidity": np.minimum(area / hull, 1),
        "extent": regions.n_pixels / (regions.boxes[:, 2] * regions.boxes[:, 3]),
    }


def measure_pixels(
    rgb: ByteArray, labels: IntArray, regions: Regions, mpp: float
) -> dict[str, FloatArray]:
    """Stain and texture, by column name: (n,) float64 each."""
    rgb = np.ascontiguousarray(rgb)  # OpenCV refuses views such as a channel flip
    n, margin = len(regions), um_to_px(AROUND_UM, mpp)
    means, spreads, squares = (np.zeros((n, 2)) for _ in range(3))
    colours, histograms = np.zeros((n, 3)), np.zeros((n, 256), np.int64)
    for row, (label, box) in enumerate(
        zip(regions.label.tolist(), regions.boxes.tolist(), strict=True)
    ):
        inside = (labels[_place(box, 0)] == label).view(np.uint8)
        means[row], spreads[row] = _stains(rgb[_place(box, 0)], inside)
        squares[row], histograms[row] = _textures(rgb[_place(box, 1)], box, inside)
        place = _place(box, margin)
        colours[row] = _colour_around(rgb[place], (labels[place] == 0).view(np.uint8))
    density = -np.log10(np.maximum(colours, 1) / 255) @ _UNMIX.T
    around = np.where(np.isnan(density), means, density)
    return {
        "haematoxylin_mean": means[:, 0],
        "eosin_mean": means[:, 1],
        "haematoxylin_std": spreads[:, 0],
        "eosin_std": spreads[:, 1],
        "haematoxylin_around": around[:, 0],
        "eosin_around": around[:, 1],
        "gradient": np.sqrt(squares[:, 0]) / mpp,
        "contrast": squares[:, 1],
        **_grey_spread(histograms),
    }


def _place(box: list[int], margin: int) -> tuple[slice, slice]:
    """Rows and columns of a box grown by ``margin``; slices end at the image by themselves."""
    left, top, width, height = box
    rows = slice(max(0, top - margin), top + height + margin)
    return rows, slice(max(0, left - margin), left + width + margin)


def _grey_spread(histograms: IntArray) -> dict[str, FloatArray]:
    """Standard deviation and entropy of the grey values that ``histograms`` (n, 256) count."""
    share = histograms / histograms.sum(axis=1, keepdims=True)
    grey = np.arange(256)
    mean = share @ grey
    binned = share.reshape(-1, GREY_BINS, 256 // GREY_BINS).sum(axis=2)
    return {
        "grey_std": np.sqrt(np.maximum(share @ grey**2 - mean**2, 0)),
        "entropy": -np.sum(binned * np.log2(np.where(binned > 0, binned, 1)), axis=1) + 0.0,
    }


def _stains(rgb: ByteArray, inside: ByteArray) -> tuple[FloatArray, FloatArray]:
    """Mean and spread of haematoxylin and eosin in one nucleus' box, where ``inside`` is 1."""
    stained = cv2.LUT(rgb, _DENSITY).reshape(-1, 3) @ _UNMIX.T
    mean, spread = cv2.meanStdDev(stained.reshape(*inside.shape, 2), mask=inside)
    return mean[:, 0], spread[:, 0]


def _colour_around(rgb: ByteArray, outside: ByteArray) -> tuple[float, ...]:
    """Mean red, green, blue where ``outside`` is 1; NaN if it nowhere is."""
    if not cv2.countNonZero(outside):
        return np.nan, np.nan, np.nan
    mean: tuple[float, ...] = cv2.mean(rgb, mask=outside)
    return mean[:3]


def _textures(
    rgb: ByteArray, box: list[int], inside: ByteArray
) -> tuple[tuple[float, float], IntArray]:
    """Mean squares of slope and of neighbours' differences; histogram of the grey values.

    ``rgb`` is the box with one pixel around it, as far as the image has one.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    left, top = min(box[0], 1), min(box[1], 1)
    core = np.s_[top : top + box[3], left : left + box[2]]
    slopes = [_squares(along[core], None, inside) for along in cv2.spatialGradient(grey)]
    grey = grey[core]
    histogram = np.bincount(grey[inside.view(np.bool_)], minlength=256)
    beside, below = inside[:, 1:] & inside[:, :-1], inside[1:] & inside[:-1]
    n_pairs = cv2.countNonZero(beside) + cv2.countNonZero(below) if inside.size > 1 else 0
    steps = _squares(grey[:, 1:], grey[:, :-1], beside) + _squares(grey[1:], grey[:-1], below)
    # Sobel weighs by 1 + 2 + 1 over a distance of 2: 8 times the slope.
    slope = sum(slopes) / (64 * cv2.countNonZero(inside))
    return (slope, steps / max(n_pairs, 1)), histogram


def _squares(a: IntArray, b: IntArray | None, mask: ByteArray) -> float:
    """Sum of squares of ``a - b`` (of ``a`` without ``b``) over ``mask``; 0 for empty arrays."""
    if a.size == 0:
        return 0.0
    if b is None:
        return float(cv2.norm(a, cv2.NORM_L2SQR, mask))
    return float(cv2.norm(a, b, cv2.NORM_L2SQR, mask))


def _ellipse_axes(rings: Outlines) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Long and short axis of the ellipses with the rings' second moments; angle in degrees.

    Sums over edges by Green's theorem, as the shoelace formula is for the area.
    """
    is_last = np.zeros(len(rings.xy), dtype=bool)
    is_last[rings.start[1:] - 1] = True
    begin = np.flatnonzero(~is_last)
    (x0, y0), (x1, y1) = rings.xy[begin].T, rings.xy[begin + 1].T
    row = np.repeat(np.arange(len(rings)), np.diff(rings.start) - 1)

    def total(term: FloatArray) -> FloatArray:
        weighted = term * (x0 * y1 - x1 * y0)
        return np.bincount(row, weighted, minlength=len(rings)).astype(np.float64)

    area = total(np.ones_like(x0)) / 2
    mean_x, mean_y = total(x0 + x1) / (6 * area), total(y0 + y1) / (6 * area)
    xx = total(x0**2 + x0 * x1 + x1**2) / (12 * area) - mean_x**2
    yy = total(y0**2 + y0 * y1 + y1**2) / (12 * area) - mean_y**2
    xy = total(x0 * (2 * y0 + y1) + x1 * (2 * y1 + y0)) / (24 * area) - mean_x * mean_y
    middle, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    # A filled ellipse of half-axis a has variance a^2 / 4 along it.
    major, minor = 4 * np.sqrt(middle + half), 4 * np.sqrt(np.maximum(middle - half, 0))
    is_round = half <= 1e-9 * middle
    angle = np.degrees(np.arctan2(-2 * xy, xx - yy) / 2) % 180  # y points down on the screen
    return major, minor, np.where(is_round, 0.0, angle)


def _unmixing() -> FloatArray:
    """(2, 3) matrix from optical densities of red, green, blue to haematoxylin and eosin."""
    third = np.cross(_HAEMATOXYLIN, _EOSIN)
    stains = np.stack([v / np.linalg.norm(v) for v in (_HAEMATOXYLIN, _EOSIN, third)])
    unmix: FloatArray = np.linalg.inv(stains).T[:2].astype(np.float32)
    return unmix


_UNMIX = _unmixing()
