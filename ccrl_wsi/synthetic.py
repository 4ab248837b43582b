"""Draws H&E-like slides whose nuclei are known: what the tests stand on.

What is drawn is told by :class:`DrawnSlideSpec`; here nuclei are shaped and placed, and the slide
is put together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray
from ccrl_wsi.geometry import Box
from ccrl_wsi.records import Segmentation
from ccrl_wsi.synthetic_painting import (
    EOSIN,
    HAEMATOXYLIN,
    add_noise,
    blur_patch,
    draw_eosin,
    draw_pen,
    draw_tissue,
    smooth_noise,
    stain,
)
from ccrl_wsi.synthetic_spec import KINDS, DrawnSlideSpec, NucleusKind, rng_of

__all__ = [
    "EOSIN",
    "HAEMATOXYLIN",
    "KINDS",
    "DrawnSlide",
    "DrawnSlideSpec",
    "NucleusKind",
    "PerfectSegmenter",
    "draw_slide",
    "paint_labels",
    "truth_tile",
]

GAP_PX = 3
"""Nuclei that are not meant to touch keep at least this distance."""


@dataclass(frozen=True, eq=False, slots=True)
class DrawnSlide:
    """A slide and the truth about it; row i of the (n, ...) arrays is nucleus i, label i + 1.

    Parameters
    ----------
    rgb
        (height, width, 3) uint8.
    labels
        (height, width) int32: 0 is background, nuclei are 1..n, each in one piece.
    centroid_px
        (n, 2) x, y of the mean of the nucleus' pixels; pixel (0, 0) covers [0, 1) x [0, 1).
    kind
        (n,) index into ``KINDS``.
    area_px
        (n,) number of pixels.
    is_tissue, is_spoiled
        (height, width) bool: stained; under the pen or out of focus.
    """

    spec: DrawnSlideSpec
    rgb: ByteArray
    labels: IntArray
    centroid_px: FloatArray
    kind: IntArray
    area_px: IntArray
    is_tissue: BoolArray
    is_spoiled: BoolArray

    @property
    def n_nuclei(self) -> int:
        """Number of nuclei drawn."""
        return len(self.kind)


def draw_slide(spec: DrawnSlideSpec) -> DrawnSlide:
    """Draw the slide that ``spec`` describes; 2048 x 2048 px with 1000 nuclei take about 1 s.

    Raises
    ------
    ValueError
        If a nucleus of ``centres_px`` lies outside the slide or on top of an earlier one.
    """
    is_tissue = draw_tissue(spec)
    canvas = _Canvas(spec, is_tissue)
    kinds = _place_nuclei(spec, canvas)
    is_tissue |= cv2.dilate((canvas.labels > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    area, centroid = _measure(canvas.labels, len(kinds))
    rgb = stain(canvas.haematoxylin, draw_eosin(spec, is_tissue, canvas.labels))
    is_spoiled = np.zeros(is_tissue.shape, bool)
    if spec.blur:
        blur_patch(rgb, is_spoiled, spec)
    if spec.pen:
        draw_pen(rgb, is_spoiled, spec)
    add_noise(rgb, spec)
    kind = np.asarray(kinds, np.int16)
    return DrawnSlide(spec, rgb, canvas.labels, centroid, kind, area, is_tissue, is_spoiled)


def truth_tile(drawn: DrawnSlide, box: Box) -> IntArray:
    """The true labels of ``box`` (height, width) int32, renumbered 1..n; 0 outside the slide."""
    tile = np.zeros((box.height, box.width), np.int32)
    height, width = drawn.labels.shape
    inside = box.clipped(Box(0, 0, width, height))
    top, left = inside.top - box.top, inside.left - box.left
    tile[top : top + inside.height, left : left + inside.width] = drawn.labels[
        inside.top : inside.bottom, inside.left : inside.right
    ]
    return _renumber(tile)


def paint_labels(labels: IntArray) -> ByteArray:
    """Labels as colours (height, width, 3), background white; :class:`PerfectSegmenter` reads them.

    Only a lossless copy keeps them readable.
    """
    code = np.where(labels > 0, labels, 0xFFFFFF).astype(np.uint32)
    return np.stack([code >> 16, code >> 8 & 0xFF, code & 0xFF], axis=-1).astype(np.uint8)


class PerfectSegmenter:
    """Finds exactly the nuclei of an image made by :func:`paint_labels`, whichever tile it sees."""

    name = "perfect"
    type_names: tuple[str, ...] = ()

    def __call__(self, rgb: ByteArray, mpp: float) -> Segmentation:
        """Nuclei of ``rgb``; ``mpp`` does not matter."""
        red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
        code = red << 16 | green << 8 | blue
        return Segmentation.untyped(_renumber(np.where(code == 0xFFFFFF, 0, code)))


@dataclass(frozen=True, slots=True)
class _Nucleus:
    """A nucleus before it is drawn: an ellipse with a wavy edge, lengths in pixels."""

    kind: int
    radius: float
    elongation: float
    angle: float
    waves: tuple[tuple[float, float], ...]
    density: float

    @property
    def reach(self) -> int:
        return math.ceil(self.radius * math.sqrt(self.elongation) * 1.25) + 1

    def level(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Distance from the centre as a share of the edge's: below 1 inside."""
        along = x * math.cos(self.angle) + y * math.sin(self.angle)
        across = y * math.cos(self.angle) - x * math.sin(self.angle)
        stretch = math.sqrt(self.elongation)
        u, v = along / (self.radius * stretch), across * stretch / self.radius
        turn = np.arctan2(v, u)
        edge = 1.0 + sum(
            size * np.cos((k + 2) * turn + phase) for k, (size, phase) in enumerate(self.waves)
        )
        level: FloatArray = np.hypot(u, v) / edge
        return level

    def edge_px(self, angle: float) -> float:
        """Length of the ray from the centre to the edge."""
        ray = self.level(np.array([math.cos(angle)]), np.array([math.sin(angle)]))
        return 1.0 / float(ray[0])


