"""Nuclei from HoVer-Net's maps: TIAToolbox's post-processing beside ours, same maps.

    python benchmarks/instance_extraction.py [--consep FOLDER]     # two minutes

The nuclei are drawn at 5000 per mm2 of 0.25 um per pixel; with ``--consep`` they are those of
CoNSeP's test images, side by side. Types and probabilities are included. "same" is the share of
the reference's nuclei that one of ours covers with IoU >= 0.99: with the reference's own scale of
boundaries, then with ours, which does not depend on the tile. "after a GPU" is what is left to the
host where a GPU has taken the slopes of hv. One thread.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")  # the reference's bars

import cv2
import numpy as np
import torch
from measured import Table, in_turns

from ccrl_wsi.datasets.consep import read_consep
from ccrl_wsi.evaluation.segmentation_scores import count_overlaps
from ccrl_wsi.nuclei.filters_on_device import rise_on_device
from ccrl_wsi.nuclei.hovernet_instances import (
    GRADIENT_RANGE,
    assign_types,
    extract_instances,
    instances_from_rise,
    mean_probability,
)
from ccrl_wsi.nuclei.hovernet_maps import HoVerMaps, imitate_network, scatter_nuclei

PX_PER_MM2 = 4000**2
NUCLEI_PER_MM2 = 5000


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--consep", type=Path, help="folder with Train/ and Test/")
    folder = arguments.parse_args().consep
    cv2.setNumThreads(1)
    reference = load_reference()
    table = Table(
        "Instances from maps, core-seconds per mm2",
        (
            "tile px",
            "nuclei",
            "reference",
            "ours",
            "ratio",
            "after a GPU",
            "same",
            "same, fixed scale",
        ),
    )
    for side in (512, 1024, 2048):
        rng = np.random.default_rng(side)
        labels = lay_consep(folder, side) if folder else draw(side, rng)
        table.row(*compare(imitate_network(labels, rng), reference))
    table.publish("instance_extraction")


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


def compare(
    maps: HoVerMaps, reference: Callable[[list[np.ndarray]], np.ndarray]
) -> tuple[int | float, ...]:
    """One row of the table."""
    types = (maps.hv[..., 0] > 0).astype(np.uint8) + 1
    raw = [maps.probability[..., None], maps.hv, types[..., None].astype(np.float32)]
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        found["ours"] = labels = extract_instances(maps.probability, maps.hv)
        assign_types(labels, types)
        mean_probability(labels, maps.probability)

    def theirs() -> None:
        found["theirs"] = reference(raw)

    rise = rise_on_device(torch.from_numpy(maps.hv), GRADIENT_RANGE).numpy()

    def after_gpu() -> None:
        found["after a GPU"] = labels = instances_from_rise(maps.probability, rise)
        assign_types(labels, types)
        mean_probability(labels, maps.probability)

    works = {"ours": ours, "theirs": theirs, "after a GPU": after_gpu}
    seconds = in_turns(works, rounds=2, clock=time.process_time)
    our_s, their_s, left_s = (median(seconds[name]) for name in works)
    same = extract_instances(maps.probability, maps.hv, gradient_range=None)
    fixed, side = found["ours"], len(types)
    per_mm2 = PX_PER_MM2 / fixed.size
    alike = agreement(found["theirs"], same), agreement(found["theirs"], fixed)
    costs = their_s * per_mm2, our_s * per_mm2, their_s / our_s, left_s * per_mm2
    return side, int(fixed.max()), *costs, *alike


def agreement(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Share of their nuclei that one of ours covers with IoU >= 0.99."""
    overlaps = count_overlaps(theirs, ours)
    return float((overlaps.iou >= 0.99).sum() / len(overlaps.truth_area))


if __name__ == "__main__":
    main()
