"""Core-seconds and memory of everything but the segmentation network, on drawn tissue.

    python benchmarks/whole_job.py                 # about five minutes

A slide with about 5000 nuclei per mm2 at 0.25 um per pixel is drawn and saved as JPEG pyramid.
The network costs nothing: its maps are made of the known nuclei beforehand. All the rest is the
real code, from decoding to the finished store and overlay: instance extraction from the maps,
outlines, measurements, crops, morphology embedding, parts, assembly, assignment, GeoJSON.
The budget is 3 core-seconds per mm2; TIAToolbox 2.1 with a network that costs nothing takes 12 to
19 without crops, embedding and clusters.

Memory: the same on slides of two sizes, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# As in a worker: one thread each.
_THREADS = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS OPENCV_FOR_THREADS_NUM"
for _name in _THREADS.split():
    os.environ.setdefault(_name, "1")

import numpy as np

from ccrl_wsi.config import load_settings
from ccrl_wsi.nuclei.hovernet_instances import extract_instances
from ccrl_wsi.nuclei.hovernet_maps import HoVerMaps, imitate_network
from ccrl_wsi.records import Segmentation, SlideSource, Tile
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide

MPP = 0.25
BLOCK_PX = 1024
"""The slide repeats one drawn block, so that a large one is drawn as fast as a small one."""

PER_MM2 = 5000
BUDGET = 3.0


class FreeNetwork:
    """Has the maps of the drawn block ready, and is told where the tile lies."""

    name = "free-network"
    type_names: tuple[str, ...] = ()

    def __init__(self, maps: HoVerMaps) -> None:
        self.maps = maps
        self.place = (0, 0)
        self.free_seconds = 0.0

    def __call__(self, rgb: np.ndarray, mpp: float) -> Segmentation:
        """Instances of the maps at ``place`` (left, top), repeated over the tile."""
        left, top = self.place
        rows = (np.arange(rgb.shape[0]) + top) % BLOCK_PX
        columns = (np.arange(rgb.shape[1]) + left) % BLOCK_PX
        began = time.process_time()
        probability = self.maps.probability[np.ix_(rows, columns)]
        hv = self.maps.hv[np.ix_(rows, columns)]
        self.free_seconds += time.process_time() - began
        return Segmentation.untyped(extract_instances(probability, hv))


def draw_block() -> tuple[np.ndarray, HoVerMaps]:
    """One block that continues seamlessly enough, and the maps of its nuclei."""
    n = round(PER_MM2 * (BLOCK_PX * MPP / 1000) ** 2)
    drawn = draw_slide(DrawnSlideSpec(width_px=BLOCK_PX, height_px=BLOCK_PX, mpp=MPP, n_nuclei=n))
    return drawn.rgb, imitate_network(drawn.labels, rng_for(0, "benchmark maps"))


def draw(side: int, folder: Path) -> Path:
    """A slide of ``side`` x ``side`` blocks."""
    path = folder / f"side{side}.tif"
    write_pyramid(path, np.tile(draw_block()[0], (side, side, 1)), MPP, compression="jpeg")
    return path


def run_slide(path: Path, side: int) -> dict[str, float]:
    """The job on a drawn slide: figures of this process."""
    from pipelines import partitions

    network = FreeNetwork(draw_block()[1])
    partitions.segmenter_of = lambda settings: network
    partitions.cells_of_tile = _placed(partitions.cells_of_tile, network)
    with tempfile.TemporaryDirectory() as folder:
        _run(draw(1, Path(folder)), Path(folder) / "warm")  # Imports are not what is measured.
        network.free_seconds = 0.0
        before = time.process_time()
        report = _run(path, Path(folder) / "out")
        seconds = time.process_time() - before - network.free_seconds
    return {
        "mm2": (side * BLOCK_PX * MPP / 1000) ** 2,
        "cells": report["n_cells"],
        "core_s": seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "free": network.free_seconds,
        **report["seconds"],
    }


def _run(path: Path, out: Path) -> dict[str, Any]:
    from pipelines.machines import SerialMachine
    from pipelines.run import run_cohort

    settings = load_settings(
        overrides=[
            "nuclei.segmenter=watershed",
            "embedding.encoder=morphology",
            "tissue.method=none",
            "compute.read_ahead=0",
            # A cohort's report costs a few seconds, whatever the slides cost.
            "report.make=false",
        ]
    )
    run_cohort([SlideSource(path, path.stem)], out, settings, SerialMachine())
    report: dict[str, Any] = json.loads((out / "run_report.json").read_text())["cells_in_all"]
    return report


def _placed(cells_of_tile: Callable[..., Any], network: FreeNetwork) -> Callable[..., Any]:
    """``cells_of_tile`` that first tells the network where the tile lies."""

    def call(rgb: np.ndarray, tile: Tile, *rest: object) -> Any:
        network.place = (tile.read.left, tile.read.top)
        return cells_of_tile(rgb, tile, *rest)

    return call


def in_its_own_process(*arguments: str, script: Path = Path(__file__)) -> str:
    """What ``script`` prints when called with ``arguments``; memory is its own."""
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def main() -> None:
    """Run the small and the large slide and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs=2, default=(8, 16), help="blocks of 1024 px")
    parser.add_argument("--draw", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.draw:
        draw(arguments.draw, arguments.folder)
    elif arguments.run:
        path = arguments.folder / f"side{arguments.run}.tif"
        print(json.dumps(run_slide(path, arguments.run)))
    else:
        compare(*arguments.sides)


def compare(*sides: int) -> None:
    """Print cost per area, and how memory grows with it."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for side in map(str, sides):
            in_its_own_process("--draw", side, "--folder", folder)
            results.append(json.loads(in_its_own_process("--run", side, "--folder", folder)))
    for figures in results:
        per_mm2 = figures["core_s"] / figures["mm2"]
        print(
            f"{figures['mm2']:.1f} mm2, {figures['cells']:.0f} cells: {per_mm2:.2f} core-s/mm2 "
            f"= {per_mm2 / BUDGET:.2f} of the budget; peak {figures['peak_mib']:.0f} MiB"
        )
    small, large = results[0], results[-1]
    large["segment"] -= large.pop("free")
    stages = {k: v for k, v in large.items() if k not in ("mm2", "cells", "core_s", "peak_mib")}
    stages["cohort"] = large["core_s"] - sum(stages.values())
    for stage, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        print(f"  {stage:8} {seconds / large['mm2']:.3f} s/mm2")
    print(
        f"{large['mm2'] / small['mm2']:.1f} times the area takes "
        f"{large['peak_mib'] / small['peak_mib']:.2f} times the memory"
    )


if __name__ == "__main__":
    main()
