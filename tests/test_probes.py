"""Probes that learn from labels, against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.errors import EvaluationError
from ccrl_wsi.evaluation.probes import LabelledVectors, balanced_accuracy, probe


def line(values, label):
    return LabelledVectors(np.array(values, np.float32)[:, None], np.array(label))


def test_the_nearest_training_cell_decides():
    fit = line([0, 1, 10, 11, 5.4], [0, 0, 1, 1, 0])
    scored = line([0.2, 10.2, 5.5, 9.0], [0, 1, 1, 1])
    found = probe(fit, scored, standardise=False)
    assert found.nearest_accuracy == 3 / 4
    assert found.nearest_balanced_accuracy == pytest.approx((1 + 2 / 3) / 2)
    assert (found.n_fit, found.n_scored) == (5, 4)


def test_classes_on_two_sides_of_a_plane_are_told_apart():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 5)) * [1, 100, 1, 0.01, 1]
    label = (points[:, 3] > 0).astype(int)
    fit = LabelledVectors(points[:300], label[:300])
    scored = LabelledVectors(points[300:], label[300:])
    found = probe(fit, scored, standardise=False)
    # The dimension that decides is the smallest: only who scales it sees it.
    assert found.linear_accuracy > 0.95
    assert found.nearest_accuracy < 0.7
    assert probe(fit, scored, standardise=True).nearest_accuracy > 0.7


def test_balanced_accuracy_counts_every_class_alike():
    label = np.array([0] * 90 + [1] * 10)
    assert balanced_accuracy(label, np.zeros(100, int)) == 0.5
    assert balanced_accuracy(label, label) == 1
    assert balanced_accuracy(np.array([0, 0]), np.array([0, 2])) == 0.5


def test_probes_are_the_same_again():
    rng = np.random.default_rng(1)
    fit = LabelledVectors(rng.normal(size=(200, 8)), rng.integers(0, 3, 200))
    scored = LabelledVectors(rng.normal(size=(100, 8)), rng.integers(0, 3, 100))
    assert probe(fit, scored, standardise=True) == probe(fit, scored, standardise=True)


def test_one_class_teaches_nothing():
    with pytest.raises(EvaluationError, match="all of one class"):
        probe(line([0, 1], [1, 1]), line([0, 1], [0, 1]), standardise=False)
