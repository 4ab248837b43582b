"""Cells as a picture: drawn by their density, so that ten and ten million are both readable."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray, IntArray

Color = tuple[int, int, int]

DENSE_QUANTILE = 0.8
"""The density that is drawn fully opaque, among those of the places that have cells."""

FAINTEST = 0.45
"""How opaque a single cell is; it must be seen."""

MIN_SPREAD_PX, MAX_SPREAD_PX = 0.9, 4.0
SPREAD_OF_DISTANCE = 0.9
"""Standard deviation of the blur, over the distance of neighbours: enough to see what most cells
of a neighbourhood are."""

MOST_ASKED = 5000
FAINT = 0.1
"""Of the peak of a cell that stands alone: what is fainter is not drawn."""

TISSUE_GREY = (226, 226, 230)


def count_cells(
    counts: FloatArray, xy: FloatArray, cluster: IntArray, px_per_bin: float
) -> FloatArray:
    """Add cells at ``xy`` (n, 2) px to ``counts`` (k, height, width), in place.

    Cells without a cluster (-1) are left out; those on the far edge fall into the last place.
    """
    k, height, width = counts.shape
    known = cluster >= 0
    place = np.floor(xy[known] / px_per_bin).astype(np.int64)
    x, y = np.clip(place[:, 0], 0, width - 1), np.clip(place[:, 1], 0, height - 1)
    flat = (cluster[known].astype(np.int64) * height + y) * width + x
    counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
    return counts


def paint_clusters(counts: FloatArray, colors: Sequence[Color]) -> ByteArray:
    """Each place in the colour of the cluster that most cells there belong to: (h, w, 4).

    Parameters
    ----------
    counts
        (k, h, w) cells of each cluster.
    """
    spread = _spread(counts)
    total = spread.sum(axis=0)
    picture = np.zeros((*total.shape, 4), np.uint8)
    picture[..., :3] = np.asarray(colors, np.uint8)[spread.argmax(axis=0)]
    picture[..., 3] = _opacity(total)
    return picture


def paint_one(counts: FloatArray, number: int, color: Color, width_px: int) -> ByteArray:
    """Where the cells of one cluster lie, over the pale shape of all cells: (h, w, 4).

    ``counts`` (k, h, w) is made smaller, to ``width_px`` or what it has.
    """
    both = np.stack([counts[number], counts.sum(axis=0)])
    small = _shrink(both, width_px)
    spread = _spread(small)
    picture = np.zeros((*small.shape[1:], 4), np.uint8)
    shape = spread[1] > FAINT
    picture[shape] = (*TISSUE_GREY, 255)
    opacity = _opacity(spread[0]).astype(np.float64)[..., None] / 255
    mixed = opacity * np.asarray(color) + (1 - opacity) * picture[..., :3]
    picture[..., :3] = np.where(opacity > 0, np.round(mixed), picture[..., :3])
    picture[..., 3] = np.where((opacity[..., 0] > 0) | shape, 255, 0)
    return picture


def over_pale(rgb: ByteArray | None, cells: ByteArray) -> ByteArray:
    """``cells`` (h, w, 4) over a pale grey copy of the slide, or over white: (h, w, 3)."""
    h, w = cells.shape[:2]
    ground = np.full((h, w, 3), 255.0)
    if rgb is not None:
        grey = cv2.cvtColor(
            cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
        )
        ground[:] = (255 - 0.35 * (255.0 - grey))[..., None]
    opacity = cells[..., 3:].astype(np.float64) / 255
    mixed: ByteArray = np.round(opacity * cells[..., :3] + (1 - opacity) * ground).astype(np.uint8)
    return mixed


def _spread(counts: FloatArray) -> FloatArray:
    """Counts blurred as far as cells are apart; where one stands alone its peak is 1."""
    sigma = _spread_px(counts.sum(axis=0))
    peak = 2 * np.pi * sigma**2
    blurred = [cv2.GaussianBlur(c.astype(np.float32), (0, 0), sigma) for c in counts]
    return np.stack(blurred) * np.float32(peak)


def _spread_px(total: FloatArray) -> float:
    """Standard deviation of the blur: from the median distance of places with cells."""
    from scipy.spatial import KDTree

    places = np.argwhere(total > 0)
    if len(places) < 2:
        return MAX_SPREAD_PX
    # Every n-th place asks: enough for a median, and quick on a slide that is full.
    asking = places[:: -(-len(places) // MOST_ASKED)]
    nearest = KDTree(places).query(asking, k=2)[0][:, 1]
    return float(np.clip(SPREAD_OF_DISTANCE * np.median(nearest), MIN_SPREAD_PX, MAX_SPREAD_PX))


def _opacity(density: FloatArray) -> ByteArray:
    """0 to 255 (h, w); nothing where no cell is near."""
    seen = density > FAINT
    if not seen.any():
        return np.zeros(density.shape, np.uint8)
    dense = float(np.quantile(density[seen], DENSE_QUANTILE))
    share = np.clip(density / max(dense, 1e-6), 0, 1)
    return np.where(seen, np.round(255 * (FAINTEST + (1 - FAINTEST) * share)), 0).astype(np.uint8)


def _shrink(counts: FloatArray, width_px: int) -> FloatArray:
    """Sums over blocks, so that no cell is lost."""
    block = max(1, -(-counts.shape[2] // width_px))
    height, width = (-(-side // block) for side in counts.shape[1:])
    padded = np.zeros((len(counts), height * block, width * block))
    padded[:, : counts.shape[1], : counts.shape[2]] = counts
    sums: FloatArray = padded.reshape(len(counts), height, block, width, block).sum(axis=(2, 4))
    return sums
