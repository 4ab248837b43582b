"""What outlines, measurements and crops cost: core-seconds per mm2, and against scikit-image.

    OMP_NUM_THREADS=1 python benchmarks/cell_costs.py

Draws about 5,000 elliptic nuclei on 1 mm2 at 0.25 um per pixel. Best of three rounds; all ratios
are of one run on one machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
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


def cost_of(work: Callable[[], object], rounds: int = 3) -> float:
    """Core-seconds of the best of some rounds."""
    costs = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        costs.append(time.process_time() - start)
    return min(costs)


def main() -> None:
    """Measure and print."""
    cv2.setNumThreads(1)
    rgb, labels = draw(SIDE_PX, N_SIDE)
    grid = PixelGrid(MPP, 1.0, (0, 0), SIDE_PX, SIDE_PX)
    regions = find_regions(labels)
    outlines = trace_outlines(labels, regions)
    windows = crop_windows(regions.boxes, 2.0)
    ours = {
        "regions": lambda: find_regions(labels),
        "outlines": lambda: outlines_to_level0(trace_outlines(labels, regions), (0, 0), grid),
        "measurements": lambda: measure(rgb, labels, regions, outlines, MPP),
        "crops": lambda: cut_crops(rgb, windows, 32),
    }
    area_mm2 = (SIDE_PX * MPP / 1000) ** 2
    print(
        f"{len(regions)} nuclei on {area_mm2:.2f} mm2, {np.diff(outlines.start).mean():.1f}", end=""
    )
    print(" vertices a ring\n\nstep           core-s/mm2   us/nucleus")
    costs = {name: cost_of(work) / area_mm2 for name, work in ours.items()}
    costs["all"] = sum(costs.values())
    for name, cost in costs.items():
        print(f"{name:14s} {cost:10.3f} {cost * area_mm2 / len(regions) * 1e6:12.1f}")
    print(f"\nbudget {BUDGET} core-s/mm2, used {costs['all'] / BUDGET:.0%}")
    compare(rgb, labels, costs, area_mm2)


def compare(rgb: np.ndarray, labels: np.ndarray, costs: dict[str, float], area_mm2: float) -> None:
    """Print what scikit-image needs for as much."""
    part = labels[: SIDE_PX // 4]
    known = np.unique(part, return_inverse=True)[1].reshape(part.shape)
    scale = 4 / area_mm2

    def contours() -> None:
        for name, box in zip(*_boxes(known), strict=True):
            find_contours(np.pad(known[box] == name, 1), 0.5)

    theirs = {
        "measurements": cost_of(
            lambda: regionprops_table(known, rgb[: SIDE_PX // 4], properties=SHAPES + STAINS), 1
        ),
        "outlines": cost_of(contours, 1),
    }
    for name, cost in theirs.items():
        print(f"scikit-image {name}: {cost * scale:.2f} core-s/mm2, ", end="")
        print(f"{cost * scale / costs[name]:.1f} times ours")


def _boxes(labels: np.ndarray) -> tuple[list[int], list[tuple[slice, slice]]]:
    regions = find_regions(labels.astype(np.int32))
    places = [np.s_[y : y + h, x : x + w] for x, y, w, h in regions.boxes.tolist()]
    return regions.label.tolist(), places


if __name__ == "__main__":
    main()
