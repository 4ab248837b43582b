"""Draws H&E-like slides whose nuclei are known: what the tests stand on.

Colours come from stain densities: a pixel is ``255 * 10 ** -(haematoxylin * h + eosin * e)`` with
the stain vectors h and e of Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001) 291.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray
from ccrl_wsi.geometry import Box
from ccrl_wsi.records import Segmentation
from ccrl_wsi.seeding import rng_for

HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
PEN_COLOUR = (24, 84, 60)
GAP_PX = 3
"""Nuclei that are not meant to touch keep at least this distance."""


@dataclass(frozen=True, slots=True)
class NucleusKind:
    """How one kind of nucleus looks; ranges are (lowest, highest)."""

    name: str
    radius_um: tuple[float, float]
    elongation: tuple[float, float]
    density: tuple[float, float]
    texture: float
    rim: float


KINDS = (
    NucleusKind("lymphocyte", (2.6, 3.4), (1.0, 1.2), (0.75, 0.95), 0.10, 0.0),
    NucleusKind("epithelial", (4.2, 5.8), (1.1, 1.6), (0.38, 0.55), 0.28, 0.25),
    NucleusKind("spindle", (2.8, 3.6), (2.6, 4.0), (0.50, 0.70), 0.16, 0.10),
)


@dataclass(frozen=True, slots=True)
class DrawnSlideSpec:
    """What to draw.

    Parameters
    ----------
    width_px, height_px, mpp
        Size of the slide and of a pixel (micrometres).
    n_nuclei
        Nuclei wanted in all, those at ``centres_px`` included. Fewer fit on a crowded slide.
    seed
        Equal specs draw equal slides.
    centres_px
        x, y of nuclei that must be there: on seams, in corners, at the slide's edge.
    touching_share
        Share of the scattered nuclei that lie against an earlier one.
    background_share
        Share of the slide that is bare glass.
    kind_shares
        Weights of the ``KINDS``, in their order.
    pen, blur
        Whether a pen stroke crosses the slide, and whether one patch is out of focus.
    """

    width_px: int = 1024
    height_px: int = 1024
    mpp: float = 0.25
    n_nuclei: int = 250
    seed: int = 0
    centres_px: tuple[tuple[float, float], ...] = ()
    touching_share: float = 0.2
    background_share: float = 0.0
    kind_shares: tuple[float, float, float] = (0.4, 0.4, 0.2)
    pen: bool = False
    blur: bool = False


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
    is_tissue = _draw_tissue(spec)
    canvas = _Canvas(spec, is_tissue)
    kinds = _place_nuclei(spec, canvas)
    is_tissue |= cv2.dilate((canvas.labels > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    area, centroid = _measure(canvas.labels, len(kinds))
    rgb = _stain(canvas.haematoxylin, _draw_eosin(spec, is_tissue, canvas.labels))
    is_spoiled = np.zeros(is_tissue.shape, bool)
    if spec.blur:
        _blur_patch(rgb, is_spoiled, spec)
    if spec.pen:
        _draw_pen(rgb, is_spoiled, spec)
    _add_noise(rgb, spec)
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
        self._chromatin = _smooth_noise(_rng(spec, "chromatin"), (256, 256), 0.4 / spec.mpp)

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
    rng = _rng(spec, "nuclei")
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


def _draw_tissue(spec: DrawnSlideSpec) -> BoolArray:
    """Islands of tissue that leave ``background_share`` of the slide bare."""
    shape = (spec.height_px, spec.width_px)
    if spec.background_share <= 0:
        return np.ones(shape, bool)
    small = (max(4, spec.height_px // 32), max(4, spec.width_px // 32))
    relief = _smooth_noise(_rng(spec, "tissue"), small, max(small) / 8)
    relief = cv2.resize(relief, shape[::-1], interpolation=cv2.INTER_CUBIC)
    is_tissue: BoolArray = relief > np.quantile(relief, spec.background_share)
    return is_tissue


def _draw_eosin(spec: DrawnSlideSpec, is_tissue: BoolArray, labels: IntArray) -> FloatArray:
    """Pink fibres and cytoplasm where there is tissue, paler below nuclei."""
    rng = _rng(spec, "eosin")
    shape = labels.shape
    small = (max(8, shape[0] // 4), max(8, shape[1] // 4))
    fibres = cv2.GaussianBlur(rng.standard_normal(small, np.float32), (0, 0), 6, sigmaY=1)
    clouds = _smooth_noise(rng, small, 20 / spec.mpp / 4)
    relief = cv2.resize(0.04 * fibres / fibres.std() + 0.05 * clouds, shape[::-1])
    eosin = np.clip(0.22 + relief, 0.05, 0.6) * np.where(labels > 0, 0.6, 1.0)
    # Tissue does not end in a knife's edge.
    cover = cv2.GaussianBlur(is_tissue.astype(np.float32), (0, 0), 1.0 / spec.mpp)
    density: FloatArray = (eosin * cover).astype(np.float32)
    return density


def _stain(haematoxylin: FloatArray, eosin: FloatArray) -> ByteArray:
    """Densities to colours, seen through optics that blur by less than a pixel."""
    # Cytoplasm takes a little haematoxylin too.
    seen = cv2.GaussianBlur(haematoxylin, (0, 0), 0.8) + 0.12 * eosin
    colours = [
        cv2.exp((seen * h + eosin * e) * np.float32(-math.log(10))) * 245.0
        for h, e in zip(HAEMATOXYLIN, EOSIN, strict=True)
    ]
    rgb: ByteArray = np.stack([colour.astype(np.uint8) for colour in colours], axis=-1)
    return rgb


def _blur_patch(rgb: ByteArray, is_spoiled: BoolArray, spec: DrawnSlideSpec) -> None:
    """Put a third of the slide's width and height, at the lower right, out of focus."""
    rows = slice(spec.height_px // 2, spec.height_px // 2 + spec.height_px // 3)
    columns = slice(spec.width_px // 2, spec.width_px // 2 + spec.width_px // 3)
    rgb[rows, columns] = cv2.GaussianBlur(rgb[rows, columns], (0, 0), 1.5 / spec.mpp)
    is_spoiled[rows, columns] = True


def _draw_pen(rgb: ByteArray, is_spoiled: BoolArray, spec: DrawnSlideSpec) -> None:
    """A marker's stroke along the slide's upper third."""
    x = np.linspace(0, spec.width_px, 64)
    y = spec.height_px * (0.2 + 0.05 * np.sin(x / spec.width_px * 9))
    stroke = np.zeros(is_spoiled.shape, np.uint8)
    points = np.stack([x, y], axis=1).astype(np.int32)
    cv2.polylines(stroke, [points], False, 1, thickness=max(3, round(30 / spec.mpp / 4)))
    marked = stroke > 0
    rgb[marked] = (0.15 * rgb[marked] + 0.85 * np.asarray(PEN_COLOUR)).astype(np.uint8)
    is_spoiled |= marked


def _add_noise(rgb: ByteArray, spec: DrawnSlideSpec) -> None:
    """Camera noise, from one small pattern laid side by side."""
    pattern = _rng(spec, "camera").normal(0, 1.5, (256, 256, 3)).round().astype(np.int16)
    for top in range(0, rgb.shape[0], 256):
        for left in range(0, rgb.shape[1], 256):
            piece = rgb[top : top + 256, left : left + 256]
            noisy = piece + pattern[: piece.shape[0], : piece.shape[1]]
            piece[:] = np.clip(noisy, 0, 255).astype(np.uint8)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> FloatArray:
    """Noise of mean 0 and standard deviation 1 without detail below ``sigma_px``."""
    noise = rng.standard_normal(shape, np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), max(0.3, sigma_px), borderType=cv2.BORDER_REFLECT)
    scaled: FloatArray = (smooth - smooth.mean()) / smooth.std()
    return scaled


def _rng(spec: DrawnSlideSpec, what: str) -> np.random.Generator:
    return rng_for(spec.seed, "synthetic", what)
