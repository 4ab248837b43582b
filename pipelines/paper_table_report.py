"""A paper's table as files: CSV, Markdown and a figure, the paper's values beside ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from ccrl_wsi.evaluation.settings import EvaluateSettings
from pipelines.output_folder import write_text
from pipelines.paper_table_record import (
    METRICS,
    RowRecord,
    TableLine,
    merged,
    read_rows,
    recorded,
    write_rows,
)
from pipelines.paper_tables import FilledRow


def write_table(
    number: int, filled: Sequence[FilledRow], settings: EvaluateSettings, out: Path
) -> None:
    """Write ``tableN.csv``, ``.md``, ``.png`` and ``.json`` into ``out``, with the rows there.

    Raises
    ------
    ConfigError
        If a table of other settings is there.
    StoreError
        If the folder cannot be written.
    """
    from ccrl_wsi.evaluation.table_picture import draw_table

    start = out / f"table{number}"
    kept = read_rows(start.with_suffix(".json"), settings)
    rows = merged(number, kept, [recorded(row) for row in filled])
    write_text(start.with_suffix(".csv"), table_csv(rows))
    write_text(start.with_suffix(".md"), table_page(number, rows, settings))
    draw_table(_points(rows), METRICS, start.with_suffix(".png"))
    write_rows(start.with_suffix(".json"), rows, settings)


def _points(rows: Sequence[RowRecord]) -> dict[str, dict[str, dict[str, float]]]:
    """Per cent by row, source and metric."""
    from ccrl_wsi.evaluation.table_picture import PAPER

    points: dict[str, dict[str, dict[str, float]]] = {}
    for line in _all_lines(rows):
        is_short = "CPU SCHEDULE" in line.schedule
        found = points.setdefault(f"{line.row}{' (CPU schedule)' if is_short else ''}", {})
        if line.paper:
            found.setdefault(PAPER, {})[line.metric] = float(line.paper)
        if line.ours:
            found.setdefault(line.reading, {})[line.metric] = float(line.ours)
    return points


def table_csv(rows: Sequence[RowRecord]) -> str:
    """One number a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(TableLine)])
    writer.writerows(astuple(line) for line in _all_lines(rows))
    return text.getvalue()


def table_page(number: int, rows: Sequence[RowRecord], settings: EvaluateSettings) -> str:
    """The table as people read it."""
    kind = settings.data.kind
    lines = [
        f"# Table {number} of the CCRL paper on {kind}",
        "",
        f"Per cent; mean ± standard deviation over {settings.n_seeds} seeds of k-means (n_init "
        f"{settings.n_init}) for one training each. The paper names neither seeds nor whether "
        "k-means was fitted on test or on training cells. Labels were used for scoring only.",
    ]
    if settings.on_train:
        lines.append("Training cells only: the paper's scores are of the test cells.")
    if any("CPU SCHEDULE" in line.schedule for line in _all_lines(rows)):
        lines.append(
            "**CPU SCHEDULE** marks trainings that were cut short for want of a GPU: such a row "
            "says little about the method."
        )
    if number == 3 and kind != "nucls":
        lines.append("The paper has its ablations on NuCLS only, so none stand beside these.")
    heads = ["Method", "Clusters", *METRICS.values()]
    heads += [f"{head}, paper" for head in METRICS.values()]
    heads += ["Training", "Trained in", "Scored in", "Hardware"]
    lines += ["", _line(heads), _line(["---"] * len(heads))]
    for row in rows:
        lines += _page_lines(row)
    lines += ["", "What had to be chosen:", ""]
    lines += [f"- `{row.name}`: {row.note}" for row in rows]
    return "\n".join(lines) + "\n"


def _all_lines(rows: Sequence[RowRecord]) -> list[TableLine]:
    return [line for row in rows for line in row.lines]


def _page_lines(row: RowRecord) -> list[str]:
    by_reading: dict[str, dict[str, TableLine]] = {}
    for line in row.lines:
        by_reading.setdefault(line.reading, {})[line.metric] = line
    found = []
    for reading, lines in by_reading.items():
        paper = [f"{float(lines[m].paper):.1f}" if lines[m].paper else "" for m in METRICS]
        if row.could_not:
            reason = " ".join(row.could_not.split()).replace("|", "/")
            cells = [row.name, f"could not run: {reason}", "", "", "", *paper, "", "", "", ""]
            found.append(_line(cells))
            continue
        values = []
        for metric in METRICS:
            spread = f" ± {float(lines[metric].sd):.1f}" if lines[metric].sd else ""
            values.append(f"{float(lines[metric].ours):.1f}{spread}")
        first = lines["ami"]
        trained = _duration(first.training_seconds)
        ends = [first.schedule, trained, _duration(first.seconds), first.hardware]
        found.append(_line([row.name, reading, *values, *paper, *ends]))
    return found


def _duration(text: str) -> str:
    if not text:
        return ""
    seconds = float(text)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
