"""How well found nuclei agree with annotated ones, on one image.

Dice and AJI as in Kumar et al., IEEE TMI 36 (2017) 1550; AJI+ (one found nucleus answers for one
annotated at most) and the detection score as in Graham et al., HoVer-Net, Med. Image Anal. 58
(2019) 101563; PQ as in Kirillov et al., Panoptic Segmentation, CVPR 2019. Where there is nothing
to find and nothing was found, every score is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from ccrl_wsi.arrays import FloatArray, IntArray

MATCH_IOU = 0.5
MATCH_DISTANCE_UM = 3.0
"""Twelve pixels at 40x, as HoVer-Net's authors count detections."""


@dataclass(frozen=True, eq=False, slots=True)
class Overlaps:
    """Which annotated nucleus shares how many pixels with which found one.

    Parameters
    ----------
    truth_area, found_area
        (t,) and (f,) pixels of each nucleus, in the order of its label.
    truth_row, found_row, shared
        (k,) for every pair that meets: the rows of both, and the pixels in common.
    """

    truth_area: IntArray
    found_area: IntArray
    truth_row: IntArray
    found_row: IntArray
    shared: IntArray

    @property
    def union(self) -> IntArray:
        """(k,) pixels that either nucleus of a pair covers."""
        joint: IntArray = (
            self.truth_area[self.truth_row] + self.found_area[self.found_row] - self.shared
        )
        return joint

    @property
    def iou(self) -> FloatArray:
        """(k,) intersection over union of each pair."""
        ratio: FloatArray = self.shared / self.union
        return ratio


@dataclass(frozen=True, slots=True)
class PanopticQuality:
    """``dq`` is F1 at IoU above 0.5, ``sq`` the mean IoU of the matches, ``pq`` their product."""

    dq: float
    sq: float

    @property
    def pq(self) -> float:
        """Panoptic quality."""
        return self.dq * self.sq


@dataclass(frozen=True, slots=True)
class SegmentationScores:
    """All scores of one image."""

    dice: float
    aji: float
    aji_plus: float
    dq: float
    sq: float
    pq: float
    detection_f1: float


@dataclass(frozen=True, eq=False, slots=True)
class CountsAndAreas:
    """What counts and areas of nuclei come to: of one image, or of several together.

    Parameters
    ----------
    n_truth, n_found
        Nuclei that people outlined, and that were found: one number an image.
    n_matched
        Pairs of IoU above 0.5, in all.
    truth_area, found_area
        Pixels of all nuclei.
    pair_ratio
        Found over true area of each pair.
    """

    n_truth: IntArray
    n_found: IntArray
    n_matched: int
    truth_area: IntArray
    found_area: IntArray
    pair_ratio: FloatArray

    @property
    def precision(self) -> float:
        """Share of the found nuclei that are in a pair."""
        return self.n_matched / max(1, int(self.n_found.sum()))

    @property
    def recall(self) -> float:
        """Share of the true nuclei that are in a pair."""
        return self.n_matched / max(1, int(self.n_truth.sum()))

    @property
    def count_ratio(self) -> float:
        """Found over true nuclei."""
        return float(self.n_found.sum() / max(1, self.n_truth.sum()))

    @property
    def count_ratio_of_images(self) -> FloatArray:
        """The same of each image that has nuclei."""
        some = self.n_truth > 0
        ratio: FloatArray = self.n_found[some] / self.n_truth[some]
        return ratio

    @property
    def area_ratio_of_pairs(self) -> float:
        """Median over pairs of found over true area; NaN without pairs."""
        return float(np.median(self.pair_ratio)) if len(self.pair_ratio) else float("nan")

    @property
    def median_area_ratio(self) -> float:
        """Median area of all found over that of all true nuclei; NaN where one has none."""
        if not len(self.truth_area) or not len(self.found_area):
            return float("nan")
        return float(np.median(self.found_area) / np.median(self.truth_area))


def counts_and_areas(truth: IntArray, found: IntArray) -> CountsAndAreas:
    """Compare how many nuclei two label images (height, width) have, and how large they are."""
    overlaps = count_overlaps(truth, found)
    pairs = overlaps.iou > MATCH_IOU
    found_area = overlaps.found_area[overlaps.found_row[pairs]]
    return CountsAndAreas(
        np.array([len(overlaps.truth_area)]),
        np.array([len(overlaps.found_area)]),
        int(np.count_nonzero(pairs)),
        overlaps.truth_area,
        overlaps.found_area,
        found_area / overlaps.truth_area[overlaps.truth_row[pairs]],
    )


def together(images: Sequence[CountsAndAreas]) -> CountsAndAreas:
    """One of several images; every nucleus counts alike."""
    return CountsAndAreas(
        np.concatenate([one.n_truth for one in images]),
        np.concatenate([one.n_found for one in images]),
        sum(one.n_matched for one in images),
        np.concatenate([one.truth_area for one in images]),
        np.concatenate([one.found_area for one in images]),
        np.concatenate([one.pair_ratio for one in images]),
    )


