"""Figures on composition: bars, densities, heat map and components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.outputs.report.words import short_names
from ccrl_wsi.report_content import Color, Compositions, ReportSlide

MAX_NAMED = 40
"""More bars stand upright and without names; the pointer tells them."""

LABEL_CHARACTERS = 22
HEAT_RANGE = 2.0
"""Centred log-ratios further from the mean have the strongest colour: 7.4 times."""

COLD_TO_WARM = (
    "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7", "#fddbc7", "#f4a582", "#d6604d",
    "#b2182b",
)  # fmt: skip
"""ColorBrewer's RdBu turned round: told apart with the common colour-vision deficiencies."""


def hex_of(color: Color) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)


@dataclass(frozen=True, eq=False, slots=True)
class Bars:
    """What stacked bars show.

    Parameters
    ----------
    what
        One bar is a slide, or a patient.
    titles, values
        n names, and (n, k) what the parts of each bar are long.
    axis
        What the length of a bar is.
    name
        What the page calls the order of the bars, to sort them.
    """

    what: str
    titles: Sequence[str]
    values: FloatArray
    axis: str
    name: str


def stacked_bars(bars: Bars, names: Sequence[str], colors: Sequence[Color]) -> Any:
    """A bar for each row, stacked by cluster; lying and named, or upright where they are many."""
    from bokeh.models import ColumnDataSource, FactorRange, HoverTool

    labels = short_names(bars.titles, LABEL_CHARACTERS)
    is_named = len(labels) <= MAX_NAMED
    factors = labels[::-1] if is_named else list(labels)
    order = FactorRange(factors=factors, name=bars.name, range_padding=0.05 if is_named else 0)
    data: dict[str, Any] = {"bar": labels, "title": list(bars.titles)}
    data |= {name: bars.values[:, j].astype(np.float32) for j, name in enumerate(names)}
    source = ColumnDataSource(data)
    fills = [hex_of(color) for color in colors]
    if is_named:
        plot = plain_figure(
            height=70 + 26 * len(labels),
            y_range=order,
            x_axis_label=bars.axis,
            name=f"{bars.name}-upwards",
        )
        stacks = plot.hbar_stack(
            list(names), y="bar", height=0.8, color=fills, source=source, line_color="white",
            line_width=0.5,
        )  # fmt: skip
    else:
        plot = plain_figure(height=320, x_range=order, y_axis_label=bars.axis)
        stacks = plot.vbar_stack(
            list(names), x="bar", width=1.0, color=fills, source=source, line_color=None
        )
        plot.xaxis.visible = False
    number = "@$name{0.0 %}" if bars.axis.startswith("share") else "@$name{0,0.0}"
    plot.add_tools(
        HoverTool(
            renderers=stacks,
            tooltips=[(bars.what, "@title"), ("cluster", "$name"), (bars.axis, number)],
        )
    )
    (plot.x_range if is_named else plot.y_range).start = 0
    if bars.axis.startswith("share"):
        (plot.x_range if is_named else plot.y_range).end = 1
        _percent_axis(plot.xaxis if is_named else plot.yaxis)
    plot.grid.visible = False
    return plot


