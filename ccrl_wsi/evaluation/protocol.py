"""The evaluation of the CCRL paper: k-means with one cluster a class, scored on the test cells.

The paper says "on the test set" and no more; the code of its authors' next work (VOLTA) computes
two readings at every validation, and both are given here: k-means fitted on the test cells
themselves, and k-means fitted on the training cells and applied to the test cells. k-means is
scikit-learn's with k-means++ starts (Arthur and Vassilvitskii 2007), as in VOLTA. Labels are looked
at only after the clusters are there.

A third reading never sees a test cell: fitted and scored on the training cells, to choose settings.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, Protocol

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.crop_set import UNLABELLED, CropSet
from ccrl_wsi.errors import EvaluationError
from ccrl_wsi.evaluation.clustering_scores import ClusteringScores, score_clusters
from ccrl_wsi.interfaces import Encoder
from ccrl_wsi.seeding import rng_for

Reading = Literal["fitted_on_test", "fitted_on_train", "train_only"]
CLUSTERING_METRICS = tuple(field.name for field in fields(ClusteringScores))


class Embedder(Protocol):
    """What is judged: an encoder, or something that must look at cells before it is one."""

    def fit(self, crops: CropSet) -> Encoder:
        """The encoder, having seen the crops and never the labels of ``crops``.

        Encoders that were trained elsewhere return themselves.
        """
        ...


@dataclass(frozen=True, slots=True)
class KMeansSettings:
    """How cells are clustered, and how often.

    Parameters
    ----------
    k
        Clusters; the paper's is the number of classes.
    n_seeds
        Repetitions with other starts, for mean and standard deviation.
    n_init, max_iter
        Starts of one repetition, of which the tightest is kept, and steps of a start.
    """

    k: int
    seed: int = 0
    n_seeds: int = 5
    n_init: int = 10
    max_iter: int = 300


@dataclass(frozen=True, eq=False, slots=True)
class Repetition:
    """One k-means.

    Parameters
    ----------
    cluster, distance
        (n,) of the scored cells: number, largest cluster first, and distance to the centre.
    inertia
        Mean squared distance of the cells it was fitted on to their centres.
    """

    scores: ClusteringScores
    cluster: IntArray
    distance: FloatArray
    inertia: float


@dataclass(frozen=True, eq=False, slots=True)
class Judged:
    """An encoder in one reading.

    Parameters
    ----------
    vectors
        (n_scored, d) float32 embeddings of the scored cells, as k-means saw them.
    seconds
        For embedding (unless another reading had done it) and clustering.
    """

    reading: Reading
    fingerprint: str
    k: int
    n_fit: int
    n_scored: int
    repetitions: tuple[Repetition, ...]
    vectors: FloatArray
    seconds: float

    def mean(self, metric: str) -> float:
        """Mean of one of ``CLUSTERING_METRICS`` over the repetitions."""
        return float(np.mean(self._values(metric)))

    def sd(self, metric: str) -> float:
        """Sample standard deviation over the repetitions; not a number if there is only one."""
        values = self._values(metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    @property
    def tightest(self) -> Repetition:
        """The repetition of least inertia: chosen without labels, to be shown in pictures."""
        return min(self.repetitions, key=lambda repetition: repetition.inertia)

    def _values(self, metric: str) -> list[float]:
        return [float(getattr(r.scores, metric)) for r in self.repetitions]


class Embeddings:
    """What one embedder makes of crop sets; every fit and every embedding is computed once."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        # By identity; sets and encoders are kept, for an id is unique only while its object lives.
        self._encoders: dict[int, tuple[Encoder, CropSet]] = {}
        self._vectors: dict[tuple[int, int], tuple[FloatArray, CropSet]] = {}

    def encoder(self, fitted_on: CropSet) -> Encoder:
        """The encoder, fitted on these crops if it must be fitted."""
        if id(fitted_on) not in self._encoders:
            self._encoders[id(fitted_on)] = self._embedder.fit(fitted_on), fitted_on
        return self._encoders[id(fitted_on)][0]

    def of(self, crops: CropSet, fitted_on: CropSet) -> FloatArray:
        """(n, d) float32 embeddings of ``crops``.

        Raises
        ------
        EvaluationError
            If the encoder gives values that are not finite.
        """
        encoder = self.encoder(fitted_on)
        key = id(crops), id(encoder)
        if key not in self._vectors:
            vectors = encoder(crops.crops, crops.measurements)
            if not np.isfinite(vectors).all():
                raise EvaluationError(
                    f"Some embeddings of {encoder.name} are not finite: the encoder is broken, or "
                    "it met pixels or measurements unlike any it was made for. Check its weights."
                )
            self._vectors[key] = vectors, crops
        return self._vectors[key][0]


