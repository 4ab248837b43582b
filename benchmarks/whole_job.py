"""Core-seconds and memory of everything but the segmentation network, on 1, 2, 4 and 8 mm2.

    python benchmarks/whole_job.py                 # three minutes

Slides with about 5000 nuclei per mm2 at 0.25 um per pixel are drawn and saved as JPEG pyramids.
The network costs nothing: its maps are made of the known nuclei beforehand. All the rest is the
real code, from decoding to the finished store and overlay: instance extraction from the maps,
outlines, measurements, crops, morphology embedding, parts, assembly, assignment, GeoJSON.
The budget is 3 core-seconds per mm2; TIAToolbox 2.1 with a network that costs nothing takes 12 to
21 without crops, embedding and clusters. Each slide is done in a process of its own, so that peak
memory is its own; once, or ``--rounds`` times in turns: then medians are told. Cost and memory that
do not grow with the area have ratios near 1.
"""

from __future__ import annotations

import argparse
import json
import os
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
from measured import Table, medians

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


def draw(blocks: tuple[int, int], folder: Path) -> Path:
    """A slide of so many rows and columns of blocks."""
    path = slide_in(folder, blocks)
    write_pyramid(path, np.tile(draw_block()[0], (*blocks, 1)), MPP, compression="jpeg")
    return path


def slide_in(folder: Path, blocks: tuple[int, int]) -> Path:
    """Where the slide of so many blocks lies."""
    return folder / f"blocks{blocks[0]}x{blocks[1]}.tif"


def shape(text: str) -> tuple[int, int]:
    """Rows and columns of blocks: ``4x8``, or ``8`` for a square."""
    rows, _, columns = text.partition("x")
    return int(rows), int(columns or rows)


def run_slide(path: Path, blocks: tuple[int, int]) -> dict[str, float]:
    """The job on a drawn slide: figures of this process."""
    from pipelines import partitions, stopwatch

    stopwatch.perf_counter = time.process_time  # one thread: what stages cost, not how long
    network = FreeNetwork(draw_block()[1])
    partitions.segmenter_of = lambda settings: network
    partitions.cells_of_tile = _placed(partitions.cells_of_tile, network)
    with tempfile.TemporaryDirectory() as folder:
        _run(draw((1, 1), Path(folder)), Path(folder) / "warm")  # Imports are not what is measured.
        network.free_seconds = 0.0
        before = time.process_time()
        report = _run(path, Path(folder) / "out")
        seconds = time.process_time() - before - network.free_seconds
    return {
        "mm2": blocks[0] * blocks[1] * (BLOCK_PX * MPP / 1000) ** 2,
        "cells": report["n_cells"],
        "core_s": seconds,
        "peak_mib": peak_mib(),
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


def peak_mib() -> float:
    """The most memory this process had. Not getrusage's, which begins with the parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def in_its_own_process(*arguments: str, script: Path = Path(__file__)) -> str:
    """What ``script`` prints when called with ``arguments``; memory is its own."""
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def main() -> None:
    """Run slides of growing area and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--blocks",
        nargs="+",
        default=["4x4", "4x8", "8x8", "8x16"],
        help="rows x columns of 1024 px, for each slide",
    )
    parser.add_argument(
        "--rounds", type=int, default=1, help="runs of each slide; medians are told"
    )
    parser.add_argument("--draw", type=shape, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=shape, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.draw:
        draw(arguments.draw, arguments.folder)
    elif arguments.run:
        path = slide_in(arguments.folder, arguments.run)
        print(json.dumps(run_slide(path, arguments.run)))
    else:
        compare(arguments.blocks, arguments.rounds)


STAGES = ("segment", "read", "measure", "outline", "crop")


def compare(slides: list[str], rounds: int) -> None:
    """Print cost per area, and how cost and memory grow with it."""
    runs: dict[str, list[dict[str, float]]] = {blocks: [] for blocks in slides}
    with tempfile.TemporaryDirectory() as folder:
        for blocks in slides:
            in_its_own_process("--draw", blocks, "--folder", folder)
        for blocks in slides * rounds:
            run = json.loads(in_its_own_process("--run", blocks, "--folder", folder))
            runs[blocks].append(run)
    results = [medians(of_slide) for of_slide in runs.values()]
    table = Table(
        f"Everything but the network, core-seconds per mm2 (budget {BUDGET:g}), "
        f"medians of {rounds}",
        ("mm2", "cells", "all", "to 1st", "MiB", "MiB to 1st", "instances", *STAGES[1:], "rest"),
    )
    first = results[0]
    for found in results:
        found["segment"] -= found["free"]
        stages = [found[name] / found["mm2"] for name in STAGES]
        whole = found["core_s"] / found["mm2"]
        growth = whole / (first["core_s"] / first["mm2"])
        memory = found["peak_mib"], found["peak_mib"] / first["peak_mib"]
        rest = whole - sum(stages)
        table.row(f"{found['mm2']:.1f}", int(found["cells"]), whole, growth, *memory, *stages, rest)
    table.publish("whole_job")


if __name__ == "__main__":
    main()
