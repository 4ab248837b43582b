"""The same HoVer-Net in TIAToolbox's engine and in our job: time with the network included.

    python benchmarks/network_included.py          # about six minutes on two cores
    python benchmarks/network_included.py --px 656 # two

A square region with about 5000 nuclei per mm2. The network is HoVer-Net fast with the same random
weights on both sides, float32, the same number of threads; each side has been warmed up on one
patch. Its maps are computed, thrown away and replaced by those of the known nuclei, so that both
sides have real nuclei to find and it can be checked that they do. The engine finds nuclei and
writes them; our job also measures, crops, embeds (measurements only), clusters and writes overlays.

A region of one tile has no seams: our side sees no halo there. The last row therefore says what
the network alone would take on a large slide: pixels that it sees per pixel of the slide (halo and
margins included) times its seconds per pixel that were measured.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from known_nuclei import MPP, OUTPUT_PX, PATCH_PX, compare
from measured import Table

from ccrl_wsi.config import TileSettings
from ccrl_wsi.geometry import um_to_px
from ccrl_wsi.nuclei.hovernet import REACHES
from ccrl_wsi.nuclei.windows import ON_CPU_PX, plan_windows

GOAL = 1.6


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
    parser.add_argument("--px", type=int, default=1024, help="side of the region")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    figures: dict[Any, Any] = compare(asked.px, is_real=True, threads=asked.threads)
    engine, ours = figures["engine"], figures["ours"]
    table = Table(
        f"HoVer-Net fast included, {asked.px} x {asked.px} px, float32, {asked.threads} threads "
        f"(goal: {GOAL:g} times faster)",
        ("figure", "TIAToolbox's engine", "our whole job", "times ours"),
    )
    for label, key in (
        ("core-seconds", "core_s"),
        ("seconds on the clock", "wall_s"),
        ("of the network, core-seconds", "network_core_s"),
        ("pixels the network saw, millions", "network_megapixels"),
        ("peak memory, MiB", "peak_mib"),
    ):
        table.row(label, engine[key], ours[key], engine[key] / ours[key])
    around = [side["core_s"] - side["network_core_s"] for side in (engine, ours)]
    table.row("around the network, core-seconds", *around, around[0] / around[1])
    table.row("nuclei found", engine["n_found"], ours["n_found"], None)
    table.row(f"of {ours['n_known']} known ones lost", engine["n_lost"], ours["n_lost"], None)
    seen = seen_per_pixel()
    large = [
        seen[name] * side["network_core_s"] / side["network_megapixels"] / MPP**2
        for name, side in (("engine", engine), ("ours", ours))
    ]
    table.row("network, core-s/mm2 of a large slide", *large, large[0] / large[1])
    table.publish("network_included")


if __name__ == "__main__":
    main()
