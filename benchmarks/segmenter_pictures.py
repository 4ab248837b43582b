"""The outlines of a segmenter where it is surest and where it is least sure, as pictures.

    python benchmarks/segmenter_pictures.py --slides A.svs B.svs [-o docs] [--segmenter compact]

For the H&E image that tiatoolbox brings along and for each slide: the image is cut into squares of
320 px at 0.25 um per pixel, of which at most 60 are looked at, drawn by name; those with at least
ten nuclei are ordered by the mean probability of their nuclei. The picture shows the
two highest and the two lowest, nuclei below 0.65 in orange. Nobody chooses.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.config import Settings, load_settings
from ccrl_wsi.geometry import Box
from ccrl_wsi.interfaces import Segmenter, SlideReader
from ccrl_wsi.nuclei.outlines import trace_outlines
from ccrl_wsi.nuclei.regions import find_regions
from ccrl_wsi.nuclei.segmenters import make_segmenter
from ccrl_wsi.outputs.picture import draw_outlines
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.slides.array_reader import open_array
from ccrl_wsi.slides.openslide_reader import open_slide
from ccrl_wsi.slides.resampling import make_grid
from ccrl_wsi.slides.slide_list import list_slides
from pipelines.demo import find_demo_image

SIDE_PX, MARGIN_PX, MPP = 320, 128, 0.25
N_LOOKED_AT, LEAST_NUCLEI, UNSURE = 60, 10, 0.65
COLORS = ((0, 200, 60), (255, 140, 0))


def main() -> None:
    """Read the command line and write one picture an image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", nargs="*", default=[])
    parser.add_argument("-o", "--out", type=Path, default=Path("docs"))
    parser.add_argument("--segmenter", default="compact")
    given = parser.parse_args()
    settings = load_settings(overrides=[f"nuclei.segmenter={given.segmenter}"])
    segmenter = make_segmenter(settings.nuclei, "auto")
    for name, reader in _readers(given.slides, settings):
        squares = sorted(_squares(name, reader, segmenter, settings), key=lambda s: -s[0])
        chosen = [*squares[:2], *squares[-2:]] if len(squares) > 3 else squares
        if not chosen:
            print(f"{name}: no square with {LEAST_NUCLEI} nuclei")
            continue
        for probability, _ in chosen:
            print(f"{name}: mean probability {probability:.3f}")
        picture = Image.fromarray(_beside([picture for _, picture in chosen]))
        given.out.mkdir(parents=True, exist_ok=True)
        picture.save(given.out / f"segmenter_{name}.jpg", quality=85, optimize=True)


def _readers(slides: list[str], settings: Settings) -> Iterator[tuple[str, SlideReader]]:
    demo = np.asarray(Image.open(find_demo_image()).convert("RGB"))
    yield "demo", open_array([demo], MPP)
    for source in list_slides(slides) if slides else []:
        yield re.split(r"[_-]", source.slide_id)[0], open_slide(source, settings.slides)


def _squares(
    name: str, reader: SlideReader, segmenter: Segmenter, settings: Settings
) -> Iterator[tuple[float, ByteArray]]:
    """Mean probability and picture of the squares with enough nuclei."""
    grid = make_grid(reader.info, MPP, settings.tiles.mpp_tolerance)
    tops = range(0, grid.height - SIDE_PX + 1, SIDE_PX)
    lefts = range(0, grid.width - SIDE_PX + 1, SIDE_PX)
    corners = [(top, left) for top in tops for left in lefts]
    rng = rng_for(0, "segmenter pictures", name)
    for number in rng.permutation(len(corners))[:N_LOOKED_AT]:
        top, left = corners[number]
        box = Box(left, top, SIDE_PX, SIDE_PX)
        read = box.grown(MARGIN_PX).clipped(grid.extent)
        rgb = reader.read(read, grid)
        found = segmenter(rgb, grid.mpp)
        part = np.s_[
            top - read.top : top - read.top + SIDE_PX, left - read.left : left - read.left + SIDE_PX
        ]
        inside = np.unique(found.labels[part])
        inside = inside[inside > 0] - 1
        if len(inside) < LEAST_NUCLEI:
            continue
        regions = find_regions(found.labels)
        outlines = trace_outlines(found.labels, regions)
        unsure = (found.probability < UNSURE).astype(np.int64)
        drawn = draw_outlines(rgb, outlines, unsure, COLORS, width_px=1)
        yield float(found.probability[inside].mean()), drawn[part]


def _beside(pictures: list[ByteArray]) -> ByteArray:
    bordered = [
        cv2.copyMakeBorder(p, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for p in pictures
    ]
    return np.concatenate(bordered, axis=1)


if __name__ == "__main__":
    main()
