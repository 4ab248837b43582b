"""Tables of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ccrl_wsi.outputs.report.words import number, percent
from ccrl_wsi.report_content import ReportContent


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown, and what is sorted by and downloaded."""

    shown: str
    value: str


@dataclass(frozen=True, slots=True)
class Table:
    """Column titles and rows."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def composition_table(content: ReportContent) -> Table:
    """Slide by slide: cells, area, density, and the share of every cluster."""
    header = ("slide_id", "patient", "group", "cells", "mm²", "cells per mm²", *content.names)
    rows = []
    for slide in content.slides:
        row = [_text(slide.slide_id), _text(slide.patient or ""), _text(slide.group or "")]
        row += [Cell(f"{slide.n_cells:,}", str(slide.n_cells)), _number(slide.tissue_mm2)]
        row += [_ratio(slide.n_cells, slide.tissue_mm2)]
        row += _shares(slide.counts, len(content.names))
        rows.append(tuple(row))
    return Table(header, tuple(rows))


def _shares(counts: Sequence[int] | None, k: int) -> list[Cell]:
    total = sum(counts) if counts else 0
    if not counts or not total:
        return [Cell("–", "")] * k
    return [Cell(percent(n / total), f"{n / total:.6f}") for n in counts]


def _text(text: str) -> Cell:
    return Cell(text or "–", text)


def _number(value: float) -> Cell:
    return Cell(number(value), f"{value:.6g}")


def _ratio(part: float, whole: float) -> Cell:
    return _number(part / whole) if whole > 0 else Cell("–", "")
