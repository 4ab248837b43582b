"""The same HoVer-Net in TIAToolbox's engine and in our job: time with the network included.

    python benchmarks/network_included.py             # three rounds: ten minutes on two cores
    python benchmarks/network_included.py --px 1024   # twice as long

A square region with about 5000 nuclei per mm2. The network is HoVer-Net fast with the same random
weights on both sides, float32, the same number of threads. The sides take turns, each in a process
of its own that has seen one patch before; told are medians, and of the ratio the lowest and
highest. The network's maps are computed, thrown away and replaced by those of the known nuclei, so
that both sides have real nuclei to find and it can be checked that they do. The engine finds nuclei
and writes them; our job also measures, crops, embeds (measurements only), clusters and writes
overlays.

A region of one tile has no seams: our side sees no halo there. The last row therefore says what
the network alone would take on a large slide: pixels that it sees per pixel of the slide (halo and
margins included) times its seconds per pixel that were measured.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from operator import itemgetter

from known_nuclei import MPP, OUTPUT_PX, PATCH_PX, compare
from measured import Table

from ccrl_wsi.config import TileSettings
from ccrl_wsi.geometry import um_to_px
from ccrl_wsi.nuclei.hovernet import REACHES
from ccrl_wsi.nuclei.windows import ON_CPU_PX, plan_windows

GOAL = 1.6
FIGURES: dict[str, Callable[[dict[str, float]], float]] = {
    "core-seconds": itemgetter("core_s"),
    "seconds on the clock": itemgetter("wall_s"),
    "of the network, core-seconds": itemgetter("network_core_s"),
    "around the network, core-seconds": lambda run: run["core_s"] - run["network_core_s"],
    "pixels the network saw, millions": itemgetter("network_megapixels"),
    "peak memory, MiB": itemgetter("peak_mib"),
}


def _per_megapixel(run: dict[str, float]) -> float:
    return run["network_core_s"] / run["network_megapixels"]


def seen_per_pixel() -> dict[str, float]:
    """Pixels that the network sees per pixel of a large slide, on each side."""
    tiles = TileSettings()
    side = tiles.core_px + 2 * -(-um_to_px(tiles.halo_um, MPP) // 8) * 8
    margin = REACHES["fast"].lost + REACHES["fast"].spoilt
    windows = plan_windows((side, side), ON_CPU_PX, margin, 8)
    height, width = windows.size
    ours = len(windows.starts) * height * width / tiles.core_px**2
    return {"engine": (PATCH_PX / OUTPUT_PX) ** 2, "ours": ours}


def main() -> None:
    """Run both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--px", type=int, default=656, help="side of the region")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    asked = parser.parse_args()
    compared = compare(asked.px, is_real=True, threads=asked.threads, rounds=asked.rounds)
    engine, ours = compared.engine, compared.ours
    table = Table(
        f"HoVer-Net fast included, {asked.px} x {asked.px} px, float32, {asked.threads} threads, "
        f"medians of {asked.rounds} (goal: {GOAL:g} times faster)",
        ("figure", "TIAToolbox's engine", "our whole job", "times ours", "from-to"),
    )
    for label, figure in FIGURES.items():
        table.row(label, figure(engine), figure(ours), *compared.times_ours(figure))
    for label, key in (("nuclei found", "n_found"), ("known ones lost", "n_lost")):
        table.row(f"{label}, of {compared.n_known}", int(engine[key]), int(ours[key]), None, None)
    seen = seen_per_pixel()
    large = [
        seen[name] * _per_megapixel(side) / MPP**2
        for name, side in (("engine", engine), ("ours", ours))
    ]
    gain, _ = compared.times_ours(_per_megapixel)
    gain *= seen["engine"] / seen["ours"]
    table.row("network, core-s/mm2 of a large slide", *large, gain, None)
    table.publish("network_included")


if __name__ == "__main__":
    main()
