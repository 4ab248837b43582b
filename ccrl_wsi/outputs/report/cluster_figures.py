"""Figures on clusters: their neighbours, how many there are, and how groups differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ccrl_wsi.cohort_records import GroupComparison
from ccrl_wsi.outputs.report.composition_figures import (
    COLD_TO_WARM,
    hex_of,
    legend_above,
    plain_figure,
    plain_labels,
    without_axes,
)
from ccrl_wsi.outputs.report.words import p_text
from ccrl_wsi.report_content import Color, KCurve, Neighbourhoods

RATIO_RANGE = 2.0
"""Neighbours four times as often, or a quarter as often, as by chance have the strongest colour."""


def neighbour_map(found: Neighbourhoods, names: Sequence[str]) -> Any:
    """Clusters by clusters: neighbours more or less often than by chance."""
    from bokeh.models import ColorBar, ColumnDataSource, HoverTool, LinearColorMapper

    k = len(names)
    y, x = np.indices((k, k))
    value = found.log2_ratio.ravel()
    # A pair that is never found has no logarithm.
    finite = np.where(np.isfinite(value), value, np.where(value < 0, -RATIO_RANGE, 0.0))
    source = ColumnDataSource(
        {
            "x": x.ravel(),
            "y": y.ravel(),
            "value": finite.astype(np.float32),
            "times": np.exp2(value).astype(np.float32),
            "z": np.nan_to_num(found.z.ravel()).astype(np.float32),
            "one": [names[i] for i in y.ravel().tolist()],
            "other": [names[i] for i in x.ravel().tolist()],
        }
    )
    mapper = LinearColorMapper(palette=COLD_TO_WARM, low=-RATIO_RANGE, high=RATIO_RANGE)
    plot = plain_figure(
        height=130 + 30 * min(k, 16),
        x_range=(-0.5, k - 0.5),
        y_range=(k - 0.5, -0.5),
        max_width=560,
    )
    squares = plot.rect(
        "x", "y", 0.96, 0.96, source=source, line_color=None,
        fill_color={"field": "value", "transform": mapper},
    )  # fmt: skip
    tips = [
        ("beside", "@one and @other"),
        ("times as often as by chance", "@times{0.00}"),
        ("z", "@z{0.0}"),
    ]
    plot.add_tools(HoverTool(renderers=[squares], tooltips=tips))
    for axis in (plot.xaxis, plot.yaxis):
        axis.ticker = list(range(k))
        axis.major_label_overrides = plain_labels(names)
    plot.xaxis.major_label_orientation = 1.2 if k > 8 else "horizontal"
    without_axes(plot)
    plot.grid.visible = False
    bar = ColorBar(
        color_mapper=mapper, height=10, width=300, title="log2 of observed / expected", padding=4,
        title_text_font_size="11px", title_text_font_style="normal",
        major_label_text_font_size="10px",
    )  # fmt: skip
    plot.add_layout(bar, "below")
    return plot


def curve_plot(curve: KCurve) -> Any:
    """Stability and silhouette by number of clusters; the chosen one is marked."""
    from bokeh.models import ColumnDataSource, HoverTool, Span

    plot = plain_figure(
        height=260, x_axis_label="number of clusters", y_axis_label="score", max_width=620
    )
    source = ColumnDataSource(_curve_columns(curve))
    for name, color, marker in (
        ("stability", "#0072b2", "circle"),
        ("silhouette", "#d55e00", "square"),
    ):
        plot.line("k", name, source=source, color=color, line_width=2, legend_label=name)
        plot.segment("k", f"{name}_low", "k", f"{name}_high", source=source, color=color)
        dots = plot.scatter(
            "k", name, source=source, color=color, size=7, marker=marker, legend_label=name
        )
        tips = [("clusters", "@k"), (name, f"@{name}{{0.000}}")]
        plot.add_tools(HoverTool(renderers=[dots], tooltips=tips))
    plot.add_layout(
        Span(location=curve.chosen, dimension="height", line_color="#888888", line_dash="dashed")
    )
    legend_above(plot)
    return plot


def _curve_columns(curve: KCurve) -> dict[str, list[float]]:
    points = curve.points
    columns: dict[str, list[float]] = {"k": [point.k for point in points]}
    for name in ("stability", "silhouette"):
        values = [getattr(point, name) for point in points]
        errors = [getattr(point, f"{name}_error") for point in points]
        columns[name] = values
        columns[f"{name}_low"] = [v - e for v, e in zip(values, errors, strict=True)]
        columns[f"{name}_high"] = [v + e for v, e in zip(values, errors, strict=True)]
    return columns


def difference_plot(found: GroupComparison, names: Sequence[str], colors: Sequence[Color]) -> Any:
    """Difference of each cluster between two groups of patients, with its interval."""
    from bokeh.models import ColumnDataSource, HoverTool, PlainText, Span

    rows = found.clusters
    data: dict[str, Any] = {
        "name": [names[row.cluster] for row in rows],
        "difference": [row.difference for row in rows],
        "low": [row.interval[0] if row.interval else row.difference for row in rows],
        "high": [row.interval[1] if row.interval else row.difference for row in rows],
        "times": [float(np.exp(row.difference)) for row in rows],
        "q": [p_text(row.q) for row in rows],
        "color": [hex_of(colors[row.cluster]) for row in rows],
    }
    source = ColumnDataSource(data)
    label = f"log-ratio: {found.second} minus {found.first}"
    plot = plain_figure(
        height=90 + 24 * len(rows),
        y_range=list(data["name"])[::-1],
        x_axis_label=PlainText(text=label),
        max_width=720,
    )
    plot.add_layout(Span(location=0, dimension="height", line_color="#888888"))
    plot.segment("low", "name", "high", "name", source=source, color="#555555", line_width=2)
    dots = plot.scatter(
        "difference", "name", source=source, size=11, color="color", line_color="#333333"
    )
    tips = [
        ("cluster", "@name"),
        ("difference", "@difference{0.00} (@low{0.00} to @high{0.00})"),
        ("times as frequent", "@times{0.00}"),
        ("q", "@q"),
    ]
    plot.add_tools(HoverTool(renderers=[dots], tooltips=tips))
    return plot
