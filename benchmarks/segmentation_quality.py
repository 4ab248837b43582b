"""How well segmenters outline nuclei, and how far their counts and areas are off.

    python benchmarks/segmentation_quality.py --data ../shared/data [--limit 5]
    python benchmarks/segmentation_quality.py --segmenter compact --set nuclei.weights=FILE
    python benchmarks/segmentation_quality.py --set nuclei.compact.separation=offset

Dice, AJI, PQ and detection F1 are means over the annotated images of a data set, all at 40x
(0.25 um per pixel). Found objects outside the areas of ``nuclei.min_area_um2`` and
``nuclei.max_area_um2`` are dropped first, as a run does. Detection F1 pairs centroids within 3 um;
DQ inside PQ is F1 at IoU above 0.5.

A second table tells what densities and areas of a run are worth. All nuclei of a data set count
alike there: how many people outlined, the share of these outside the areas that a run keeps; and,
without them, found over outlined nuclei, of all images and (10 to 90 %) from image to image;
precision and recall of pairs at IoU above 0.5; found over outlined area, the median of the pairs,
and of the medians of all nuclei.

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
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
from ccrl_wsi.evaluation.segmentation_scores import (
    CountsAndAreas,
    SegmentationScores,
    counts_and_areas,
    score_segmentation,
    together,
)
from ccrl_wsi.interfaces import Segmenter
from ccrl_wsi.nuclei.regions import of_plausible_size
from ccrl_wsi.nuclei.segmenters import make_segmenter

HOVERNET_ON_CONSEP = {"dice": 0.853, "aji": 0.600, "pq": 0.548}
SHOWN = ("dice", "aji", "aji_plus", "dq", "sq", "pq", "detection_f1")
BIAS = (
    "outlined",
    "too small",
    "found/outlined",
    "10-90 %",
    "precision",
    "recall",
    "area, pairs",
    "area, all",
)
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
    print(_head([*SHOWN, *(f"{n}/HN" for n in HOVERNET_ON_CONSEP), "s/mm2"]))
    bias = []
    for title, images, settings in _data_sets(given):
        segment = partial(_segment, make_segmenter(settings, "cpu"), settings)
        result = _score_all(images, segment, settings)
        print(_row(title, result), flush=True)
        bias.append(_bias_row(title, result))
    print("\nNuclei of all images together\n")
    print("\n".join([_head(BIAS), *bias]))


def _data_sets(
    given: argparse.Namespace,
) -> Iterator[tuple[str, Iterator[LabelledImage], NucleiSettings]]:
    """What is asked for: segmenter and data set by name, images, and the segmenter's settings."""
    for name in given.segmenter or ("compact", "watershed"):
        settings = load_settings(overrides=[f"nuclei.segmenter={name}", *given.set]).nuclei
        if given.label_maps:
            own = read_label_maps(given.label_maps, 0.25)
            yield f"{name} | {given.label_maps.name}", own, settings
            continue
        for title in given.on or DATA_SETS:
            images = islice(DATA_SETS[title](given.data), given.limit)
            yield f"{name} | {title}", images, settings


@dataclass(frozen=True, eq=False, slots=True)
class Result:
    """Scores (images, fields), core-seconds per mm2, all that was outlined, counts and areas."""

    scores: FloatArray
    seconds_per_mm2: float
    n_outlined: int
    bias: CountsAndAreas


def _score_all(
    images: Iterator[LabelledImage],
    segment: Callable[[LabelledImage], IntArray],
    settings: NucleiSettings,
) -> Result:
    scores, bias, seconds, area_mm2, n_outlined = [], [], 0.0, 0.0, 0
    for image in images:
        start = time.process_time()
        found = segment(image)
        seconds += time.process_time() - start
        area_mm2 += image.labels.size * image.mpp**2 / 1e6
        scores.append(astuple(score_segmentation(image.labels, found, image.mpp)))
        n_outlined += np.count_nonzero(np.unique(image.labels))
        bias.append(counts_and_areas(of_plausible_size(image.labels, image.mpp, settings), found))
    return Result(np.asarray(scores), seconds / area_mm2, n_outlined, together(bias))


def _segment(segmenter: Segmenter, settings: NucleiSettings, image: LabelledImage) -> IntArray:
    return of_plausible_size(segmenter(image.rgb, image.mpp).labels, image.mpp, settings)


def _head(columns: Sequence[str]) -> str:
    names = ["segmenter", "data set", "images", *columns]
    return f"| {' | '.join(names)} |\n{'|---' * len(names)}|"


def _row(title: str, result: Result) -> str:
    columns = [field.name for field in fields(SegmentationScores)]
    mean = dict(zip(columns, result.scores.mean(axis=0), strict=True))
    ratios = [
        f"{mean[name] / theirs:.2f}" if "CoNSeP" in title else ""
        for name, theirs in HOVERNET_ON_CONSEP.items()
    ]
    values = [f"{mean[name]:.3f}" for name in SHOWN]
    cells = [title, str(len(result.scores)), *values, *ratios, f"{result.seconds_per_mm2:.2f}"]
    return f"| {' | '.join(cells)} |"


def _bias_row(title: str, result: Result) -> str:
    bias = result.bias
    low, high = np.percentile(bias.count_ratio_of_images, [10, 90])
    values = (bias.precision, bias.recall, bias.area_ratio_of_pairs, bias.median_area_ratio)
    left_out = 1 - bias.n_truth.sum() / result.n_outlined
    cells = [title, str(len(result.scores)), str(result.n_outlined), f"{left_out:.1%}"]
    cells.append(f"{bias.count_ratio:.2f}")
    cells += [f"{low:.2f} to {high:.2f}", *(f"{value:.2f}" for value in values)]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