def labelled(crops: CropSet, what: str) -> CropSet:
    """The crops of ``crops`` that have a label; those without are left out, as the paper does.

    Raises
    ------
    EvaluationError
        If none has a label, or all have the same; ``what`` says which crops they are.
    """
    found = crops.where(crops.label != UNLABELLED)
    if not len(found):
        raise EvaluationError(
            f"None of the {len(crops)} {what} cells has a class, so clusters cannot be compared "
            "with classes. Give a data set with classes (consep, nucls, label_maps with types)."
        )
    if len(np.unique(found.label)) < 2:
        name = found.class_names[found.label[0]]
        raise EvaluationError(
            f"All {len(found)} {what} cells are of one class ({name}): any clustering would be "
            "right. Give images with more classes."
        )
    return found


def judge(
    embeddings: Embeddings,
    reading: Reading,
    fit_crops: CropSet,
    scored_crops: CropSet,
    settings: KMeansSettings,
) -> Judged:
    """Cluster the embeddings of ``fit_crops`` and score the clusters of ``scored_crops``.

    The embedder is fitted on what k-means is fitted on, and so is the scaling of the dimensions,
    where the encoder asks for it. Equal calls give equal bits on one kind of machine.

    Raises
    ------
    EvaluationError
        If there are fewer different cells than clusters, or embeddings are not finite.
    """
    began = time.perf_counter()
    encoder = embeddings.encoder(fit_crops)
    fit, scored = (embeddings.of(crops, fit_crops) for crops in (fit_crops, scored_crops))
    mean, std = _scaling(fit, encoder.standardise)
    fit, scored = _scaled(fit, mean, std), _scaled(scored, mean, std)
    n_different = len(np.unique(fit, axis=0))
    if n_different < settings.k:
        raise EvaluationError(
            f"{encoder.name}: {n_different} different cells cannot make {settings.k} clusters. "
            f"Give more images, or lower k (--set k={max(2, n_different)})."
        )
    repetitions = tuple(
        _cluster(fit, scored, scored_crops.label, settings, number)
        for number in range(settings.n_seeds)
    )
    return Judged(
        reading=reading,
        fingerprint=encoder.fingerprint,
        k=settings.k,
        n_fit=len(fit),
        n_scored=len(scored),
        repetitions=repetitions,
        vectors=scored.astype(np.float32),
        seconds=time.perf_counter() - began,
    )


def halves_by_source(crops: CropSet, seed: int) -> tuple[CropSet, CropSet]:
    """Two halves of ``crops`` that share no image, drawn by ``seed``: to learn from, to judge on.

    Raises
    ------
    EvaluationError
        If all crops come from one image.
    """
    sources: Sequence[int] = np.unique(crops.source).tolist()
    if len(sources) < 2:
        raise EvaluationError(
            "The training cells come from one image and cannot be split for the probes. Switch "
            "them off with --set probes=false, or give more images."
        )
    order = rng_for(seed, "probe halves").permutation(sources)
    first = np.isin(crops.source, order[: len(order) // 2])
    return crops.where(first), crops.where(~first)


def _cluster(
    fit: FloatArray,
    scored: FloatArray,
    label: IntArray,
    settings: KMeansSettings,
    number: int,
) -> Repetition:
    state = int(rng_for(settings.seed, "k-means", str(number)).integers(2**31))
    model = KMeans(
        settings.k,
        init="k-means++",
        n_init=settings.n_init,
        max_iter=settings.max_iter,
        algorithm="lloyd",
        random_state=state,
    )
    # Threads add up in the order they finish: the last bits would differ from run to run.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(fit)
        distances = model.transform(scored)
    # Numbered by size among the cells that were fitted, so that pictures agree between repetitions.
    order = np.argsort(-np.bincount(model.labels_, minlength=settings.k), kind="stable")
    distances = distances[:, order]
    cluster = distances.argmin(axis=1)
    return Repetition(
        scores=score_clusters(cluster, label),
        cluster=cluster,
        distance=distances.min(axis=1).astype(np.float32),
        inertia=float(model.inertia_ / len(fit)),
    )


def _scaling(vectors: FloatArray, standardise: bool) -> tuple[FloatArray, FloatArray]:
    d = vectors.shape[1]
    if not standardise:
        return np.zeros(d), np.ones(d)
    mean, std = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
    # A constant dimension tells nothing; leave it unscaled rather than divide by zero.
    return mean, np.where(std > 1e-12, std, 1.0)


def _scaled(vectors: FloatArray, mean: FloatArray, std: FloatArray) -> FloatArray:
    scaled: FloatArray = (vectors.astype(np.float64) - mean) / std
    return scaled