def heat_map(compositions: Compositions, names: Sequence[str]) -> Any:
    """Slides by clusters: more or less of a cluster than in the mean slide; trees at the sides."""
    from bokeh.models import ColorBar, ColumnDataSource, HoverTool, LinearColorMapper

    rows, columns = compositions.slide_tree.order, compositions.cluster_tree.order
    titles = [slide.slide_id for slide in compositions.slides]
    n, k = compositions.ratios.shape
    height = 150 + max(6 * n, min(26 * n, 420)) if n <= 100 else 150 + min(6 * n, 900)
    side = 0.22 * k
    plot = plain_figure(
        height=height, x_range=(-0.6 - side, k - 0.4), y_range=(n - 0.4, -0.6 - 0.16 * n)
    )
    mapper = LinearColorMapper(palette=COLD_TO_WARM, low=-HEAT_RANGE, high=HEAT_RANGE)
    source = ColumnDataSource(_heat_cells(compositions, names, titles))
    squares = plot.rect(
        "x", "y", 1, 1, source=source, line_color=None,
        fill_color={"field": "value", "transform": mapper},
    )  # fmt: skip
    tips = [
        ("slide", "@title"),
        ("cluster", "@cluster"),
        ("share", "@share{0.0 %}"),
        ("times the mean slide", "@times{0.00}"),
    ]
    plot.add_tools(HoverTool(renderers=[squares], tooltips=tips))
    _draw_tree(plot, compositions.slide_tree, side, sideways=True)
    _draw_tree(plot, compositions.cluster_tree, 0.15 * n, sideways=False)
    plot.xaxis.ticker = list(range(k))
    plot.xaxis.major_label_overrides = plain_labels([names[i] for i in columns])
    plot.xaxis.major_label_orientation = 1.2 if k > 12 else "horizontal"
    without_axes(plot)
    short = short_names(titles, LABEL_CHARACTERS)
    if n <= MAX_NAMED:
        plot.yaxis.ticker = list(range(n))
        plot.yaxis.major_label_overrides = plain_labels([short[i] for i in rows])
    else:
        plot.yaxis.visible = False
    plot.grid.visible = False
    bar = ColorBar(
        color_mapper=mapper, height=10, width=300, title="log-ratio to the mean slide", padding=4,
        title_text_font_size="11px", title_text_font_style="normal",
        major_label_text_font_size="10px",
    )  # fmt: skip
    plot.add_layout(bar, "below")
    return plot


def component_plot(
    compositions: Compositions, names: Sequence[str], colors: Sequence[Color]
) -> Any:
    """Slides in the plane of the first two components, and where clusters pull them."""
    from bokeh.models import ColumnDataSource, HoverTool

    found = compositions.components
    if found is None:
        raise ValueError("there are no components to draw")
    x_axis, y_axis = (f"component {i + 1} ({100 * e:.0f} %)" for i, e in enumerate(found.explained))
    plot = plain_figure(
        height=460, x_axis_label=x_axis, y_axis_label=y_axis, match_aspect=True, max_width=720
    )
    reach = np.abs(found.scores).max()
    arrows = found.loadings / max(float(np.linalg.norm(found.loadings, axis=1).max()), 1e-12)
    ends = arrows * 0.8 * reach
    loads = ColumnDataSource(
        {"x": ends[:, 0], "y": ends[:, 1], "zero": np.zeros(len(ends)), "name": list(names)}
        | {"color": [hex_of(color) for color in colors]}
    )
    plot.segment("zero", "zero", "x", "y", source=loads, color="color", line_width=2, alpha=0.7)
    plot.text(
        "x", "y", "name", source=loads, text_font_size="11px", text_color="#555555",
        text_align="center",
    )  # fmt: skip
    groups = sorted({slide.group or "" for slide in compositions.slides})
    shown = short_names([group or "no group" for group in groups], LABEL_CHARACTERS)
    for group, short, marker in zip(groups, shown, _markers(len(groups)), strict=True):
        own = [i for i, slide in enumerate(compositions.slides) if (slide.group or "") == group]
        source = ColumnDataSource(_points(compositions.slides, found.scores, own))
        legend = {"legend_label": short} if len(groups) > 1 else {}
        dots = plot.scatter(
            "x", "y", source=source, size=9, marker=marker, fill_color="#333333", fill_alpha=0.75,
            line_color="white", **legend,
        )  # fmt: skip
        tips = [("slide", "@title"), ("patient", "@patient"), ("group", "@group")]
        plot.add_tools(HoverTool(renderers=[dots], tooltips=tips))
    if len(groups) > 1:
        legend_above(plot)
    return plot