class _Canvas:
    """The label image and the haematoxylin density that grow nucleus by nucleus."""

    def __init__(self, spec: DrawnSlideSpec, is_tissue: BoolArray) -> None:
        self.labels = np.zeros((spec.height_px, spec.width_px), np.int32)
        self.haematoxylin = np.zeros((spec.height_px, spec.width_px), np.float32)
        self.n_nuclei = 0
        self._is_tissue = is_tissue
        self._chromatin = smooth_noise(rng_of(spec, "chromatin"), (256, 256), 0.4 / spec.mpp)

    def has_room(self, nucleus: _Nucleus, x: float, y: float, gap_px: int) -> bool:
        """Whether most of the nucleus is on tissue and all of it clear of others by ``gap_px``."""
        height, width = self.labels.shape
        if not (0 <= x < width and 0 <= y < height):
            return False
        rows, columns, level = self._window(nucleus, x, y)
        inside = level <= 1.0
        taken = (self.labels[rows, columns] > 0).astype(np.uint8)
        if gap_px:
            taken = cv2.dilate(taken, np.ones((2 * gap_px + 1, 2 * gap_px + 1), np.uint8))
        n_inside = np.count_nonzero(inside)
        on_tissue = np.count_nonzero(inside & self._is_tissue[rows, columns])
        n_taken = np.count_nonzero(inside & (taken > 0))
        # A partner that touches may lose a sliver to the nucleus it touches.
        allowed = 0.0 if gap_px else 0.2 * n_inside
        return bool(n_inside > 0 and on_tissue > 0.9 * n_inside and n_taken <= allowed)

    def add(self, nucleus: _Nucleus, x: float, y: float) -> bool:
        """Draw the nucleus on free pixels as the next label; False if too few are left."""
        rows, columns, level = self._window(nucleus, x, y)
        inside = level <= 1.0
        free = (inside & (self.labels[rows, columns] == 0)).astype(np.uint8)
        _, pieces = cv2.connectedComponents(free, connectivity=4)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.max(initial=0) < max(1.0, 0.6 * np.count_nonzero(inside)):
            return False
        visible = pieces == 1 + int(np.argmax(sizes))
        self.n_nuclei += 1
        self.labels[rows, columns][visible] = self.n_nuclei
        self.haematoxylin[rows, columns][visible] = self._shade(nucleus, rows, columns, level)[
            visible
        ]
        return True

    def _shade(
        self, nucleus: _Nucleus, rows: slice, columns: slice, level: FloatArray
    ) -> FloatArray:
        kind = KINDS[nucleus.kind]
        period = np.ix_(
            np.arange(rows.start, rows.stop) % 256, np.arange(columns.start, columns.stop) % 256
        )
        texture = 1 + kind.texture * self._chromatin[period]
        rim = 1 + kind.rim * np.clip(level, 0, 1) ** 6
        shade: FloatArray = np.clip(nucleus.density * texture * rim, 0.15, 1.4)
        return shade

    def _window(self, nucleus: _Nucleus, x: float, y: float) -> tuple[slice, slice, FloatArray]:
        """Rows, columns and level of the pixels near the nucleus, cut at the slide's edge."""
        height, width = self.labels.shape
        reach = nucleus.reach
        rows = slice(max(0, int(y) - reach), min(height, int(y) + reach + 1))
        columns = slice(max(0, int(x) - reach), min(width, int(x) + reach + 1))
        y_px = np.arange(rows.start, rows.stop)[:, None] + 0.5 - y
        x_px = np.arange(columns.start, columns.stop)[None, :] + 0.5 - x
        return rows, columns, nucleus.level(x_px, y_px)


