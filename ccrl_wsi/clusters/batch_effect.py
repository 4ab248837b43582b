"""Whether clusters or embeddings tell where a slide comes from rather than what is on it.

A classifier is asked to tell the scanner or the site of slides it has not seen. What it gets right
beyond chance is a batch effect (or real differences between the sites' patients).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial, prod
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ccrl_wsi.arrays import AnyArray, FloatArray, IntArray
from ccrl_wsi.cohort_records import LEVEL
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.wording import counted

MOST_ROWS = 1500
"""Rows that are learnt from; more are drawn down to this, groups alike."""

MOST_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Predictability:
    """How well the site of unseen slides is told.

    Parameters
    ----------
    balanced_accuracy
        Mean over sites of the share told right, from cross-validation that never splits a slide;
        NaN where it cannot be asked.
    chance
        What guessing gives: 1 / number of sites.
    p_value
        Share of the ways to deal slides to sites that are told as well, with the true one counted:
        of all ways where these are few, else of random ones; NaN where it cannot be asked.
    smallest_p
        What ``p_value`` is if no other way is told as well; NaN where it cannot be asked.
    n_slides, n_sites
        What took part.
    note
        What a reader must know: why there is no answer, or what was left out; else empty.
    """

    balanced_accuracy: float
    chance: float
    p_value: float
    smallest_p: float
    n_slides: int
    n_sites: int
    note: str

    @property
    def can_be_significant(self) -> bool:
        """Whether the clearest difference there is could be told from chance."""
        return self.smallest_p <= LEVEL


def predictability(
    values: FloatArray,
    site: Sequence[str | None],
    groups: Sequence[str] | None,
    seed: int,
    n_permutations: int = 99,
    unit: str = "slide",
) -> Predictability:
    """Tell the site from ``values`` by logistic regression, on slides held out.

    Parameters
    ----------
    values
        (n, d): one row a slide (composition), or one a cell (embeddings).
    site
        (n,) scanner or site; None or empty where it is not known: such rows are left out, and so
        are sites of a single slide, which cannot be learnt from one and asked of another.
    groups
        (n,) slide, or patient, of each row; None: each row is its own. All of its rows with a
        known site have the same.
    n_permutations
        If, with the true one, there are no more ways to deal slides to sites, all are looked at;
        else so many random ones.
    unit
        What ``groups`` are called in sentences.
    """
    known = np.array([bool(name) for name in site], np.bool_)
    names = np.array([str(name) for name in site], object)
    slides = np.arange(len(names)).astype(str) if groups is None else np.array(groups, object)
    keep, left_out = _usable(names, slides, known, unit)
    n_sites, n_slides = len(set(names[keep])), len(set(slides[keep]))
    chance = 1 / n_sites if n_sites else float("nan")
    if n_sites < 2:
        nothing = f"At least two sites with two {unit}s each are needed to tell sites from {unit}s."
        note = " ".join(part for part in (nothing, left_out) if part)
        unknown = float("nan")
        return Predictability(unknown, chance, unknown, unknown, n_slides, n_sites, note)
    rows = _draw(np.flatnonzero(keep), slides, rng_for(seed, "batch effect rows"))
    _, first, group = np.unique(slides[rows].astype(str), return_index=True, return_inverse=True)
    of_slide = _in_order(names[rows][first])
    x = values[rows].astype(np.float64)
    score = _score(x, of_slide[group], group, seed)
    ways = ways_to_deal(np.bincount(of_slide).tolist())
    p_value = _permuted(x, (of_slide, group), score, seed, n_permutations)
    smallest_p = 1 / min(ways, n_permutations + 1)
    few = _few(n_slides, n_sites, 1 / ways, unit)
    note = " ".join(part for part in (left_out, few) if part)
    return Predictability(score, chance, p_value, smallest_p, n_slides, n_sites, note)


def ways_to_deal(sizes: Sequence[int]) -> int:
    """In how many ways slides can be parted into sites of ``sizes``.

    Sites of one size may change their names: what is told right stays the same.
    """
    dealt = factorial(sum(sizes)) // prod(factorial(size) for size in sizes)
    return dealt // prod(factorial(n) for n in Counter(sizes).values())


def _few(n_slides: int, n_sites: int, smallest_p: float, unit: str) -> str:
    """What a reader must know where there are few slides; else empty."""
    if smallest_p > LEVEL:
        return f"Too few {unit}s to tell: even the clearest difference has p = {smallest_p:.2f}."
    return f"Few {unit}s: only a large effect could show." if n_slides < 4 * n_sites else ""


def _usable(names: AnyArray, slides: AnyArray, known: AnyArray, unit: str) -> tuple[AnyArray, str]:
    """Rows whose site has two slides at least, and a sentence about the others."""
    slides_of: dict[str, set[str]] = {}
    for name, slide in zip(names[known], slides[known], strict=True):
        slides_of.setdefault(name, set()).add(slide)
    alone = {name for name, members in slides_of.items() if len(members) < 2}
    keep = known & np.array([name not in alone for name in names], np.bool_)
    n_unknown = len(set(slides[~known]) - set(slides[known]))
    said = [_left_out(n_unknown, unit, "without a site")] if n_unknown else []
    said += [_left_out(len(alone), "site", f"with one {unit}")] if alone else []
    return keep, " ".join(said)


def _left_out(n: int, thing: str, which: str) -> str:
    return f"{counted(n, thing)} {which} {'is' if n == 1 else 'are'} left out."


def _draw(rows: IntArray, slides: AnyArray, rng: np.random.Generator) -> IntArray:
    if len(rows) <= MOST_ROWS:
        return rows
    members = {slide: rows[slides[rows] == slide] for slide in sorted(set(slides[rows]))}
    share = max(1, MOST_ROWS // len(members))
    drawn = [rng.choice(own, min(share, len(own)), replace=False) for own in members.values()]
    return np.sort(np.concatenate(drawn))


def _score(x: FloatArray, label: IntArray, group: IntArray, seed: int) -> float:
    told = np.full(len(label), -1)
    for train, test in _folds(label, group, seed):
        told[test] = _classifier().fit(x[train], label[train]).predict(x[test])
    asked = told >= 0
    return float(balanced_accuracy_score(label[asked], told[asked]))


def _folds(label: IntArray, group: IntArray, seed: int) -> list[tuple[IntArray, IntArray]]:
    """Whole slides are held out. A site of two slides allows two folds, and so on."""
    n_slides = [len(set(group[label == site])) for site in range(int(label.max()) + 1)]
    n_folds = min(MOST_FOLDS, *n_slides)
    state = int(rng_for(seed, "batch effect folds").integers(2**31))
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=state)
    parts = list(folds.split(np.zeros(len(label)), label, group))
    # Few slides of very unequal size can leave a fold without anything to learn from.
    return [(train, test) for train, test in parts if len(set(label[train])) > 1 and len(test)]


def _classifier() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))


def _permuted(
    x: FloatArray, truth: tuple[IntArray, IntArray], score: float, seed: int, n: int
) -> float:
    of_slide, group = truth
    sizes = np.bincount(of_slide).tolist()
    others: Iterable[IntArray]
    if ways_to_deal(sizes) <= n + 1:
        others = [way for way in _all_ways(sizes) if (way != of_slide).any()]
    else:
        rng = rng_for(seed, "batch effect permutations")
        others = (_in_order(rng.permutation(of_slide)) for _ in range(n))
    n_as_good, n_looked_at = 1, 1
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        for way in others:
            n_as_good += _score(x, way[group], group, seed) >= score
            n_looked_at += 1
    return n_as_good / n_looked_at


def _in_order(names: AnyArray) -> IntArray:
    """Numbers of ``names`` by first appearance: sites that only change names count as one way."""
    _, first, label = np.unique(names, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[label]


def _all_ways(sizes: Sequence[int]) -> Iterator[IntArray]:
    """Every way to part slides into sites of ``sizes``, each as the site of every slide."""
    for sites in _parted(tuple(range(sum(sizes))), tuple(sorted(sizes))):
        way = np.zeros(sum(sizes), np.intp)
        for number, site in enumerate(sites):
            way[list(site)] = number
        yield way


def _parted(
    slides: tuple[int, ...], sizes: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], ...]]:
    """The first slide with every choice of company, then the others in the same way."""
    if not slides:
        yield ()
        return
    for size in sorted(set(sizes)):
        i = sizes.index(size)
        for company in combinations(slides[1:], size - 1):
            site = (slides[0], *company)
            rest = tuple(slide for slide in slides if slide not in site)
            for others in _parted(rest, sizes[:i] + sizes[i + 1 :]):
                yield (site, *others)
