"""A table of scores as a figure: the paper's values and ours on one line a method."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

MARKS = (("D", "#000000"), ("o", "#1f77b4"), ("s", "#ff7f0e"), ("^", "#2ca02c"), ("v", "#9467bd"))
"""Shape and colour of each source, in the order in which sources appear."""

PAPER = "the paper"
"""The source that is drawn first, as hollow diamonds."""

Points = Mapping[str, Mapping[str, Mapping[str, float]]]


def draw_table(rows: Points, metrics: Mapping[str, str], path: Path) -> None:
    """Write a PNG with one panel a metric.

    Parameters
    ----------
    rows
        Per cent by row, source and metric. A row or source without a value has no mark.
    metrics
        What each metric is called.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(rows)
    sources = list(dict.fromkeys(source for found in rows.values() for source in found))
    sources.sort(key=lambda source: source != PAPER)
    figure = Figure(figsize=(4 * len(metrics), 1.4 + 0.38 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (metric, title) in enumerate(metrics.items(), start=1):
        axes = figure.add_subplot(1, len(metrics), number)
        marks = MARKS if PAPER in sources else MARKS[1:]
        for source, (shape, color) in zip(sources, marks, strict=False):
            places = [i for i, name in enumerate(names) if metric in rows[name].get(source, {})]
            values = [rows[names[i]][source][metric] for i in places]
            axes.plot(
                values,
                places,
                shape,
                color=color,
                label=source,
                markerfacecolor="none" if source == PAPER else color,
            )
        axes.set_yticks(range(len(names)), names if number == 1 else [""] * len(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(f"{title}, per cent")
        axes.grid(visible=True, alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    figure.savefig(unfinished, format="png", dpi=120)
    unfinished.replace(path)
