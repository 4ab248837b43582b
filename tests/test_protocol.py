"""The paper's protocol: what is fitted on what, how often, and with which labels left unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ccrl_wsi.errors import EvaluationError
from ccrl_wsi.evaluation import protocol
from ccrl_wsi.evaluation.clustering_scores import score_clusters
from ccrl_wsi.evaluation.protocol import (
    CLUSTERING_METRICS,
    Embeddings,
    KMeansSettings,
    halves_by_source,
    judge,
    labelled,
)
from tests.drawn_crops import coloured_crops


class ByFunction:
    """An embedder and encoder in one: vectors as a function tells, and a record of its calls."""

    name = "by_function"
    n_dimensions = 2
    fingerprint = "f"

    def __init__(self, function, *, standardise=False):
        self.function, self.standardise = function, standardise
        self.fitted_on, self.n_calls = [], 0

    def fit(self, crops):
        self.fitted_on.append(crops)
        return self

    def __call__(self, crops, measurements):
        self.n_calls += 1
        return self.function(crops, measurements).astype(np.float32)


def mean_colour(crops, measurements):
    return crops.mean(axis=(1, 2))


@pytest.fixture
def train():
    return coloured_crops(90, seed=1)


@pytest.fixture
def test_cells():
    return coloured_crops(60, seed=2)


K3 = KMeansSettings(3, n_seeds=3, n_init=2)


def scores_of(judged):
    return [r.scores for r in judged.repetitions]


def test_classes_that_lie_apart_are_found_in_every_reading(train, test_cells):
    embeddings = Embeddings(ByFunction(mean_colour))
    for reading, fit in (("fitted_on_test", test_cells), ("fitted_on_train", train)):
        judged = judge(embeddings, reading, fit, test_cells, K3)
        assert [judged.mean(m) for m in CLUSTERING_METRICS] == [pytest.approx(1)] * 4
        assert [judged.sd(m) for m in CLUSTERING_METRICS] == [pytest.approx(0)] * 4
        assert (judged.n_fit, judged.n_scored) == (len(fit), 60)


def test_the_centres_of_a_reading_come_from_what_it_is_fitted_on():
    # Training cells at 0 and 10; test cells at 0, 1 (class 0 and 1) near the first of them.
    def line(crops, measurements):
        return measurements[:, :1]

    def cells(values):
        crops = coloured_crops(len(values), n_classes=2)
        return replace(
            crops,
            measurements=np.repeat(values, crops.measurements.shape[1])
            .reshape(len(values), -1)
            .astype(np.float32),
        )

    fit, scored = cells([0.0, 10.0] * 10), cells([0.0, 1.0] * 10)
    two = KMeansSettings(2, n_seeds=1, n_init=1)
    embeddings = Embeddings(ByFunction(line))
    assert judge(embeddings, "fitted_on_test", scored, scored, two).mean("ari") == 1
    on_train = judge(embeddings, "fitted_on_train", fit, scored, two)
    assert on_train.mean("ari") == 0
    assert np.unique(on_train.repetitions[0].cluster).tolist() == [0]
    assert on_train.repetitions[0].distance == pytest.approx(np.tile([0.0, 1.0], 10))


def test_scaling_is_fitted_on_what_k_means_is_fitted_on_and_only_if_asked(train, test_cells):
    plain = Embeddings(ByFunction(mean_colour))
    scaled = Embeddings(ByFunction(mean_colour, standardise=True))
    as_is = judge(plain, "fitted_on_train", train, test_cells, K3).vectors
    assert as_is == pytest.approx(mean_colour(test_cells.crops, None))
    fit, scored = (mean_colour(c.crops, None) for c in (train, test_cells))
    expected = (scored - fit.mean(axis=0)) / fit.std(axis=0)
    by_train = judge(scaled, "fitted_on_train", train, test_cells, K3).vectors
    assert by_train == pytest.approx(expected, abs=1e-4)
    by_test = judge(scaled, "fitted_on_test", test_cells, test_cells, K3).vectors
    assert by_test.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert by_test.std(axis=0) == pytest.approx(1, abs=1e-6)


def test_a_constant_dimension_does_not_divide_by_zero(test_cells):
    def with_constant(crops, measurements):
        return np.c_[mean_colour(crops, None), np.full(len(crops), 7.0)]

    embeddings = Embeddings(ByFunction(with_constant, standardise=True))
    assert judge(embeddings, "fitted_on_test", test_cells, test_cells, K3).mean("ari") == 1


def test_equal_seeds_give_equal_bits_and_other_seeds_other_starts():
    blurred = coloured_crops(80, noise=400.0)

    def run(seed):
        embeddings = Embeddings(ByFunction(mean_colour))
        settings = KMeansSettings(3, seed=seed, n_seeds=4, n_init=1)
        return judge(embeddings, "fitted_on_test", blurred, blurred, settings)

    first, again, other = run(0), run(0), run(1)
    for a, b in zip(first.repetitions, again.repetitions, strict=True):
        assert np.array_equal(a.cluster, b.cluster)
        assert np.array_equal(a.distance, b.distance)
    assert scores_of(first) != scores_of(other)
    assert len({r.scores for r in first.repetitions}) > 1
    assert first.sd("ari") == pytest.approx(np.std([s.ari for s in scores_of(first)], ddof=1))
    assert first.mean("ari") == pytest.approx(np.mean([s.ari for s in scores_of(first)]))
    assert first.tightest.inertia == min(r.inertia for r in first.repetitions)


def test_the_number_of_threads_changes_nothing():
    from threadpoolctl import threadpool_limits

    blurred = coloured_crops(300, noise=300.0)

    def run(n_threads):
        with threadpool_limits(n_threads):
            embeddings = Embeddings(ByFunction(lambda c, m: c.reshape(len(c), -1)))
            return judge(embeddings, "fitted_on_test", blurred, blurred, K3)

    one, two = run(1), run(2)
    for a, b in zip(one.repetitions, two.repetitions, strict=True):
        assert np.array_equal(a.distance, b.distance)


def test_one_repetition_has_no_spread(test_cells):
    single = KMeansSettings(3, n_seeds=1)
    judged = judge(
        Embeddings(ByFunction(mean_colour)), "fitted_on_test", test_cells, test_cells, single
    )
    assert np.isnan(judged.sd("ami"))


def test_clusters_are_numbered_by_size():
    many = coloured_crops(120)
    of_class = [np.flatnonzero(many.label == c) for c in range(3)]
    crops = many.where(np.concatenate([of_class[0][:10], of_class[1][:40], of_class[2][:25]]))
    judged = judge(Embeddings(ByFunction(mean_colour)), "fitted_on_test", crops, crops, K3)
    for repetition in judged.repetitions:
        assert np.bincount(repetition.cluster).tolist() == [40, 25, 10]
        assert repetition.scores == score_clusters(repetition.cluster, crops.label)


def test_every_embedding_is_computed_once(train, test_cells):
    encoder = ByFunction(mean_colour)
    embeddings = Embeddings(encoder)
    judge(embeddings, "fitted_on_test", test_cells, test_cells, K3)
    judge(embeddings, "fitted_on_train", train, test_cells, K3)
    judge(embeddings, "fitted_on_train", train, test_cells, K3)
    assert encoder.n_calls == 2
    assert [id(c) for c in encoder.fitted_on] == [id(test_cells), id(train)]


def test_labels_do_not_decide_the_clusters(test_cells):
    def clusters(crops):
        embeddings = Embeddings(ByFunction(mean_colour))
        return judge(embeddings, "fitted_on_test", crops, crops, K3).repetitions[0].cluster

    shuffled = replace(test_cells, label=np.random.default_rng(0).permutation(test_cells.label))
    assert np.array_equal(clusters(test_cells), clusters(shuffled))


def test_too_few_different_cells_are_told(test_cells):
    same = ByFunction(lambda crops, m: np.tile([[1.0, 2.0], [3.0, 4.0]], (len(crops) // 2, 1)))
    with pytest.raises(EvaluationError, match=r"2 different cells cannot make 3 clusters.*k=2"):
        judge(Embeddings(same), "fitted_on_test", test_cells, test_cells, K3)


def test_embeddings_that_are_not_finite_are_told(test_cells):
    broken = ByFunction(lambda crops, m: np.full((len(crops), 2), np.nan))
    with pytest.raises(EvaluationError, match="by_function are not finite"):
        judge(Embeddings(broken), "fitted_on_test", test_cells, test_cells, K3)


def test_cells_without_a_class_are_left_out(test_cells):
    label = test_cells.label.copy()
    label[:7] = -1
    kept = labelled(replace(test_cells, label=label), "test")
    assert len(kept) == 53
    assert np.array_equal(kept.crops, test_cells.crops[7:])


def test_sets_that_cannot_be_scored_are_told(test_cells):
    nothing = replace(test_cells, label=np.full(60, -1, np.int32))
    with pytest.raises(EvaluationError, match="None of the 60 test cells has a class"):
        labelled(nothing, "test")
    one = replace(test_cells, label=np.full(60, 1, np.int32))
    with pytest.raises(EvaluationError, match=r"one class \(class_1\)"):
        labelled(one, "training")


def test_halves_share_no_image_and_lose_no_cell(train):
    a, b = halves_by_source(train, 0)
    assert not set(a.source.tolist()) & set(b.source.tolist())
    assert len(a) + len(b) == len(train)
    assert len(set(a.source.tolist())) == 2
    again, _ = halves_by_source(train, 0)
    assert np.array_equal(a.crops, again.crops)
    with pytest.raises(EvaluationError, match="one image"):
        halves_by_source(coloured_crops(9, n_sources=1), 0)


def test_the_defaults_are_the_papers():
    settings = KMeansSettings(4)
    assert (settings.n_init, settings.max_iter) == (10, 300)
    assert settings.n_seeds >= 5
    assert protocol.CLUSTERING_METRICS == ("ami", "ari", "purity", "hungarian_accuracy")
