from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ccrl_wsi.evaluation.segmentation_scores import (
    aggregated_jaccard,
    aggregated_jaccard_plus,
    count_overlaps,
    counts_and_areas,
    detection_f1,
    dice,
    label_centroids,
    panoptic_quality,
    score_segmentation,
    together,
)

LABELS = hnp.arrays(np.int32, (6, 7), elements=st.sampled_from([0, 0, 1, 2, 5, 9]))


@settings(deadline=None, max_examples=60)
@given(LABELS, LABELS)
def test_all_scores_agree_with_slow_twins(truth, found):
    overlaps = count_overlaps(truth, found)
    assert dice(truth, found) == pytest.approx(slow_dice(truth, found))
    assert aggregated_jaccard(overlaps) == pytest.approx(slow_aji(truth, found))
    assert panoptic_quality(overlaps).pq == pytest.approx(slow_pq(truth, found))
    assert aggregated_jaccard_plus(overlaps) <= 1 + 1e-12


@settings(deadline=None, max_examples=40)
@given(LABELS, LABELS)
def test_aji_plus_is_one_of_the_best_pairings(truth, found):
    plus = aggregated_jaccard_plus(count_overlaps(truth, found))
    assert any(plus == pytest.approx(value) for value in best_pairings(truth, found))


@settings(deadline=None, max_examples=30)
@given(LABELS)
def test_the_truth_scores_one_whatever_its_numbers(truth):
    renamed = np.where(truth > 0, 20 - truth, 0)
    scores = score_segmentation(truth, renamed, 0.25)
    assert scores.dice == scores.aji == scores.aji_plus == scores.pq == 1
    assert scores.detection_f1 == 1


def test_nothing_found_scores_zero_and_nothing_to_find_one():
    empty, one = np.zeros((5, 5), np.int32), np.zeros((5, 5), np.int32)
    one[1:3, 1:3] = 7
    for truth, found in ((one, empty), (empty, one)):
        scores = score_segmentation(truth, found, 0.25)
        assert scores.dice == scores.aji == scores.aji_plus == scores.pq == scores.detection_f1 == 0
    assert score_segmentation(empty, empty, 0.25).pq == 1


def test_known_values_of_a_half_covered_nucleus():
    truth, found = np.zeros((4, 10), np.int32), np.zeros((4, 10), np.int32)
    truth[:, :6] = 1
    found[:, 2:8] = 1
    scores = score_segmentation(truth, found, 0.25)
    assert scores.dice == pytest.approx(2 / 3)
    assert scores.aji == pytest.approx(0.5)
    assert scores.pq == 0  # IoU must exceed one half
    found[:, 2] = 0
    found[:, 7] = 0
    scores = score_segmentation(truth, found, 0.25)
    assert scores.aji == pytest.approx(3 / 7)


def test_a_split_nucleus_costs_the_second_piece():
    truth, found = np.ones((1, 10), np.int32), np.ones((1, 10), np.int32)
    found[:, 6:] = 2
    scores = score_segmentation(truth, found, 0.25)
    assert scores.dice == 1
    assert scores.aji == pytest.approx(6 / 14)
    assert scores.dq == pytest.approx(2 / 3)
    assert scores.sq == pytest.approx(0.6)


def test_a_found_nucleus_over_two_true_ones_counts_twice_in_aji_and_once_in_aji_plus():
    truth, found = np.ones((1, 10), np.int32), np.ones((1, 10), np.int32)
    truth[:, 5:] = 2
    overlaps = count_overlaps(truth, found)
    assert aggregated_jaccard(overlaps) == pytest.approx(10 / 20)
    assert aggregated_jaccard_plus(overlaps) == pytest.approx(5 / 15)


def test_detections_pair_one_to_one_within_the_radius():
    truth = np.array([[0.0, 0.0], [10.0, 0.0], [50.0, 0.0]])
    found = np.array([[6.0, 0.0], [-6.0, 0.0], [80.0, 0.0]])
    # The nearest pair (10 with 6) leaves -6 to 0: two matches of three.
    assert detection_f1(truth, found, 8.0) == pytest.approx(2 / 3)
    assert detection_f1(truth, found, 5.0) == pytest.approx(1 / 3)


def test_as_many_detections_as_possible_are_paired():
    truth = np.array([[0.0, 0.0], [4.0, 0.0]])
    found = np.array([[3.0, 0.0], [9.0, 0.0]])
    assert detection_f1(truth, found, 5.0) == 1


