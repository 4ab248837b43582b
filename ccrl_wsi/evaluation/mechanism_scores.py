"""NSC, NSCB and drop: whether a treatment's nearest neighbour is of the same mechanism.

*Not same compound* (Ljosa et al. 2013): each treatment takes the mechanism of the treatment that
is nearest by cosine distance among those of other compounds. *Not same compound or batch* (Ando
et al. 2017): among those of other compounds in other batches. *Drop* is NSC minus NSCB: how much
of the first was the batch.

A mechanism none of whose treatments has an allowed neighbour of its own mechanism is left out
altogether, as query and as neighbour: nobody could be right about it. Under NSC these are the
mechanisms of a single compound; under NSCB also those seen in a single batch (on BBBC021
cholesterol-lowering and kinase inhibitors: 92 of 103 treatments stay, as published).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from ccrl_wsi.arrays import BoolArray, FloatArray, IntArray
from ccrl_wsi.errors import EvaluationError

SameBatch = Literal["identical", "shared"]

TIE = 1e-9
"""Cosines that differ by less are the same: rounding must not decide."""


@dataclass(frozen=True, eq=False, slots=True)
class Matching:
    """Who was nearest to whom under one rule, for n treatments and k mechanisms.

    Parameters
    ----------
    mechanisms
        k names, sorted.
    truth
        (n,) index into ``mechanisms``.
    is_scored
        (n,) false for treatments of mechanisms left out, and for those without any neighbour.
    correct
        (n,) 1 if the nearest neighbour has the same mechanism, 0 if not; among neighbours that are
        equally near, the share that has. NaN where not scored.
    votes
        (n, k) shares of the nearest neighbours by mechanism; rows of scored treatments add up to 1.
    nearest
        (n,) row of a nearest neighbour, the first of them; -1 where there is none.
    left_out
        Mechanisms left out.
    """

    mechanisms: tuple[str, ...]
    truth: IntArray
    is_scored: BoolArray
    correct: FloatArray
    votes: FloatArray
    nearest: IntArray
    left_out: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of the scored treatments that are right; NaN without any."""
        return float(self.correct[self.is_scored].mean()) if self.is_scored.any() else float("nan")

    @property
    def n_scored(self) -> int:
        """Treatments that count."""
        return int(self.is_scored.sum())

    @property
    def n_correct(self) -> float:
        """Those that are right; a tie counts in part."""
        return float(self.correct[self.is_scored].sum())

    @property
    def confusion(self) -> FloatArray:
        """(k, k) treatments by true (row) and found (column) mechanism; rows left out are 0."""
        table = np.zeros((len(self.mechanisms),) * 2)
        np.add.at(table, self.truth[self.is_scored], self.votes[self.is_scored])
        return table

    def accuracy_by_mechanism(self) -> dict[str, float]:
        """Share that is right of each mechanism that was scored."""
        return {
            name: float(self.correct[mine].mean())
            for number, name in enumerate(self.mechanisms)
            if (mine := self.is_scored & (self.truth == number)).any()
        }


@dataclass(frozen=True, eq=False, slots=True)
class MechanismScores:
    """Both rules; ``nscb`` is None where batches are not known."""

    nsc: Matching
    nscb: Matching | None

    @property
    def drop(self) -> float:
        """NSC minus NSCB; NaN without NSCB. Each is over the treatments it scores, as published."""
        return self.nsc.accuracy - (self.nscb.accuracy if self.nscb else float("nan"))


def score_mechanisms(
    vectors: FloatArray,
    compound: Sequence[str],
    mechanism: Sequence[str],
    batch: Sequence[str] | None,
    same_batch: SameBatch = "identical",
) -> MechanismScores:
    """NSC and NSCB of treatments.

    Parameters
    ----------
    vectors
        (n, d) profiles of treatments, controls not among them.
    compound, mechanism
        n names.
    batch
        n names; several of one treatment with commas between. None: not known.
    same_batch
        ``identical``: two treatments share a batch if the names are equal, as published;
        ``shared``: if any of their batches is the same.

    Raises
    ------
    EvaluationError
        If a profile has no direction or is not finite, or no treatment could be right.
    """
    of_others = _differs(compound)
    cosine = cosine_similarity(vectors)
    nsc = match(cosine, of_others, mechanism)
    if not nsc.n_scored:
        raise EvaluationError(
            "No mechanism has treatments of two compounds, so no treatment can find its own. Give "
            "profiles of more compounds."
        )
    if batch is None:
        return MechanismScores(nsc, None)
    elsewhere = _differs(batch) if same_batch == "identical" else ~_overlap(batch)
    return MechanismScores(nsc, match(cosine, of_others & elsewhere, mechanism))


def cosine_similarity(vectors: FloatArray) -> FloatArray:
    """(n, n) cosines of the rows of ``vectors`` (n, d).

    Raises
    ------
    EvaluationError
        If a row is not finite or has no direction.
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(length[:, 0]) & (length[:, 0] > 0)))
    if len(bad):
        raise EvaluationError(
            f"{len(bad)} of {len(vectors)} profiles are all zero or not finite (the first is row "
            f"{bad[0]}): they have no direction to compare."
        )
    with threadpool_limits(1):
        cosine: FloatArray = (vectors / length) @ (vectors / length).T
    return cosine


def match(similarity: FloatArray, is_allowed: BoolArray, mechanism: Sequence[str]) -> Matching:
    """The mechanism each treatment takes from its nearest allowed neighbours.

    Parameters
    ----------
    similarity
        (n, n), larger is nearer.
    is_allowed
        (n, n) symmetric, whether a treatment (row) may take the mechanism of another (column).
    mechanism
        n names.
    """
    mechanisms = tuple(sorted({*mechanism}))
    truth = np.array([mechanisms.index(name) for name in mechanism], np.int64)
    can_be_right = (is_allowed & (truth[:, None] == truth)).any(axis=1)
    possible = np.isin(truth, truth[can_be_right])
    allowed = is_allowed & possible[:, None] & possible
    is_scored = np.asarray(allowed.any(axis=1))
    open_to = np.where(allowed, similarity, -np.inf)
    best = open_to.max(axis=1, initial=-np.inf)
    is_nearest = allowed & (open_to >= (best - TIE)[:, None])
    member = np.eye(len(mechanisms))[truth]
    votes = is_nearest @ member / np.maximum(is_nearest.sum(axis=1), 1)[:, None]
    correct = np.where(is_scored, votes[np.arange(len(truth)), truth], np.nan)
    # Not argmax of the similarity: the first of those that are equally near.
    nearest = np.where(is_scored, is_nearest.argmax(axis=1), -1)
    left_out = tuple(mechanisms[number] for number in np.unique(truth[~possible]))
    return Matching(mechanisms, truth, is_scored, correct, votes, nearest, left_out)


def _differs(names: Sequence[str]) -> BoolArray:
    _, number = np.unique(np.asarray(names), return_inverse=True)
    differs: BoolArray = number[:, None] != number
    return differs


def _overlap(batch: Sequence[str]) -> BoolArray:
    sets = [frozenset(names.split(",")) for names in batch]
    return np.array([[bool(a & b) for b in sets] for a in sets], bool)
