"""What finding nuclei costs on this machine: compact, watershed and HoVer-Net side by side.

    python benchmarks/compact_speed.py [--image FILE] [--hovernet]

The image (by default the H&E image that tiatoolbox brings along, 1000 x 1000 px at 0.25 um per
pixel) goes through everything a run does with a tile before embedding: segmentation, outlines,
measurements, crops. HoVer-Net has random weights, which cost what trained ones cost, and is shown
one patch of 256 px; its time is for as many such patches as cover the image with TIAToolbox's own
stride of 164 px. Times are the least of three, after one to warm up, of this process with all its
threads.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.crops.cut import crop_windows, cut_crops
from ccrl_wsi.interfaces import Segmenter
from ccrl_wsi.nuclei.measurements import measure
from ccrl_wsi.nuclei.outlines import trace_outlines
from ccrl_wsi.nuclei.regions import find_regions
from ccrl_wsi.nuclei.segmenters import make_segmenter
from pipelines.demo import find_demo_image

MPP = 0.25
PATCH_PX, STRIDE_PX = 256, 164


def main() -> None:
    """Read the command line, time each segmenter, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, default=None)
    parser.add_argument("--hovernet", action="store_true", help="a minute more")
    given = parser.parse_args()
    rgb = np.asarray(Image.open(given.image or find_demo_image()).convert("RGB"))[:1000, :1000]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, ", end="")
    print(f"{torch.get_num_threads()} threads; {rgb.shape[1]} x {rgb.shape[0]} px\n")
    print(
        "| segmenter | nuclei | segmentation, s | with outlines, measurements, crops, s | GFLOP |"
    )
    print("|---|---|---|---|---|")
    rows = {name: _row(name, rgb) for name in ("compact", "watershed")}
    if given.hovernet:
        seconds, gflop = _hovernet_cost(rgb)
        print(f"| hovernet_fast, network alone | | {seconds:.1f} | | {gflop:.0f} |")
        own_seconds, own_gflop = rows["compact"]
        print(f"\nhovernet_fast / compact: {seconds / own_seconds:.0f} times the seconds, ", end="")
        print(f"{gflop / own_gflop:.0f} times the arithmetic")


def _row(name: str, rgb: ByteArray) -> tuple[float, float]:
    """Print a row; seconds of segmentation alone, and GFLOP of its network."""
    segmenter = make_segmenter(NucleiSettings(segmenter=name), "auto")
    n = segmenter(rgb, MPP).n_nuclei
    alone = _least_seconds(lambda: segmenter(rgb, MPP))
    whole = _least_seconds(lambda: _everything(segmenter, rgb))
    gflop = _gflop(lambda: segmenter(rgb, MPP))
    print(f"| {name} | {n} | {alone:.2f} | {whole:.2f} | {gflop:.0f} |", flush=True)
    return alone, gflop


def _everything(segmenter: Segmenter, rgb: ByteArray) -> None:
    labels = segmenter(rgb, MPP).labels
    regions = find_regions(labels)
    measure(rgb, labels, regions, trace_outlines(labels, regions), MPP)
    cut_crops(rgb, crop_windows(regions.boxes, 2.0), 32)


def _hovernet_cost(rgb: ByteArray) -> tuple[float, float]:
    from ccrl_wsi.nuclei.hovernet import build_hovernet

    network = build_hovernet("hovernet_fast-pannuke")[0].eval()
    patch = torch.from_numpy(rgb[:PATCH_PX, :PATCH_PX].copy()).permute(2, 0, 1)[None].float()

    def once() -> None:
        with torch.inference_mode():
            network(patch)

    n_patches = int(np.prod([-(-side // STRIDE_PX) for side in rgb.shape[:2]]))
    return n_patches * _least_seconds(once), n_patches * _gflop(once)


def _gflop(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def _least_seconds(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