def test_centroids_follow_the_labels_order():
    labels = np.zeros((4, 6), np.int32)
    labels[0, 1:4] = 8
    labels[2:4, 5] = 3
    assert label_centroids(labels) == pytest.approx(np.array([[5, 2.5], [2, 0]]))


def pairs(truth, found):
    for t in np.unique(truth[truth > 0]):
        for f in np.unique(found[found > 0]):
            a, b = truth == t, found == f
            yield t, f, (a & b).sum(), (a | b).sum()


def slow_dice(truth, found):
    total = (truth > 0).sum() + (found > 0).sum()
    return 2 * ((truth > 0) & (found > 0)).sum() / total if total else 1


def slow_aji(truth, found):
    shared = union = 0
    used = set()
    for t in np.unique(truth[truth > 0]):
        best = max(
            (p for p in pairs(truth, found) if p[0] == t), key=lambda p: p[2] / p[3], default=None
        )
        if best is None or best[2] == 0:
            union += (truth == t).sum()
            continue
        shared, union = shared + best[2], union + best[3]
        used.add(best[1])
    union += sum((found == f).sum() for f in np.unique(found[found > 0]) if f not in used)
    return shared / union if union else 1


def slow_pq(truth, found):
    ious = [s / u for _, _, s, u in pairs(truth, found) if s / u > 0.5]
    n = len(np.unique(truth[truth > 0])) + len(np.unique(found[found > 0]))
    return sum(ious) / (n / 2) if n else 1


def best_pairings(truth, found):
    """AJI+ of every one-to-one pairing whose sum of IoU is the greatest."""
    ts, fs = np.unique(truth[truth > 0]), np.unique(found[found > 0])
    table = {(t, f): (s, u) for t, f, s, u in pairs(truth, found)}
    padded = [*fs, *[None] * len(ts)]
    options = []
    for order in set(permutations(padded, len(ts))):
        chosen = [(t, f) for t, f in zip(ts, order, strict=True) if table.get((t, f), (0, 1))[0]]
        total = sum(table[p][0] / table[p][1] for p in chosen)
        union = sum(table[p][1] for p in chosen)
        union += sum((truth == t).sum() for t in ts if t not in {p[0] for p in chosen})
        union += sum((found == f).sum() for f in fs if f not in {p[1] for p in chosen})
        shared = sum(table[p][0] for p in chosen)
        options.append((total, shared / union if union else 1.0))
    top = max(total for total, _ in options)
    return [value for total, value in options if total > top - 1e-9]


def test_counts_and_areas_of_two_images():
    truth, found = np.zeros((20, 20), int), np.zeros((20, 20), int)
    truth[2:6, 2:6], truth[10:14, 2:6], truth[10:14, 10:14] = 1, 2, 3
    found[2:6, 2:7], found[10:13, 2:6], found[0:1, 18:20], found[18:, :2] = 1, 2, 3, 4
    one = counts_and_areas(truth, found)
    assert (one.n_matched, one.precision, one.recall) == (2, 2 / 4, 2 / 3)
    assert one.count_ratio == 4 / 3
    assert sorted(one.pair_ratio) == [12 / 16, 20 / 16]
    assert one.area_ratio_of_pairs == 1
    assert one.median_area_ratio == np.median([20, 12, 2, 4]) / 16
    other = counts_and_areas(truth, truth * (truth == 1))
    both = together([one, other])
    assert both.count_ratio == 5 / 6
    assert both.count_ratio_of_images.tolist() == [4 / 3, 1 / 3]
    assert (both.precision, both.recall) == (3 / 5, 3 / 6)
    assert both.area_ratio_of_pairs == 1


def test_counts_and_areas_of_nothing():
    nothing = counts_and_areas(np.zeros((4, 4), int), np.zeros((4, 4), int))
    assert nothing.count_ratio == nothing.precision == nothing.recall == 0
    assert np.isnan(nothing.area_ratio_of_pairs)
    assert np.isnan(nothing.median_area_ratio)
    assert not len(nothing.count_ratio_of_images)


@settings(deadline=None, max_examples=40)
@given(LABELS, LABELS)
def test_precision_and_recall_make_the_detection_quality(truth, found):
    one = counts_and_areas(truth, found)
    total = one.precision + one.recall
    f1 = 2 * one.precision * one.recall / total if total else 0.0
    if truth.any() or found.any():
        assert f1 == pytest.approx(panoptic_quality(count_overlaps(truth, found)).dq)