def bar_orders(
    titles: Sequence[str],
    groups: Sequence[str],
    counts: IntArray,
    names: Sequence[str],
    likeness: Sequence[int],
) -> list[tuple[str, list[int]]]:
    """Ways to sort bars: name and rows from the first bar to the last.

    Parameters
    ----------
    counts
        (n, k) cells.
    likeness
        Rows in the order of a tree.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = range(len(titles))
    found = [("name", sorted(rows, key=lambda i: titles[i].casefold()))]
    if len(set(groups)) > 1:
        found.append(("group", sorted(rows, key=lambda i: (groups[i], titles[i].casefold()))))
    found.append(("likeness", list(likeness)))
    found.append(("number of cells", np.argsort(-counts.sum(axis=1), kind="stable").tolist()))
    for j, name in enumerate(names):
        found.append((f"share of {name}", np.argsort(-shares[:, j], kind="stable").tolist()))
    return found


def plain_figure(height: int, **options: Any) -> Any:
    """A figure in the page's style: no toolbar, no frame, as wide as the column."""
    from bokeh.plotting import figure

    plot = figure(
        height=height, sizing_mode="stretch_width", tools="", toolbar_location=None,
        background_fill_color=None, border_fill_color=None, outline_line_color=None, **options,
    )  # fmt: skip
    plot.axis.axis_line_color = "#999999"
    plot.axis.major_tick_line_color = "#999999"
    plot.axis.minor_tick_line_color = None
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_font_size = "12px"
    plot.axis.major_label_text_font_size = "11px"
    plot.grid.grid_line_color = "#eeeeee"
    return plot


def plain_labels(names: Sequence[str]) -> dict[int, Any]:
    """Labels of the places 0, 1, ... as they are: bokeh takes ``$$`` in text for TeX."""
    from bokeh.models import PlainText

    return {i: PlainText(text=name) for i, name in enumerate(names)}


def without_axes(plot: Any) -> None:
    """Leave names beside squares, but no lines and ticks."""
    plot.axis.axis_line_color = None
    plot.axis.major_tick_line_color = None


def legend_above(plot: Any) -> None:
    """Put the legend where it hides nothing."""
    legend = plot.legend[0]
    legend.location = "top_left"
    legend.border_line_color = None
    legend.padding = 0
    plot.add_layout(legend, "above")


def _percent_axis(axis: Any) -> None:
    from bokeh.models import NumeralTickFormatter

    axis.formatter = NumeralTickFormatter(format="0 %")


def _heat_cells(
    compositions: Compositions, names: Sequence[str], titles: Sequence[str]
) -> dict[str, Any]:
    rows, columns = compositions.slide_tree.order, compositions.cluster_tree.order
    centred = compositions.ratios - compositions.ratios.mean(axis=0)
    value = centred[np.ix_(rows, columns)]
    counts = np.array([slide.counts for slide in compositions.slides], np.float64)
    share = (counts / counts.sum(axis=1, keepdims=True))[np.ix_(rows, columns)]
    y, x = np.indices(value.shape)
    return {
        "x": x.ravel().astype(np.float32),
        "y": y.ravel().astype(np.float32),
        "value": value.ravel().astype(np.float32),
        "times": np.exp(value).ravel().astype(np.float32),
        "share": share.ravel().astype(np.float32),
        "cluster": [names[column] for _ in rows for column in columns],
        "title": [titles[row] for row in rows for _ in columns],
    }


def _draw_tree(plot: Any, tree: Any, depth: float, *, sideways: bool) -> None:
    """Merges as lines outside the squares; the last one is ``depth`` away from them."""
    if not len(tree.heights):
        return
    reach = -0.6 - tree.heights / max(float(tree.heights.max()), 1e-12) * depth
    along = tree.places
    xs, ys = (reach, along) if sideways else (along, reach)
    plot.multi_line(xs.tolist(), ys.tolist(), color="#777777", line_width=1)


def _points(
    slides: Sequence[ReportSlide], scores: FloatArray, own: Sequence[int]
) -> dict[str, Any]:
    return {
        "x": scores[list(own), 0],
        "y": scores[list(own), 1],
        "title": [slides[i].slide_id for i in own],
        "patient": [slides[i].patient or "–" for i in own],
        "group": [slides[i].group or "–" for i in own],
    }


def _markers(n: int) -> list[str]:
    known = ["circle", "triangle", "square", "diamond", "inverted_triangle", "star", "hex", "plus"]
    return [known[i % len(known)] for i in range(n)]
