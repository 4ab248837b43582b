"""A picture of a result: outlines coloured by cluster on the pixels they were found in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray, IntArray
from ccrl_wsi.records import Outlines

Color = tuple[int, int, int]

_SUBPIXEL_BITS = 4
_LEGEND_ROW_PX = 34


def draw_outlines(
    rgb: ByteArray,
    outlines: Outlines,
    cluster: IntArray,
    colors: Sequence[Color],
    *,
    width_px: int = 2,
    fill: float = 0.0,
) -> ByteArray:
    """A copy of ``rgb`` with the outline of every nucleus in the colour of its cluster.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8.
    outlines
        n rings in pixels of ``rgb``.
    cluster
        (n,) index into ``colors``.
    fill
        How opaque the inside is filled, 0 to 1.
    """
    picture = np.ascontiguousarray(rgb).copy()
    rings = [_fixed_point(outlines.ring(i)) for i in range(len(outlines))]
    if fill > 0:
        painted = picture.copy()
        for ring, number in zip(rings, cluster, strict=True):
            cv2.fillPoly(painted, [ring], colors[number], cv2.LINE_AA, _SUBPIXEL_BITS)
        picture = cv2.addWeighted(painted, fill, picture, 1 - fill, 0)
    for ring, number in zip(rings, cluster, strict=True):
        cv2.polylines(picture, [ring], True, colors[number], width_px, cv2.LINE_AA, _SUBPIXEL_BITS)
    return picture


def side_by_side(pictures: Sequence[ByteArray], gap_px: int = 12) -> ByteArray:
    """Pictures of equal height from left to right on white."""
    gap = np.full((pictures[0].shape[0], gap_px, 3), 255, np.uint8)
    pieces = [piece for picture in pictures for piece in (picture, gap)][:-1]
    return np.concatenate(pieces, axis=1)


def with_legend(
    picture: ByteArray, names: Sequence[str], colors: Sequence[Color], counts: Sequence[int]
) -> ByteArray:
    """The picture with a line of coloured names and numbers of cells below."""
    height, width = _LEGEND_ROW_PX, picture.shape[1]
    per_row = max(1, width // 150)
    n_rows = -(-len(names) // per_row)
    legend = np.full((n_rows * height, width, 3), 255, np.uint8)
    for number, (name, color, count) in enumerate(zip(names, colors, counts, strict=True)):
        left, top = 150 * (number % per_row) + 8, height * (number // per_row) + 8
        cv2.rectangle(legend, (left, top), (left + 18, top + 18), color, cv2.FILLED)
        place = (left + 26, top + 15)
        cv2.putText(
            legend, f"{name}  {count}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1,
            cv2.LINE_AA,
        )  # fmt: skip
    return np.concatenate([picture, legend])


def save_png(path: Path, rgb: ByteArray) -> None:
    """Write ``rgb`` (h, w, 3) uint8 as PNG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, optimize=True)


def _fixed_point(ring: FloatArray) -> IntArray:
    # OpenCV draws through pixel centres, our (0, 0) is a pixel's corner.
    return np.round((ring - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
