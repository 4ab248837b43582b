"""How well segmenters outline nuclei: Dice, AJI, PQ and detection F1 on annotated images.

    python benchmarks/segmentation_quality.py --data ../shared/data [--limit 5]
    python benchmarks/segmentation_quality.py --segmenter compact --set nuclei.weights=FILE
    python benchmarks/segmentation_quality.py --set nuclei.compact.separation=offset

Every score is the mean over the images of a data set, all at 40x (0.25 um per pixel). Objects
outside the areas of ``nuclei.min_area_um2`` and ``nuclei.max_area_um2`` are dropped first, as a
run does. Detection F1 pairs centroids within 3 um; DQ inside PQ is F1 at IoU above 0.5.

HoVer-Net's figures on CoNSeP's test images are those its authors publish for a network trained on
CoNSeP's other images (Dice 0.853, AJI 0.600, PQ 0.548: github.com/vqdang/hover_net); the columns
after the scores are ours divided by theirs.

What was tuned on what. ``watershed``: settings and colour shares were chosen by hand and by a short
random search for the greatest mean of AJI and PQ over the upper left 500 x 500 pixels of every
second CoNSeP *train* image, all eight MoNuSeg images and every second TNBC image, some 300
combinations in all; these rows are therefore partly a fit. No setting was chosen by a score on
CoNSeP *test*, but early comparisons of colour channels printed its pixels' Dice beside the others.
``compact``: its bundled weights have seen TNBC's labels, so that its TNBC row is a fit, and no
pixel of CoNSeP or MoNuSeg; what was chosen, and by which images, stands in docs/segmenter.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, fields
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.config import NucleiSettings, load_settings
from ccrl_wsi.datasets.consep import read_consep
from ccrl_wsi.datasets.label_maps import read_label_maps
from ccrl_wsi.datasets.labelled_image import LabelledImage
from ccrl_wsi.datasets.monuseg import read_monuseg
from ccrl_wsi.datasets.tnbc import read_tnbc
from ccrl_wsi.evaluation.segmentation_scores import SegmentationScores, score_segmentation
from ccrl_wsi.interfaces import Segmenter
from ccrl_wsi.nuclei.regions import of_plausible_size
from ccrl_wsi.nuclei.segmenters import make_segmenter

HOVERNET_ON_CONSEP = {"dice": 0.853, "aji": 0.600, "pq": 0.548}
SHOWN = ("dice", "aji", "aji_plus", "dq", "sq", "pq", "detection_f1")
DATA_SETS: dict[str, Callable[[Path], Iterator[LabelledImage]]] = {
    "CoNSeP, all": lambda data: read_consep(data / "consep", "all"),
    "CoNSeP test": lambda data: read_consep(data / "consep", "test"),
    "CoNSeP train": lambda data: read_consep(data / "consep", "train"),
    "MoNuSeg train (8)": lambda data: read_monuseg(data / "monuseg_train"),
    "TNBC": lambda data: read_tnbc(data / "tnbc"),
}


def main() -> None:
    """Read the command line, score every data set with every segmenter, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--segmenter", action="append", help="default: compact, then watershed")
    parser.add_argument("--set", action="append", default=[], help="a setting, as in `run`")
    parser.add_argument("--on", choices=DATA_SETS, action="append", help="default: all sets")
    parser.add_argument("--label-maps", type=Path, help="a folder with images and labels, alone")
    parser.add_argument("--limit", type=int, help="images of each data set at most")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    print("Means over images; last columns: share of HoVer-Net on CoNSeP, core-seconds\n")
    names = ["segmenter", "data set", "images", *SHOWN]
    names += [*(f"{n}/HN" for n in HOVERNET_ON_CONSEP), "s/mm2"]
    print("| " + " | ".join(names) + " |")
    print("|---" * len(names) + "|")
    for name in given.segmenter or ("compact", "watershed"):
        settings = load_settings(overrides=[f"nuclei.segmenter={name}", *given.set]).nuclei
        segment = partial(_segment, make_segmenter(settings, "cpu"), settings)
        if given.label_maps:
            own = read_label_maps(given.label_maps, 0.25)
            print(_row(f"{name} | {given.label_maps.name}", *_score_all(own, segment)), flush=True)
            continue
        for title in given.on or DATA_SETS:
            images = islice(DATA_SETS[title](given.data), given.limit)
            print(_row(f"{name} | {title}", *_score_all(images, segment)), flush=True)


def _score_all(
    images: Iterator[LabelledImage], segment: Callable[[LabelledImage], IntArray]
) -> tuple[FloatArray, float]:
    """Scores (images, fields), and core-seconds of segmentation per mm2."""
    scores, seconds, area_mm2 = [], 0.0, 0.0
    for image in images:
        start = time.process_time()
        found = segment(image)
        seconds += time.process_time() - start
        area_mm2 += image.labels.size * image.mpp**2 / 1e6
        scores.append(astuple(score_segmentation(image.labels, found, image.mpp)))
    return np.asarray(scores), seconds / area_mm2


def _segment(segmenter: Segmenter, settings: NucleiSettings, image: LabelledImage) -> IntArray:
    return of_plausible_size(segmenter(image.rgb, image.mpp).labels, image.mpp, settings)


def _row(title: str, scores: FloatArray, seconds_per_mm2: float) -> str:
    columns = [field.name for field in fields(SegmentationScores)]
    mean = dict(zip(columns, scores.mean(axis=0), strict=True))
    ratios = [
        f"{mean[name] / theirs:.2f}" if "CoNSeP" in title else ""
        for name, theirs in HOVERNET_ON_CONSEP.items()
    ]
    values = [f"{mean[name]:.3f}" for name in SHOWN]
    return (
        "| "
        + " | ".join([title, str(len(scores)), *values, *ratios, f"{seconds_per_mm2:.2f}"])
        + " |"
    )


if __name__ == "__main__":
    main()
