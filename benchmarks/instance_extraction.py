"""Nuclei from HoVer-Net's maps: TIAToolbox's post-processing beside ours, same maps.

Run ``OMP_NUM_THREADS=1 python benchmarks/instance_extraction.py``. The nuclei are drawn at 5000 per
mm2; with ``--consep FOLDER`` they are those of CoNSeP's test images, side by side.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ccrl_wsi.datasets.consep import read_consep
from ccrl_wsi.evaluation.segmentation_scores import count_overlaps
from ccrl_wsi.nuclei.hovernet_instances import assign_types, extract_instances, mean_probability
from ccrl_wsi.nuclei.hovernet_maps import HoVerMaps, imitate_network, scatter_nuclei

PX_PER_MM2 = 4000**2
NUCLEI_PER_MM2 = 5000


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--consep", type=Path, help="folder with Train/ and Test/")
    folder = arguments.parse_args().consep
    cv2.setNumThreads(1)
    reference = load_reference()
    print("Core-seconds per mm2 at 0.25 um per pixel; nuclei with IoU >= 0.99 to the reference's.")
    print("tile px  nuclei  reference   ours  ratio  same range  fixed range")
    for side in (512, 1024, 2048):
        rng = np.random.default_rng(side)
        labels = lay_consep(folder, side) if folder else draw(side, rng)
        print(compare(imitate_network(labels, rng), reference), flush=True)


def load_reference() -> Callable[[list[np.ndarray]], np.ndarray]:
    """TIAToolbox's post-processing: raw maps to labels."""
    from tiatoolbox.models.architecture.hovernet import HoVerNet

    network = HoVerNet(num_types=3, mode="fast")
    return lambda maps: network.postproc(maps)[0]["predictions"]


def draw(side: int, rng: np.random.Generator) -> np.ndarray:
    """Labels of drawn nuclei."""
    return scatter_nuclei(side, round(NUCLEI_PER_MM2 * side**2 / PX_PER_MM2), rng)


def lay_consep(folder: Path, side: int) -> np.ndarray:
    """Labels of CoNSeP's images in rows and columns, cut to ``side``."""
    images = read_consep(folder, "test")
    sheet = np.zeros((-(-side // 1000) * 1000,) * 2, np.int32)
    for top in range(0, side, 1000):
        for left in range(0, side, 1000):
            labels = next(images).labels
            number = np.where(labels > 0, labels + sheet.max(), 0)
            sheet[top : top + 1000, left : left + 1000] = number
    return sheet[:side, :side]


def compare(maps: HoVerMaps, reference: Callable[[list[np.ndarray]], np.ndarray]) -> str:
    """One line of the table."""
    types = (maps.hv[..., 0] > 0).astype(np.uint8) + 1
    raw = [maps.probability[..., None], maps.hv, types[..., None].astype(np.float32)]

    def ours() -> np.ndarray:
        labels = extract_instances(maps.probability, maps.hv)
        assign_types(labels, types)
        mean_probability(labels, maps.probability)
        return labels

    theirs, their_s = timed(lambda: reference(raw), 1)
    fixed, our_s = timed(ours, 3)
    same = extract_instances(maps.probability, maps.hv, gradient_range=None)
    per_mm2 = PX_PER_MM2 / fixed.size
    return (
        f"{len(fixed):7d}  {fixed.max():6d}  {their_s * per_mm2:9.2f}  {our_s * per_mm2:5.2f}  "
        f"{their_s / our_s:5.1f}  {agreement(theirs, same):10.1%}  {agreement(theirs, fixed):11.1%}"
    )


def agreement(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Share of their nuclei that one of ours covers with IoU >= 0.99."""
    overlaps = count_overlaps(theirs, ours)
    return float((overlaps.iou >= 0.99).sum() / len(overlaps.truth_area))


def timed(work: Callable[[], np.ndarray], repeats: int) -> tuple[np.ndarray, float]:
    """Result, and the least processor time of ``repeats`` calls in seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        times.append(time.process_time() - start)
    return result, min(times)


if __name__ == "__main__":
    main()
