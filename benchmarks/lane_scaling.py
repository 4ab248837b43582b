"""Do the threads behind the network scale? One partition with 0, 1, 2 and 4 of them.

    python benchmarks/lane_scaling.py              # about two minutes
    python benchmarks/lane_scaling.py --threads 1 2

A drawn slide of 2.1 mm2 with about 5000 nuclei per mm2 is one partition of eight tiles. Pixels lie
in memory and the maps of HoVer-Net, as a GPU sends them, too: all that is left is what threads do
behind a network on a GPU (`compute.extract_behind`), from maps to measured nuclei, and the little
that the worker does once a partition. Crops, which a GPU would cut, are cut by the threads here.
Python runs one thread at a time; only what OpenCV, NumPy and compiled code do meanwhile is done by
several. "held back" is the share of the time in which a thread that had a tile neither ran nor
waited for a core: mostly it waited for the others to let it into Python (Linux). On busy cores it
is the less the fewer threads run at once, so all this is for idle ones. Rounds in turns, medians;
libraries have one thread each.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from known_nuclei import Meter, OurSegmenter, piece
from measured import Table
from timeline import middle_job
from whole_job import BLOCK_PX, MPP, draw, draw_block

from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.nuclei.filters_on_device import rise_on_device
from ccrl_wsi.nuclei.hovernet_instances import GRADIENT_RANGE
from ccrl_wsi.nuclei.hovernet_maps import HoVerMaps
from ccrl_wsi.nuclei.tile_maps import Arrived
from ccrl_wsi.records import Tile
from ccrl_wsi.tiles.grid import reading_order
from pipelines import partitions
from pipelines.jobs import PartitionJob
from pipelines.tools import reader_of

BLOCKS = (4, 8)
SCHEDSTAT = Path("/proc/thread-self/schedstat")
Took = tuple[float, float, float | None]
"""Seconds on the clock, core-seconds, and the share of the time in which threads were held back."""


class FreeGPU(OurSegmenter):
    """A HoVer-Net on a GPU that has looked at every tile already."""

    device = "cuda"

    def __init__(self, block: HoVerMaps, tiles: list[Tile]) -> None:
        super().__init__(block, None, Meter())
        self.sent = [_sent(block, tile.read) for tile in tiles]
        self.number = 0

    def predict(self, rgb: np.ndarray, mpp: float) -> Arrived:
        """The maps of the next tile; tiles are asked about in their order."""
        self.number += 1
        return Arrived(self.sent[(self.number - 1) % len(self.sent)])


@dataclass
class PixelsAtHand:
    """A reader that keeps what it read."""

    reader: Any
    kept: dict[Box, np.ndarray] = field(default_factory=dict)

    def read(self, box: Box, grid: PixelGrid) -> np.ndarray:
        """Pixels of ``box``, the same array every time."""
        if box not in self.kept:
            self.kept[box] = self.reader.read(box, grid)
        return self.kept[box]


def _sent(block: HoVerMaps, read: Box) -> dict[str, np.ndarray]:
    """Maps of ``read`` of a slide that repeats ``block``, as a GPU sends them."""
    known, hv = piece(block, read.top, read.left, (read.height, read.width))
    halved = known.astype(np.float16)
    # Rounded to a half, what is below would become nucleus.
    probability = np.where(known < 0.5, np.minimum(halved, 0.4998), halved)
    return {
        "probability": probability.astype(np.float16),
        "rise": rise_on_device(torch.from_numpy(hv), GRADIENT_RANGE).numpy(),
        "types": np.zeros(probability.shape, np.uint8),
    }


def prepared(folder: Path) -> PartitionJob:
    """The slide as one partition, its pixels and maps put where a partition looks for them."""
    slide = draw(BLOCKS, folder)
    one = ["tiles.core_px=2048", "tiles.partition_side=8", "tissue.method=none"]
    free = ["nuclei.segmenter=watershed", "embedding.encoder=morphology"]
    job = middle_job(slide, folder / "out", [*one, *free])
    segmenter = FreeGPU(draw_block()[1], reading_order(job.partition.tiles))
    reader = PixelsAtHand(reader_of(job.info))
    partitions.segmenter_of = lambda settings: segmenter
    partitions.reader_of = lambda info: reader
    return job


def with_threads(job: PartitionJob, threads: int) -> PartitionJob:
    """The same work for so many threads."""
    settings = job.settings
    compute = settings.compute.model_copy(update={"extract_behind": threads})
    target = job.target.with_suffix(f".{threads}.npz")
    return replace(job, settings=settings.model_copy(update={"compute": compute}), target=target)


class Waits:
    """What threads do with the time in which they have a tile."""

    def __init__(self) -> None:
        self.work = partitions.cells_of_tile
        self.tiles: list[tuple[float, float]] = []

    def __call__(self, *arguments: Any) -> Any:
        """The cells of a tile."""
        began, ready = time.perf_counter(), ready_seconds()
        result = self.work(*arguments)
        passed = time.perf_counter() - began
        self.tiles.append((passed, passed - (ready_seconds() - ready)))
        return result

    def share(self) -> float | None:
        """Of the time since it was asked last, in which threads were held back."""
        passed, waited = np.sum(self.tiles, axis=0)
        self.tiles.clear()
        return max(0.0, float(waited / passed)) if SCHEDSTAT.exists() else None


def ready_seconds() -> float:
    """How long this thread has run or waited for a core."""
    if not SCHEDSTAT.exists():
        return 0.0
    ran, waited = SCHEDSTAT.read_text(encoding="utf-8").split()[:2]
    return (int(ran) + int(waited)) / 1e9


def measure(jobs: dict[int, PartitionJob], rounds: int) -> dict[int, list[Took]]:
    """Figures of each round, by threads, after a round to warm up."""
    found: dict[int, list[Took]] = {threads: [] for threads in jobs}
    waits = Waits()
    partitions.cells_of_tile = waits
    for number in range(rounds + 1):
        for threads, job in jobs.items():
            wall, core = time.perf_counter(), time.process_time()
            partitions.run_partition(job)
            took = time.perf_counter() - wall, time.process_time() - core, waits.share()
            if number:
                found[threads].append(took)
    return found


def main() -> None:
    """Measure, and compare with one thread."""
    import cv2

    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    possible = [n for n in (0, 1, 2, 4) if n <= (os.cpu_count() or 1)]
    parser.add_argument("--threads", type=int, nargs="+", default=possible)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        job = prepared(Path(name))
        jobs = {threads: with_threads(job, threads) for threads in asked.threads}
        found = measure(jobs, asked.rounds)
    mm2 = BLOCKS[0] * BLOCKS[1] * (BLOCK_PX * MPP / 1000) ** 2
    walls = {threads: median(took[0] for took in rounds) for threads, rounds in found.items()}
    table = Table(
        f"Threads behind a network that costs nothing, {mm2:.1f} mm2, {asked.rounds} rounds",
        ("threads", "s/mm2", "times as fast as 1", "core-s/mm2", "cores busy", "held back"),
    )
    for threads, rounds in found.items():
        wall, core = walls[threads], median(took[1] for took in rounds)
        held = [took[2] for took in rounds if took[2] is not None]
        gain = walls[1] / wall if 1 in walls else None
        busy, share = core / wall, median(held) if held else None
        table.row(str(threads), wall / mm2, gain, core / mm2, busy, share)
    table.publish("lane_scaling")


if __name__ == "__main__":
    main()
