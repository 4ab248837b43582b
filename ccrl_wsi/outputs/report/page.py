"""The page: what a report shows, as one HTML text that needs nothing else.

Whatever comes from files is text: the templates escape it, and data for scripts is JSON whose
``<``, ``>`` and ``&`` are escaped, so that no name can end a script or begin one.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np

from ccrl_wsi.outputs.report.bokeh_json import Json, bokeh_script, figure_json
from ccrl_wsi.outputs.report.cards import card_view
from ccrl_wsi.outputs.report.cell_maps import over_pale
from ccrl_wsi.outputs.report.cluster_figures import curve_plot, difference_plot, neighbour_map
from ccrl_wsi.outputs.report.composition_figures import (
    MAX_NAMED,
    Bars,
    bar_orders,
    component_plot,
    heat_map,
    hex_of,
    stacked_bars,
)
from ccrl_wsi.outputs.report.data_uri import data_uri
from ccrl_wsi.outputs.report.tables import composition_table
from ccrl_wsi.outputs.report.words import count, duration, listed, number, p_text, percent, signed
from ccrl_wsi.report_content import Compositions, ReportContent, SlidePicture

TEMPLATES = "templates"


def render_report(content: ReportContent) -> str:
    """The report as HTML. Equal contents give equal text."""
    figures: dict[str, Json] = {}
    orders: dict[str, Any] = {}
    if content.compositions is not None:
        _composition_figures(content, content.compositions, figures, orders)
    if content.neighbourhoods is not None:
        plot = neighbour_map(content.neighbourhoods, content.names)
        figures["neighbours"] = figure_json(plot, "neighbours")
    if content.curve is not None:
        figures["curve"] = figure_json(curve_plot(content.curve), "curve")
    for i, comparison in enumerate(content.groups.comparisons if content.groups else ()):
        plot = difference_plot(comparison, content.names, content.colors)
        figures[f"groups-{i}"] = figure_json(plot, f"groups-{i}")
    pictures = content.pictures or {}
    return str(
        _environment()
        .get_template("report.html")
        .render(
            content=content,
            compositions=content.compositions,
            hexes=[hex_of(color) for color in content.colors],
            cards=[card_view(card) for card in content.cards],
            pictures={name: _picture_view(picture) for name, picture in pictures.items()},
            table=composition_table(content),
            figures=figures,
            orders=orders,
            data=script_json({"figures": list(figures.values()), "orders": orders}),
            bokeh=bokeh_script() if figures else "",
        )
    )


def script_json(tree: Any) -> str:
    """JSON that may stand inside a ``script`` element whatever texts it holds."""
    # In the order given: BokehJS must meet an object before what refers to it.
    text = json.dumps(tree, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _composition_figures(
    content: ReportContent,
    compositions: Compositions,
    figures: dict[str, Json],
    orders: dict[str, Any],
) -> None:
    names, colors, slides = content.names, content.colors, compositions.slides
    counts = np.array([slide.counts for slide in slides], np.int64).reshape(-1, len(names))
    shares = counts / counts.sum(axis=1, keepdims=True)
    titles = [slide.slide_id for slide in slides]
    drawn = [Bars("slide", titles, shares, "share of cells", "slide-bars")]
    area = np.array([slide.tissue_mm2 for slide in slides])
    if (area > 0).all():
        densities = counts / area[:, None]
        drawn.append(Bars("slide", titles, densities, "cells per mm²", "density-bars"))
    groups = [slide.group or "" for slide in slides]
    found = bar_orders(titles, groups, counts, names, compositions.slide_tree.order)
    orders["slide-bars"] = orders["density-bars"] = _orders(found)
    if compositions.patients:
        pooled, people = compositions.patient_counts, compositions.patients
        shares = pooled / np.maximum(pooled.sum(axis=1, keepdims=True), 1)
        drawn.append(Bars("patient", people, shares, "share of cells", "patient-bars"))
        likeness = compositions.patient_tree.order
        found = bar_orders(people, [""] * len(people), pooled, names, likeness)
        orders["patient-bars"] = _orders(found)
    for bars in drawn:
        figures[bars.name] = figure_json(stacked_bars(bars, names, colors), bars.name)
    if len(slides) > 1:
        figures["heat"] = figure_json(heat_map(compositions, names), "heat")
    if compositions.components is not None:
        plot = component_plot(compositions, names, colors)
        figures["components"] = figure_json(plot, "components")


def _orders(found: list[tuple[str, list[int]]]) -> list[dict[str, Any]]:
    """As the page takes them; bars too many to be named are put by likeness at first."""
    is_many = len(found[0][1]) > MAX_NAMED
    return [
        {"name": name, "rows": rows, "first": is_many and name == "likeness"}
        for name, rows in found
    ]


def _picture_view(picture: SlidePicture) -> dict[str, Any]:
    return {
        "slide": data_uri(picture.rgb) if picture.rgb is not None else "",
        "cells": data_uri(over_pale(picture.rgb, picture.cells)),
        "height": picture.cells.shape[0],
        "width": picture.cells.shape[1],
        "width_mm": picture.width_um / 1000,
        "note": picture.note,
    }


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ccrl_wsi.outputs.report", TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "percent": percent,
        "p": p_text,
        "duration": duration,
        "listed": listed,
        "exp": lambda value: float(np.exp(value)),
    }
    environment.globals |= {"count": count}
    return environment