def score_segmentation(truth: IntArray, found: IntArray, mpp: float) -> SegmentationScores:
    """Compare label images (height, width); 0 is background, other labels need not be dense."""
    overlaps = count_overlaps(truth, found)
    panoptic = panoptic_quality(overlaps)
    return SegmentationScores(
        dice=dice(truth, found),
        aji=aggregated_jaccard(overlaps),
        aji_plus=aggregated_jaccard_plus(overlaps),
        dq=panoptic.dq,
        sq=panoptic.sq,
        pq=panoptic.pq,
        detection_f1=detection_f1(
            label_centroids(truth), label_centroids(found), MATCH_DISTANCE_UM / mpp
        ),
    )


def count_overlaps(truth: IntArray, found: IntArray) -> Overlaps:
    """Areas and shared pixels of all nuclei of two label images of one shape."""
    truth, truth_area = _to_rows(truth)
    found, found_area = _to_rows(found)
    n_found = len(found_area)
    both = (truth > 0) & (found > 0)
    pair = (truth[both] - 1).astype(np.int64) * n_found + (found[both] - 1)
    code, shared = np.unique(pair, return_counts=True)
    return Overlaps(truth_area, found_area, code // max(1, n_found), code % max(1, n_found), shared)


def dice(truth: IntArray, found: IntArray) -> float:
    """Agreement of nucleus against background, nuclei not told apart."""
    is_truth, is_found = truth > 0, found > 0
    total = np.count_nonzero(is_truth) + np.count_nonzero(is_found)
    return 2 * np.count_nonzero(is_truth & is_found) / total if total else 1.0


def aggregated_jaccard(overlaps: Overlaps) -> float:
    """AJI: every annotated nucleus takes the found one of best IoU, which may serve several."""
    # Rows come sorted by annotated nucleus; stable order keeps the first of equals.
    order = np.lexsort((-overlaps.iou, overlaps.truth_row))
    _, first = np.unique(overlaps.truth_row[order], return_index=True)
    return _aggregate(overlaps, order[first])


def aggregated_jaccard_plus(overlaps: Overlaps) -> float:
    """AJI+: pairs are one to one, chosen for the greatest sum of IoU."""
    shape = (len(overlaps.truth_area), len(overlaps.found_area))
    pair_at = np.full(shape, -1)
    pair_at[overlaps.truth_row, overlaps.found_row] = np.arange(len(overlaps.shared))
    iou = np.zeros(shape)
    iou[overlaps.truth_row, overlaps.found_row] = overlaps.iou
    chosen = pair_at[linear_sum_assignment(iou, maximize=True)]
    return _aggregate(overlaps, chosen[chosen >= 0])


def panoptic_quality(overlaps: Overlaps) -> PanopticQuality:
    """DQ, SQ and PQ; IoU above one half makes a match unique."""
    n_nuclei = len(overlaps.truth_area) + len(overlaps.found_area)
    if not n_nuclei:
        return PanopticQuality(1.0, 1.0)
    matched = overlaps.iou[overlaps.iou > MATCH_IOU]
    sq = float(matched.mean()) if len(matched) else 0.0
    return PanopticQuality(2 * len(matched) / n_nuclei, sq)


def detection_f1(truth_xy: FloatArray, found_xy: FloatArray, radius: float) -> float:
    """F1 of centroids (t, 2) and (f, 2), paired one to one within ``radius``."""
    n_points = len(truth_xy) + len(found_xy)
    if not n_points:
        return 1.0
    distance = cdist(truth_xy, found_xy)
    # As many pairs as possible within the radius, and among those the nearest.
    cost = np.where(distance <= radius, distance / max(radius, 1e-12), 4.0 * n_points)
    rows, columns = linear_sum_assignment(cost)
    return 2 * int(np.count_nonzero(distance[rows, columns] <= radius)) / n_points


def label_centroids(labels: IntArray) -> FloatArray:
    """Mean x, y of each label (n, 2), in the order of the labels."""
    rows_of, area = _to_rows(labels)
    y, x = np.nonzero(rows_of)
    row = rows_of[y, x] - 1
    sums = [np.bincount(row, weights=w, minlength=len(area)) for w in (x, y)]
    centroids: FloatArray = np.stack(sums, axis=1) / area[:, None]
    return centroids


def _aggregate(overlaps: Overlaps, chosen: IntArray) -> float:
    """Shared pixels of the ``chosen`` pairs over their union and all that was left alone."""
    lonely_truth = np.ones(len(overlaps.truth_area), bool)
    lonely_found = np.ones(len(overlaps.found_area), bool)
    lonely_truth[overlaps.truth_row[chosen]] = False
    lonely_found[overlaps.found_row[chosen]] = False
    union = (
        overlaps.union[chosen].sum()
        + overlaps.truth_area[lonely_truth].sum()
        + overlaps.found_area[lonely_found].sum()
    )
    return float(overlaps.shared[chosen].sum() / union) if union else 1.0


def _to_rows(labels: IntArray) -> tuple[IntArray, IntArray]:
    """Labels renumbered 1..n in their order, and the area (n,) of each."""
    area = np.bincount(labels.ravel(), minlength=1)
    area[0] = 0
    number = np.where(area > 0, np.cumsum(area > 0), 0)
    return number[labels], area[area > 0]
