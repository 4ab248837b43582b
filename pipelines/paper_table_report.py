"""A paper's table as files: CSV, Markdown and a figure, the paper's values beside ours."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from ccrl_wsi.evaluation.settings import EvaluateSettings
from pipelines.output_folder import write_json, write_text
from pipelines.paper_tables import FilledRow

METRICS = {"ami": "AMI", "ari": "ARI", "purity": "Purity"}
READINGS = {
    "fitted_on_test": "k-means on test",
    "fitted_on_train": "k-means on train",
    "train_only": "k-means, training cells only",
}
OWN = "its own clusters"


@dataclass(frozen=True, slots=True)
class TableLine:
    """One number of the CSV, in per cent; empty numbers have their reason in ``could_not_run``."""

    row: str
    reading: str
    metric: str
    paper: str
    ours: str
    sd: str
    n_seeds: str
    n_fit: str
    n_scored: str
    schedule: str
    training_seconds: str
    seconds: str
    hardware: str
    could_not_run: str


def write_table(
    number: int, rows: Sequence[FilledRow], settings: EvaluateSettings, out: Path
) -> None:
    """Write ``tableN.csv``, ``.md``, ``.png`` and ``.json`` into ``out``.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    from ccrl_wsi.evaluation.table_picture import draw_table
    from ccrl_wsi.provenance import versions

    start = out / f"table{number}"
    write_text(start.with_suffix(".csv"), table_csv(rows))
    write_text(start.with_suffix(".md"), table_page(number, rows, settings))
    draw_table(_points(rows), METRICS, start.with_suffix(".png"))
    tree = settings.model_dump(mode="json", exclude={"data": {"split"}})
    write_json(start.with_suffix(".json"), {"settings": tree, "versions": versions()})


def _points(rows: Sequence[FilledRow]) -> dict[str, dict[str, dict[str, float]]]:
    """Per cent by row, source and metric."""
    from ccrl_wsi.evaluation.table_picture import PAPER

    points: dict[str, dict[str, dict[str, float]]] = {}
    for line in _lines(rows):
        is_short = "CPU SCHEDULE" in line.schedule
        found = points.setdefault(f"{line.row}{' (CPU schedule)' if is_short else ''}", {})
        if line.paper:
            found.setdefault(PAPER, {})[line.metric] = float(line.paper)
        if line.ours:
            found.setdefault(line.reading, {})[line.metric] = float(line.ours)
    return points


def table_csv(rows: Sequence[FilledRow]) -> str:
    """One number a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(TableLine)])
    writer.writerows(astuple(line) for line in _lines(rows))
    return text.getvalue()


def table_page(number: int, rows: Sequence[FilledRow], settings: EvaluateSettings) -> str:
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
    if any("CPU SCHEDULE" in row.schedule for row in rows):
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
    lines += [f"- `{row.row.name}`: {_chosen(row)}" for row in rows]
    return "\n".join(lines) + "\n"


def _chosen(row: FilledRow) -> str:
    """What had to be chosen, and how its encoder departs from the published method."""
    return f"{row.row.note} Here: {row.departures}." if row.departures else row.row.note


def _page_lines(row: FilledRow) -> list[str]:
    paper = [f"{getattr(row.paper, m):.1f}" if row.paper else "" for m in METRICS]
    name = row.row.name
    if row.could_not:
        reason = " ".join(row.could_not.split()).replace("|", "/")
        return [_line([name, f"could not run: {reason}", "", "", "", *paper, "", "", "", ""])]
    found = []
    trained = "" if row.training_seconds is None else _duration(row.training_seconds)
    ends = [row.schedule, trained, _duration(row.seconds), row.hardware]
    for judged in row.judged:
        values = []
        for metric in METRICS:
            sd = judged.sd(metric)
            spread = "" if math.isnan(sd) else f" ± {100 * sd:.1f}"
            values.append(f"{100 * judged.mean(metric):.1f}{spread}")
        found.append(_line([name, READINGS[judged.reading], *values, *paper, *ends]))
    if row.own is not None:
        values = [f"{100 * getattr(row.own, metric):.1f}" for metric in METRICS]
        found.append(_line([name, OWN, *values, *paper, *ends]))
    return found


def _lines(rows: Sequence[FilledRow]) -> Iterator[TableLine]:
    for row in rows:
        trained = "" if row.training_seconds is None else f"{row.training_seconds:.1f}"
        ends = [row.schedule, trained, f"{row.seconds:.1f}", row.hardware, row.could_not]
        for metric in METRICS:
            name = row.row.name
            paper = "" if row.paper is None else f"{getattr(row.paper, metric):g}"
            if row.could_not:
                yield TableLine(
                    name, "", metric, paper, "", "", "", "", "", "", "", "", "", row.could_not
                )
            for judged in row.judged:
                sd = judged.sd(metric)
                yield TableLine(
                    *(name, READINGS[judged.reading], metric, paper),
                    f"{100 * judged.mean(metric):.4f}",
                    "" if math.isnan(sd) else f"{100 * sd:.4f}",
                    *map(str, (len(judged.repetitions), judged.n_fit, judged.n_scored)),
                    *ends,
                )
            if row.own is not None:
                ours = f"{100 * getattr(row.own, metric):.4f}"
                n_scored = str(row.judged[0].n_scored)
                yield TableLine(name, OWN, metric, paper, ours, "", "", "", n_scored, *ends)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
