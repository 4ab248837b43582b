"""What a classifier that is given labels makes of an embedding. Extras, not scores of clustering.

Both learn from the labels of the training cells, so they say what an embedding holds, not what
k-means finds in it. Neither may choose a checkpoint: that would be learning from the test labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.errors import EvaluationError

MAX_ITER = 2000
"""Steps of the logistic regression at most; a few hundred are usual."""


@dataclass(frozen=True, slots=True)
class ProbeScores:
    """Shares of test cells classified rightly, by a classifier that saw the training labels.

    Parameters
    ----------
    nearest_accuracy, nearest_balanced_accuracy
        The class of the nearest training cell (1-NN, Euclidean).
    linear_accuracy, linear_balanced_accuracy
        Logistic regression (L2, C = 1) on standardised dimensions. Balanced: mean over classes.
    n_fit, n_scored
        Training and test cells.
    """

    nearest_accuracy: float
    nearest_balanced_accuracy: float
    linear_accuracy: float
    linear_balanced_accuracy: float
    n_fit: int
    n_scored: int


@dataclass(frozen=True, eq=False, slots=True)
class LabelledVectors:
    """Embeddings (n, d) and the class (n,) of each."""

    vectors: FloatArray
    label: IntArray


def probe(fit: LabelledVectors, scored: LabelledVectors, *, standardise: bool) -> ProbeScores:
    """Train on ``fit``, score on ``scored``.

    Parameters
    ----------
    standardise
        Whether 1-NN, too, scales the dimensions: as the encoder asks.

    Raises
    ------
    EvaluationError
        If the training cells have fewer than two classes.
    """
    if len(np.unique(fit.label)) < 2:
        raise EvaluationError(
            "The cells to learn the probes from are all of one class. Switch them off with "
            "--set probes=false, or give other training images."
        )
    scaler = StandardScaler().fit(fit.vectors.astype(np.float64))
    scaled = [scaler.transform(v.vectors.astype(np.float64)) for v in (fit, scored)]
    near = scaled if standardise else [fit.vectors, scored.vectors]
    nearest = KNeighborsClassifier(1, algorithm="brute")
    # Random state: none is used by lbfgs. One thread: sums come in the same order everywhere.
    linear = LogisticRegression(max_iter=MAX_ITER)
    with threadpool_limits(1):
        by_nearest = nearest.fit(near[0], fit.label).predict(near[1])
        by_linear = linear.fit(scaled[0], fit.label).predict(scaled[1])
    return ProbeScores(
        nearest_accuracy=float((by_nearest == scored.label).mean()),
        nearest_balanced_accuracy=balanced_accuracy(scored.label, by_nearest),
        linear_accuracy=float((by_linear == scored.label).mean()),
        linear_balanced_accuracy=balanced_accuracy(scored.label, by_linear),
        n_fit=len(fit.label),
        n_scored=len(scored.label),
    )


def balanced_accuracy(label: IntArray, guess: IntArray) -> float:
    """Mean, over the classes that occur in ``label`` (n,), of the share guessed rightly."""
    return float(np.mean([(guess[label == c] == c).mean() for c in np.unique(label)]))
