"""Pictures of scores by mechanism: a table of accuracies, and who was taken for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ccrl_wsi.arrays import FloatArray
from ccrl_wsi.evaluation.mechanism_scores import Matching
from ccrl_wsi.evaluation.pictures import new_figure, save_figure

LIGHT_TEXT_ABOVE = 0.6
"""Share from which a field is so dark that its text must be light."""


def draw_accuracies(path: Path, scores: Mapping[str, Mapping[str, Matching]]) -> None:
    """Accuracy by mechanism (row) and kind of profiles (column), a panel a rule.

    ``scores``: matchings by the name of the rule (NSC, NSCB), then by that of the profiles.
    """
    rules = {rule: found for rule, found in scores.items() if found}
    matchings = [matching for found in rules.values() for matching in found.values()]
    mechanisms = sorted({name for matching in matchings for name in matching.mechanisms})
    widest = max(len(found) for found in rules.values())
    figure = new_figure(3 + (0.75 * widest + 0.4) * len(rules), 2.2 + 0.34 * len(mechanisms))
    for at, (rule, found) in enumerate(rules.items()):
        axes = figure.add_subplot(1, len(rules), at + 1)
        columns = [_with_total(matching, mechanisms) for matching in found.values()]
        _draw_shares(axes, np.column_stack(columns), [*mechanisms, "all"] if not at else [])
        axes.set_xticks(range(len(found)), list(found), rotation=60, ha="right", fontsize=7)
        axes.set_title(f"{rule}: per cent right", fontsize=9)
    save_figure(figure, path)


def draw_confusion(path: Path, title: str, matchings: Mapping[str, Matching]) -> None:
    """Treatments by true mechanism (row) and the nearest neighbour's (column), a panel a rule."""
    k = max(len(m.mechanisms) for m in matchings.values())
    figure = new_figure(2.5 + (0.42 * k + 0.8) * len(matchings), 2.4 + 0.42 * k)
    figure.suptitle(title, fontsize=10)
    for at, (rule, matching) in enumerate(matchings.items()):
        axes = figure.add_subplot(1, len(matchings), at + 1)
        names = matching.mechanisms
        counts = matching.confusion
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(counts / totals, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                _write(axes, (row, column), f"{count:g}", float(count / totals[row, 0]))
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(names)), names if not at else [""] * len(names), fontsize=7)
        score = f"{matching.n_correct:g} of {matching.n_scored} right"
        axes.set_title(f"{rule}: {score}", fontsize=9)
        axes.set_xlabel("mechanism of the nearest neighbour", fontsize=8)
    save_figure(figure, path)


def _with_total(matching: Matching, mechanisms: Sequence[str]) -> FloatArray:
    known = matching.accuracy_by_mechanism()
    return np.array([*(known.get(name, np.nan) for name in mechanisms), matching.accuracy])


def _draw_shares(axes: Axes, shares: FloatArray, names: Sequence[str]) -> None:
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        text = "-" if np.isnan(share) else f"{100 * share:.0f}"
        _write(axes, (row, column), text, float(share))
    axes.set_yticks(range(len(shares)), names or [""] * len(shares), fontsize=7)


def _write(axes: Axes, place: tuple[int, ...], text: str, share: float) -> None:
    row, column = place
    color = "white" if share > LIGHT_TEXT_ABOVE else "black"
    axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