def _place_nuclei(spec: DrawnSlideSpec, canvas: _Canvas) -> list[int]:
    """Put the nuclei asked for, then scatter the rest; the kind of each, in order."""
    rng = rng_of(spec, "nuclei")
    places: list[tuple[_Nucleus, float, float]] = []
    for x, y in spec.centres_px:
        nucleus = _make_nucleus(rng, spec)
        inside = 0 <= x < spec.width_px and 0 <= y < spec.height_px
        if not inside or not canvas.add(nucleus, x, y):
            raise ValueError(f"no room for a nucleus at x={x}, y={y}: off the slide or overlapping")
        places.append((nucleus, x, y))
    for _ in range(30 * spec.n_nuclei):
        if len(places) >= spec.n_nuclei:
            break
        nucleus = _make_nucleus(rng, spec)
        touches = bool(places) and rng.random() < spec.touching_share
        x, y = _beside(rng, nucleus, places) if touches else _anywhere(rng, spec)
        if canvas.has_room(nucleus, x, y, 0 if touches else GAP_PX) and canvas.add(nucleus, x, y):
            places.append((nucleus, x, y))
    return [nucleus.kind for nucleus, _, _ in places]


def _make_nucleus(rng: np.random.Generator, spec: DrawnSlideSpec) -> _Nucleus:
    weights = np.asarray(spec.kind_shares, np.float64)
    number = int(rng.choice(len(KINDS), p=weights / weights.sum()))
    kind = KINDS[number]
    return _Nucleus(
        kind=number,
        radius=float(rng.uniform(*kind.radius_um)) / spec.mpp,
        elongation=float(rng.uniform(*kind.elongation)),
        angle=float(rng.uniform(0, math.pi)),
        waves=tuple((float(rng.uniform(0, 0.05)), float(rng.uniform(0, 6.3))) for _ in range(3)),
        density=float(rng.uniform(*kind.density)),
    )


def _anywhere(rng: np.random.Generator, spec: DrawnSlideSpec) -> tuple[float, float]:
    return float(rng.uniform(0, spec.width_px)), float(rng.uniform(0, spec.height_px))


def _beside(
    rng: np.random.Generator, nucleus: _Nucleus, places: list[tuple[_Nucleus, float, float]]
) -> tuple[float, float]:
    """Where ``nucleus`` lies against one of the nuclei already placed."""
    other, x, y = places[int(rng.integers(len(places)))]
    angle = float(rng.uniform(0, 2 * math.pi))
    distance = other.edge_px(angle) + nucleus.edge_px(angle + math.pi) - 1.0
    return x + distance * math.cos(angle), y + distance * math.sin(angle)


def _measure(labels: IntArray, n_nuclei: int) -> tuple[IntArray, FloatArray]:
    """Area (n,) and centroid x, y (n, 2) of labels 1..n."""
    rows, columns = np.nonzero(labels)
    label = labels[rows, columns]
    area = np.bincount(label, minlength=n_nuclei + 1)[1:]
    x = np.bincount(label, columns + 0.5, minlength=n_nuclei + 1)[1:] / area
    y = np.bincount(label, rows + 0.5, minlength=n_nuclei + 1)[1:] / area
    return area, np.stack([x, y], axis=1)


def _renumber(labels: IntArray) -> IntArray:
    """The same regions, numbered 1..n in the order of their labels."""
    number = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=1))
    present = present[present > 0]
    number[present] = np.arange(1, len(present) + 1)
    return number[labels]
