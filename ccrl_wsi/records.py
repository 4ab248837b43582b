"""What the stages hand to each other: frozen, checked, documented.

Row i of every array of a record describes nucleus i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray
from ccrl_wsi.geometry import Box


@dataclass(frozen=True, slots=True)
class SlideSource:
    """One line of the slide list: a file and what the user said about it."""

    path: Path
    slide_id: str
    mpp: float | None = None
    patient: str | None = None
    group: str | None = None
    site: str | None = None
    scanner: str | None = None


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """What a slide file says of itself, checked.

    Parameters
    ----------
    path, slide_id
        The file, and the name the slide has in every output.
    mpp
        Micrometres per level-0 pixel (mean of x and y).
    width_px, height_px
        Size of level 0.
    bounds_px
        The scanned area in level-0 pixels; the whole slide where the file names none.
    level_downsamples
        Level-0 pixels per pixel of each level; the first is 1.
    vendor
        OpenSlide's name of the format.
    content_key
        A hash that identifies the pixels, from the file rather than its name or date.
    level_tiles_px
        Width and height of each level's own tiles, in pixels of the level; None where the file
        does not say.
    """

    path: Path
    slide_id: str
    mpp: float
    width_px: int
    height_px: int
    bounds_px: Box
    level_downsamples: tuple[float, ...]
    vendor: str
    content_key: str
    level_tiles_px: tuple[tuple[int, int] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Tile:
    """A piece of the grid. It answers for nuclei centred in ``core`` and sees ``read``.

    Both boxes are in grid pixels; ``read`` is the core with the halo, cut at the slide's edge.
    """

    row: int
    column: int
    core: Box
    read: Box


@dataclass(frozen=True, slots=True)
class Partition:
    """A block of neighbouring tiles: what one worker does in one go and commits at once."""

    number: int
    tiles: tuple[Tile, ...]

    @property
    def name(self) -> str:
        """The partition's file name without suffix; sorts in grid order."""
        return f"p{self.number:06d}"


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What a segmenter found in one image.

    Parameters
    ----------
    labels
        (height, width) int32: 0 is background, nuclei are numbered 1..n without gaps.
    probability
        (n,) float32 in 0..1: how sure the segmenter is that this is a nucleus; NaN if it
        cannot tell.
    nucleus_type
        (n,) int16 index into the segmenter's ``type_names``; all 0 where it has no types.
    type_probability
        (n,) float32 in 0..1: share of the nucleus that agrees with its type; NaN without types.
    """

    labels: IntArray
    probability: FloatArray
    nucleus_type: IntArray
    type_probability: FloatArray

    @property
    def n_nuclei(self) -> int:
        """Number of nuclei."""
        return len(self.probability)

    @staticmethod
    def untyped(labels: IntArray, probability: FloatArray | None = None) -> Segmentation:
        """A segmentation without types, from consecutive ``labels``."""
        n = int(labels.max(initial=0))
        unknown = np.full(n, np.nan, np.float32)
        found = unknown if probability is None else probability.astype(np.float32)
        return Segmentation(
            labels.astype(np.int32, copy=False), found, np.zeros(n, np.int16), unknown
        )


@dataclass(frozen=True, eq=False, slots=True)
class Outlines:
    """Closed rings of n nuclei, one after the other.

    Parameters
    ----------
    xy
        (v, 2) float64 vertices; the frame is told by the holder. First vertex of a ring = last.
    start
        (n + 1,) int64: ring i is ``xy[start[i]:start[i + 1]]``.
    """

    xy: FloatArray
    start: IntArray

    def __len__(self) -> int:
        return len(self.start) - 1

    def ring(self, i: int) -> FloatArray:
        """Vertices (k, 2) of nucleus ``i``."""
        ring: FloatArray = self.xy[self.start[i] : self.start[i + 1]]
        return ring

    def where(self, keep: BoolArray | IntArray) -> Outlines:
        """The rings that ``keep`` (mask or row numbers) selects, in its order."""
        rows = np.flatnonzero(keep) if keep.dtype == np.bool_ else np.asarray(keep)
        counts = np.diff(self.start)[rows]
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        shift = np.repeat(self.start[:-1][rows] - start[:-1], counts)
        return Outlines(self.xy[np.arange(start[-1]) + shift], start)

    @staticmethod
    def concat(many: Sequence[Outlines]) -> Outlines:
        """All rings of several records, in order."""
        if not many:
            return Outlines(np.zeros((0, 2)), np.zeros(1, np.int64))
        counts = np.concatenate([np.diff(o.start) for o in many])
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Outlines(np.concatenate([o.xy for o in many]), start)


@dataclass(frozen=True, eq=False, slots=True)
class Cells:
    """Everything known about n nuclei of one slide, before clustering.

    Parameters
    ----------
    centroid_px
        (n, 2) float64 x, y in level-0 pixels.
    outlines
        n closed rings in level-0 pixels, rounded to two decimals.
    area_um2
        (n,) float32 area of the nucleus' pixels.
    probability, nucleus_type, type_probability
        As in :class:`Segmentation`.
    is_clipped
        (n,) bool: the nucleus touches the edge of what its tile could see, inside the slide. One
        that the slide's own edge cuts is not marked: no other setting would show more of it.
    tile
        (n, 2) int32 row and column of the tile that owns it.
    measurements
        (n, m) float32; names and units are those of ``ccrl_wsi.measurement_names``.
    embedding
        (n, d) float32.
    crops
        (n, side, side, 3) uint8, or (0, side, side, 3) where crops are not kept.
    """

    centroid_px: FloatArray
    outlines: Outlines
    area_um2: FloatArray
    probability: FloatArray
    nucleus_type: IntArray
    type_probability: FloatArray
    is_clipped: BoolArray
    tile: IntArray
    measurements: FloatArray
    embedding: FloatArray
    crops: ByteArray

    def __post_init__(self) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self) if f.name != "crops"}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"Cells fields disagree in length: {lengths}")
        if len(self.crops) not in (0, len(self)):
            raise ValueError(f"{len(self.crops)} crops for {len(self)} cells")

    def __len__(self) -> int:
        return len(self.centroid_px)

    def where(self, keep: BoolArray | IntArray) -> Cells:
        """The cells that ``keep`` (mask or row numbers) selects, in its order."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            is_absent = field.name == "crops" and len(value) == 0
            values[field.name] = value if is_absent else _take(value, keep)
        return Cells(**values)

    @staticmethod
    def empty(n_measurements: int, n_dimensions: int, crop_side: int) -> Cells:
        """No cells, with columns as they would be."""
        none = np.zeros(0, np.float32)
        return Cells(
            centroid_px=np.zeros((0, 2)),
            outlines=Outlines.concat([]),
            area_um2=none,
            probability=none,
            nucleus_type=np.zeros(0, np.int16),
            type_probability=none,
            is_clipped=np.zeros(0, np.bool_),
            tile=np.zeros((0, 2), np.int32),
            measurements=np.zeros((0, n_measurements), np.float32),
            embedding=np.zeros((0, n_dimensions), np.float32),
            crops=np.zeros((0, crop_side, crop_side, 3), np.uint8),
        )

    @staticmethod
    def concat(many: Sequence[Cells]) -> Cells:
        """The rows of one or more records, in order."""
        joined: dict[str, Any] = {
            f.name: np.concatenate([getattr(c, f.name) for c in many])
            for f in fields(Cells)
            if f.name != "outlines"
        }
        return Cells(outlines=Outlines.concat([c.outlines for c in many]), **joined)


def _take(value: Outlines | FloatArray, keep: BoolArray | IntArray) -> object:
    return value.where(keep) if isinstance(value, Outlines) else value[keep]
