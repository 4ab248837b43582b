"""`ccrl-wsi label-fields`: pieces of slides with the nuclei a segmenter finds in them.

What comes out is a folder of label maps, to be corrected by hand or learned from as it is, and
``unsure`` masks what the segmenter does not know. A name is the slide's id, then x and y of the
field's corner in pixels at ``tiles.mpp``, counted from the corner of the scanned area: what a
field is of. Level-0 pixels are these times ``tiles.mpp`` / the slide's pixel size, and the corner.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ccrl_wsi.arrays import ByteArray, IntArray
from ccrl_wsi.config import Settings
from ccrl_wsi.errors import CcrlError, StoreError
from ccrl_wsi.geometry import Box
from ccrl_wsi.interfaces import Segmenter, SlideReader
from ccrl_wsi.nuclei.compact import CompactSegmenter
from ccrl_wsi.nuclei.regions import of_plausible_size
from ccrl_wsi.nuclei.segmenters import check_segmenter
from ccrl_wsi.records import Segmentation, SlideSource
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.slides.openslide_reader import open_slide
from ccrl_wsi.slides.regions import check_regions
from ccrl_wsi.slides.resampling import make_grid
from ccrl_wsi.slides.thumbnail import read_thumbnail
from ccrl_wsi.slides.tissue import Tissue, find_tissue
from ccrl_wsi.wording import counted
from pipelines.output_folder import check_writable
from pipelines.slide_grid import halo_px
from pipelines.tile_pass import SlideView
from pipelines.tools import segmenter_of

log = logging.getLogger("ccrl_wsi")

SURE_NUCLEUS = 0.65
"""Nuclei of a lower mean probability are unsure, up to two pixels beyond their outline."""
SURE_BACKGROUND = 0.2
"""Pixels outside nuclei with a higher probability are unsure."""
LEAST_TISSUE = 0.5
TRIES = 200


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """How many fields of each slide, and of which side."""

    per_slide: int
    side_px: int


def label_fields(
    sources: Sequence[SlideSource], out: Path, plan: FieldPlan, settings: Settings
) -> tuple[int, list[str]]:
    """Write fields of all slides below ``out``; how many, and a sentence for each failed slide.

    Raises
    ------
    CcrlError
        If the segmenter cannot be had or the folder cannot be written.
    """
    check_regions(len(sources), settings.tissue)
    check_writable(out)
    check_segmenter(settings.nuclei, settings.tiles.mpp)
    segmenter_of(settings)
    n_fields, problems = 0, []
    for source in sources:
        try:
            written = _label_slide(source, out, plan, settings)
        except CcrlError as error:
            log.error("%s: %s", source.path, error)
            problems.append(f"{source.path}: {error}")
            continue
        log.info("%s: %s", source.slide_id, counted(written, "field"))
        n_fields += written
    return n_fields, problems


def _label_slide(source: SlideSource, out: Path, plan: FieldPlan, settings: Settings) -> int:
    reader = open_slide(source, settings.slides)
    try:
        view = _view(reader, settings)
        boxes = list(_draw_boxes(view, plan, settings, source.slide_id))
        if not boxes:
            raise StoreError(
                f"no place is half tissue over {plan.side_px} px. Lower --side or see the tissue "
                "settings."
            )
        return sum(_write_field(source, box, out, view, settings) for box in boxes)
    finally:
        reader.close()


def _write_field(
    source: SlideSource, box: Box, out: Path, view: SlideView, settings: Settings
) -> bool:
    """Write a field, unless it is there: somebody may have corrected it."""
    name = f"{source.slide_id}__{box.left}_{box.top}.png"
    if (out / "images" / name).exists():
        log.info("%s is there already and stays as it is.", name)
        return False
    rgb, labels, unsure = _label(box, view, segmenter_of(settings), settings)
    _write(out / "labels" / name, labels)
    _write(out / "unsure" / name, unsure)
    _write(out / "images" / name, rgb[..., ::-1])
    return True


def _view(reader: SlideReader, settings: Settings) -> SlideView:
    grid = make_grid(reader.info, settings.tiles.mpp, settings.tiles.mpp_tolerance)
    thumbnail = read_thumbnail(reader, settings.tissue.mpp)
    return SlideView(reader, grid, find_tissue(thumbnail, reader.info, settings.tissue))


def _draw_boxes(
    view: SlideView, plan: FieldPlan, settings: Settings, slide_id: str
) -> Iterator[Box]:
    """Places in grid pixels that are half tissue at least and do not overlap."""
    rng = rng_for(settings.seed, "fields", slide_id)
    extent, side = view.grid.extent, plan.side_px
    if min(extent.width, extent.height) < side:
        return
    taken: list[Box] = []
    for _ in range(TRIES * plan.per_slide):
        if len(taken) == plan.per_slide:
            return
        left = int(rng.integers(extent.left, extent.right - side + 1))
        top = int(rng.integers(extent.top, extent.bottom - side + 1))
        box = Box(left, top, side, side)
        overlaps = any(_overlap(box, other) for other in taken)
        if not overlaps and _tissue_share(box, view.tissue, view) >= LEAST_TISSUE:
            taken.append(box)
            yield box


def _overlap(a: Box, b: Box) -> bool:
    return a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom


def _tissue_share(box: Box, tissue: Tissue, view: SlideView) -> float:
    steps = (np.arange(8) + 0.5) / 8
    x, y = np.meshgrid(box.left + steps * box.width, box.top + steps * box.height)
    points = view.grid.to_level0(np.stack([x.ravel(), y.ravel()], axis=1))
    return float(tissue.contains(points).mean())


def _label(
    box: Box, view: SlideView, segmenter: Segmenter, settings: Settings
) -> tuple[ByteArray, IntArray, ByteArray]:
    """Pixels, numbers of nuclei and what is unsure in ``box``, seen with its surroundings."""
    read = box.grown(halo_px(settings, view.grid.mpp)).clipped(view.grid.extent)
    rgb = view.reader.read(read, view.grid)
    found, unsure = _segment(rgb, view.grid.mpp, segmenter)
    labels = of_plausible_size(found.labels, view.grid.mpp, settings.nuclei)
    unsure[(labels == 0) & (found.labels > 0)] = 255
    top, left = box.top - read.top, box.left - read.left
    part = np.s_[top : top + box.height, left : left + box.width]
    return rgb[part], _numbered(labels[part]), unsure[part]


def _segment(rgb: ByteArray, mpp: float, segmenter: Segmenter) -> tuple[Segmentation, ByteArray]:
    if not isinstance(segmenter, CompactSegmenter):
        found = segmenter(rgb, mpp)
        return found, unsure_pixels(found)
    maps = segmenter.predict_maps(rgb)
    found = segmenter.segment_maps(maps)
    unsure = unsure_pixels(found)
    unsure[(found.labels == 0) & (maps[..., 0] > SURE_BACKGROUND)] = 255
    return found, unsure


def _numbered(labels: IntArray) -> IntArray:
    """The nuclei in a field from 1 on, in the 16 bits that other programs read."""
    values, rows = np.unique(labels, return_inverse=True)
    first = 0 if len(values) and values[0] == 0 else 1
    if len(values) + first > np.iinfo(np.uint16).max:
        raise StoreError("a field has more than 65,534 nuclei. Lower --side.")
    return (rows.reshape(labels.shape) + first).astype(np.uint16)


def unsure_pixels(found: Segmentation) -> ByteArray:
    """255 on nuclei of low probability and two pixels around them, 0 elsewhere: (h, w) uint8."""
    known = np.append(False, found.probability < SURE_NUCLEUS)
    mask = known[found.labels].astype(np.uint8) * 255
    around: ByteArray = cv2.dilate(mask, np.ones((5, 5), np.uint8))
    return around


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise StoreError(f"Cannot write {path}. Check free space and permissions.")
