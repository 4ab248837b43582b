"""Size, shape, stain and texture of nuclei: finite numbers, whatever the nucleus.

Columns and definitions are those of :data:`ccrl_wsi.measurement_names.MEASUREMENTS`. Every value
follows from the pixels within :data:`AROUND_UM` of the nucleus' box, never from the tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
_NUCLEI_AT_ONCE = 64  # so that their pixels stay in the cache

# Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001) 291.
_HAEMATOXYLIN = np.array([0.650, 0.704, 0.286])
_EOSIN = np.array([0.072, 0.990, 0.105])


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
    major, minor, orientation = ellipse_axes(local)
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
    around = -np.log10(np.maximum(_colours_around(rgb, labels, regions, mpp), 1) / 255) @ _UNMIX.T
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    slopes, inside = cv2.spatialGradient(grey), _pixels_of(labels, regions)
    rows = []
    for some in inside.batches():
        mean, spread = _stains(rgb, some)
        texture = [_gradient(slopes, some), _contrast(grey, labels, some)]
        rows.append(np.stack([*mean, *spread, *texture, *_grey_spread(some.histograms(grey))]))
    found = np.hstack(rows) if rows else np.zeros((8, 0))
    return {
        "haematoxylin_mean": found[0],
        "eosin_mean": found[1],
        "haematoxylin_std": found[2],
        "eosin_std": found[3],
        "haematoxylin_around": np.where(np.isnan(around[:, 0]), found[0], around[:, 0]),
        "eosin_around": np.where(np.isnan(around[:, 1]), found[1], around[:, 1]),
        "gradient": found[4] / mpp,
        "contrast": found[5],
        "grey_std": found[6],
        "entropy": found[7],
    }


@dataclass(frozen=True, eq=False, slots=True)
class _Pixels:
    """All pixels of n nuclei, nucleus by nucleus, each row by row.

    Sums are taken in this order, which is the same in every tile.

    Parameters
    ----------
    place
        (p,) positions in the flattened image.
    start
        (n,) where each nucleus begins in ``place``.
    count
        (n,) number of pixels of each nucleus.
    """

    place: IntArray
    start: IntArray
    count: IntArray

    def batches(self) -> Iterator[_Pixels]:
        """Some nuclei at a time."""
        for first in range(0, len(self.count), _NUCLEI_AT_ONCE):
            some = slice(first, first + _NUCLEI_AT_ONCE)
            begin, count = self.start[first], self.count[some]
            place = self.place[begin : begin + count.sum()]
            yield _Pixels(place, self.start[some] - begin, count)

    def total(self, values: IntArray | FloatArray) -> FloatArray:
        """Sum of ``values`` (p,) over each nucleus: (n,)."""
        return np.add.reduceat(values, self.start, dtype=np.float64)

    def mean(self, values: IntArray | FloatArray) -> FloatArray:
        """Mean of ``values`` (p,) over each nucleus: (n,)."""
        return self.total(values) / self.count

    def histograms(self, grey: ByteArray) -> IntArray:
        """How often each nucleus has each value of ``grey`` (h, w): (n, 256)."""
        n = len(self.count)
        cell = np.repeat(np.arange(n) * 256, self.count) + grey.ravel()[self.place]
        return np.bincount(cell, minlength=n * 256).reshape(n, 256)


def _pixels_of(labels: IntArray, regions: Regions) -> _Pixels:
    place = np.flatnonzero(labels != 0)
    label = labels.ravel()[place]
    n = len(regions)
    number = np.full(int(label.max(initial=0)) + 1, n, np.min_scalar_type(n))
    number[regions.label] = np.arange(n)
    order = np.argsort(number[label], kind="stable")  # unwanted nuclei last
    count = regions.n_pixels
    return _Pixels(place[order[: count.sum()]], np.cumsum(count) - count, count)


def _grey_spread(histograms: IntArray) -> tuple[FloatArray, FloatArray]:
    """Standard deviation and entropy (n,) of the grey values that ``histograms`` (n, 256) count."""
    share = histograms / histograms.sum(axis=1, keepdims=True)
    grey = np.arange(256)
    mean = share @ grey
    binned = share.reshape(-1, GREY_BINS, 256 // GREY_BINS).sum(axis=2)
    entropy = -np.sum(binned * np.log2(np.where(binned > 0, binned, 1)), axis=1) + 0.0
    return np.sqrt(np.maximum(share @ grey**2 - mean**2, 0)), entropy


def _stains(rgb: ByteArray, inside: _Pixels) -> tuple[list[FloatArray], list[FloatArray]]:
    """Means and spreads, (n,) each, of haematoxylin and eosin."""
    # Twice as fast as an index.
    colours = rgb.reshape(-1, 3).take(inside.place, axis=0).reshape(-1, 1, 3)
    means, spreads = [], []
    for table in _STAIN_OF_VALUE:
        red, green, blue = cv2.split(cv2.LUT(colours, table))
        stain = (red + green + blue).ravel()
        means.append(inside.mean(stain))
        spreads.append(np.sqrt(np.maximum(inside.mean(stain**2) - means[-1] ** 2, 0)))
    return means, spreads


def _colours_around(rgb: ByteArray, labels: IntArray, regions: Regions, mpp: float) -> FloatArray:
    """Mean red, green, blue of what is no nucleus around each: (n, 3), NaN without such pixels."""
    margin = um_to_px(AROUND_UM, mpp)
    outside = (labels == 0).view(np.uint8)
    first = np.maximum(regions.boxes[:, :2] - margin, 0)
    last = regions.boxes[:, :2] + regions.boxes[:, 2:] + margin
    colours = np.full((len(regions), 3), np.nan)
    corners = zip(first.tolist(), last.tolist(), strict=True)
    for row, ((left, top), (right, bottom)) in enumerate(corners):
        mask = outside[top:bottom, left:right]
        if cv2.countNonZero(mask):
            colours[row] = cv2.mean(rgb[top:bottom, left:right], mask=mask)[:3]
    return colours


def _gradient(slopes: tuple[IntArray, IntArray], inside: _Pixels) -> FloatArray:
    """Root mean square slope (n,), grey values per pixel."""
    across, down = (slope.ravel()[inside.place].astype(np.int32) for slope in slopes)
    # Sobel weighs by 1 + 2 + 1 over a distance of 2: 8 times the slope.
    slope: FloatArray = np.sqrt(inside.mean(across**2 + down**2) / 64)
    return slope


def _contrast(grey: ByteArray, labels: IntArray, inside: _Pixels) -> FloatArray:
    """Mean squared difference (n,) of neighbours, beside and below, in the same nucleus."""
    place, width = inside.place, grey.shape[1]
    value = grey.ravel()[place].astype(np.int32)
    # Row by row: the neighbour beside a pixel is the next one, if any.
    is_beside = np.zeros(len(place), np.bool_)
    is_beside[:-1] = (np.diff(place) == 1) & (place[1:] % width != 0)
    is_beside[inside.start[1:] - 1] = False
    squares = np.zeros(len(place), np.int32)
    squares[:-1] = is_beside[:-1] * np.diff(value) ** 2
    below = np.minimum(place + width, grey.size - 1)
    is_above = (labels.ravel()[below] == labels.ravel()[place]) & (place < grey.size - width)
    squares += is_above * (grey.ravel()[below] - value) ** 2
    n_pairs = is_beside.astype(np.int32) + is_above
    contrast: FloatArray = inside.total(squares) / np.maximum(inside.total(n_pairs), 1)
    return contrast


def ellipse_axes(rings: Outlines) -> tuple[FloatArray, FloatArray, FloatArray]:
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
    unmix: FloatArray = np.linalg.inv(stains).T[:2]
    return unmix


_UNMIX = _unmixing()
_DENSITY = -np.log10(np.maximum(np.arange(256), 1) / 255)
_STAIN_OF_VALUE = _UNMIX[:, None, None, :] * _DENSITY[:, None, None]
"""(2, 256, 1, 3): what each value of each colour adds to haematoxylin and to eosin."""
