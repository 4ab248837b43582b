"""What outlines, measurements and crops cost: core-seconds per mm2, and against scikit-image.

    python benchmarks/cell_costs.py                # one minute

Draws about 5,000 elliptic nuclei on 1 mm2 at 0.25 um per pixel. scikit-image sees the upper
quarter and does less: no stains, no texture, contours neither smoothed nor valid by construction.
Medians in turns, one thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from measured import Table, in_turns
from skimage.measure import find_contours, regionprops_table

from ccrl_wsi.crops.cut import crop_windows, cut_crops
from ccrl_wsi.geometry import PixelGrid
from ccrl_wsi.nuclei.measurements import measure
from ccrl_wsi.nuclei.outlines import outlines_to_level0, trace_outlines
from ccrl_wsi.nuclei.regions import find_regions

MPP = 0.25
SIDE_PX = 4000
N_SIDE = 71
SHAPES = ("area", "perimeter", "equivalent_diameter_area", "axis_major_length")
SHAPES += ("axis_minor_length", "eccentricity", "orientation", "solidity", "extent")
STAINS = ("intensity_mean", "intensity_std")
BUDGET = 0.9
"""Core-seconds per mm2 for all four steps."""


def draw(side_px: int, n_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels: one ellipse in each cell of a lattice, off its middle."""
    rng = np.random.default_rng(0)
    labels = np.zeros((side_px, side_px), np.int32)
    cell = side_px // n_side
    for i in range(n_side * n_side):
        centre = (np.array([i % n_side, i // n_side]) + 0.5) * cell + rng.uniform(-8, 8, 2)
        axes = rng.uniform(9, 19), rng.uniform(8, 15)
        place = tuple((centre * 8).astype(int).tolist())
        size = tuple(int(8 * axis) for axis in axes)
        cv2.ellipse(labels, place, size, rng.uniform(0, 180), 0, 360, i + 1, -1, shift=3)
    _, flat = np.unique(labels, return_inverse=True)
    rgb = rng.integers(90, 250, (side_px, side_px, 3), dtype=np.uint8)
    return cv2.GaussianBlur(rgb, (0, 0), 1.5), flat.reshape(labels.shape).astype(np.int32)


def main() -> None:
    """Measure and print."""
    cv2.setNumThreads(1)
    rgb, labels = draw(SIDE_PX, N_SIDE)
    regions = find_regions(labels)
    mm2 = (SIDE_PX * MPP / 1000) ** 2
    ours, theirs = our_steps(rgb, labels), their_steps(rgb, labels)
    turns = in_turns({**ours, **theirs}, clock=time.process_time)
    seconds = {name: median(found) / mm2 for name, found in turns.items()}
    table = Table(
        f"{len(regions)} nuclei on {mm2:.2f} mm2 (budget {BUDGET:g})",
        ("step", "core-s/mm2", "us a nucleus", "scikit-image takes"),
    )
    for name in ours:
        other = seconds.get(f"scikit-image {name}")
        ratio = 4 * other / seconds[name] if other else None
        table.row(name, seconds[name], seconds[name] * mm2 / len(regions) * 1e6, ratio)
    whole = sum(seconds[name] for name in ours)
    table.row("all", whole, whole * mm2 / len(regions) * 1e6, None)
    table.publish("cell_costs")


def our_steps(rgb: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], object]]:
    """What a tile goes through after segmentation."""
    grid = PixelGrid(MPP, 1.0, (0, 0), SIDE_PX, SIDE_PX)
    regions = find_regions(labels)
    outlines = trace_outlines(labels, regions)
    windows = crop_windows(regions.boxes, 2.0)
    return {
        "regions": lambda: find_regions(labels),
        "outlines": lambda: outlines_to_level0(trace_outlines(labels, regions), (0, 0), grid),
        "measurements": lambda: measure(rgb, labels, regions, outlines, MPP),
        "crops": lambda: cut_crops(rgb, windows, 32),
    }


def their_steps(rgb: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], object]]:
    """scikit-image, on the upper quarter."""
    rgb, part = rgb[: SIDE_PX // 4], labels[: SIDE_PX // 4]
    known = np.unique(part, return_inverse=True)[1].reshape(part.shape)

    def contours() -> None:
        for name, box in zip(*_boxes(known), strict=True):
            find_contours(np.pad(known[box] == name, 1), 0.5)

    return {
        "scikit-image measurements": lambda: regionprops_table(
            known, rgb, properties=SHAPES + STAINS
        ),
        "scikit-image outlines": contours,
    }


def _boxes(labels: np.ndarray) -> tuple[list[int], list[tuple[slice, slice]]]:
    regions = find_regions(labels.astype(np.int32))
    places = [np.s_[y : y + h, x : x + w] for x, y, w, h in regions.boxes.tolist()]
    return regions.label.tolist(), places


if __name__ == "__main__":
    main()
