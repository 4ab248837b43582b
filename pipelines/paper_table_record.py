"""What is kept of a paper's table: its numbers a row, so that a later call adds rows to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.evaluation.settings import EvaluateSettings
from ccrl_wsi.settings_tree import differences
from pipelines.output_folder import read_json, write_json
from pipelines.paper_table_rows import ROWS
from pipelines.paper_tables import FilledRow

METRICS = {"ami": "AMI", "ari": "ARI", "purity": "Purity"}
READINGS = {
    "fitted_on_test": "k-means on test",
    "fitted_on_train": "k-means on train",
    "train_only": "k-means, training cells only",
}
OWN = "its own clusters"
FREE_TO_CHANGE = {"encoders", "pictures", "device", "batch_size", "imagenet_weights"}
"""Settings that decide no number, or that each row tells itself."""
FREE_OF_DATA = {"split", "cache", "shapes"}


@dataclass(frozen=True, slots=True)
class TableLine:
    """One number of the CSV, in per cent; empty numbers have their reason in ``could_not_run``.

    ``k``: clusters of k-means, or categories of the method's own.
    """

    row: str
    reading: str
    metric: str
    paper: str
    ours: str = ""
    sd: str = ""
    k: str = ""
    n_seeds: str = ""
    n_fit: str = ""
    n_scored: str = ""
    encoder: str = ""
    fingerprint: str = ""
    schedule: str = ""
    training_seconds: str = ""
    seconds: str = ""
    hardware: str = ""
    could_not_run: str = ""


@dataclass(frozen=True, slots=True)
class RowRecord:
    """A row as it is written: its numbers, what had to be chosen, and the file that was given."""

    name: str
    note: str
    given: str
    lines: tuple[TableLine, ...]

    @property
    def could_not(self) -> str:
        """Why it has no numbers."""
        return self.lines[0].could_not_run


def recorded(row: FilledRow) -> RowRecord:
    """What is kept of ``row``."""
    note = f"{row.row.note} Here: {row.departures}." if row.departures else row.row.note
    return RowRecord(row.row.name, note, row.given, tuple(_lines(row)))


def read_rows(file: Path, settings: EvaluateSettings) -> list[RowRecord]:
    """The rows of an earlier call, none if there was none.

    Raises
    ------
    ConfigError
        If they were made with other settings.
    StoreError
        If the file is damaged.
    """
    if not file.exists():
        return []
    found = read_json(file)
    changed = differences(_deciding(found.get("settings", {})), _deciding(_tree(settings)))
    if changed or "rows" not in found:
        raise ConfigError(
            f"The table in {file.parent} was made with other settings "
            f"({'; '.join(changed) or 'it holds no rows'}). Give another folder with -o, or the "
            "same settings to add rows to it."
        )
    return [
        RowRecord(**{**row, "lines": tuple(TableLine(**line) for line in row["lines"])})
        for row in found["rows"]
    ]


def merged(number: int, kept: Sequence[RowRecord], new: Sequence[RowRecord]) -> list[RowRecord]:
    """All rows in the table's order; a new one wins unless it has no numbers and the kept one has.

    Numbers that are there are not lost to a row that could not run this time.
    """
    known = {row.name: row for row in kept}
    for row in new:
        if row.name not in known or known[row.name].could_not or not row.could_not:
            known[row.name] = row
    return [known[row.name] for row in ROWS[number] if row.name in known]


def write_rows(file: Path, rows: Sequence[RowRecord], settings: EvaluateSettings) -> None:
    """Keep ``rows`` for :func:`read_rows`, with the settings and versions they were made with."""
    from ccrl_wsi.provenance import versions

    tree = {"settings": _tree(settings), "versions": versions(), "rows": [asdict(r) for r in rows]}
    write_json(file, tree)


def _tree(settings: EvaluateSettings) -> dict[str, Any]:
    tree: dict[str, Any] = settings.model_dump(mode="json")
    tree["data"]["path"] = str(settings.data.path.expanduser().absolute())
    return tree


def _deciding(tree: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in tree.items() if name not in FREE_TO_CHANGE}
    kept["data"] = {k: v for k, v in tree.get("data", {}).items() if k not in FREE_OF_DATA}
    return kept


def _lines(row: FilledRow) -> Iterator[TableLine]:
    for metric in METRICS:
        paper = "" if row.paper is None else f"{getattr(row.paper, metric):g}"
        empty = TableLine(row.row.name, "", metric, paper)
        if row.source is None:
            yield replace(empty, could_not_run=row.could_not)
            continue
        trained = row.source.training_seconds
        about = replace(
            empty,
            encoder=row.encoder,
            fingerprint=row.judged[0].fingerprint,
            schedule=row.source.schedule,
            training_seconds="" if trained is None else f"{trained:.1f}",
            seconds=f"{row.seconds:.1f}",
            hardware=row.hardware,
        )
        for judged in row.judged:
            sd = judged.sd(metric)
            yield replace(
                about,
                reading=READINGS[judged.reading],
                ours=f"{100 * judged.mean(metric):.4f}",
                sd="" if math.isnan(sd) else f"{100 * sd:.4f}",
                k=str(judged.k),
                n_seeds=str(len(judged.repetitions)),
                n_fit=str(judged.n_fit),
                n_scored=str(judged.n_scored),
                fingerprint=judged.fingerprint,
            )
        if row.own is not None:
            ours = f"{100 * getattr(row.own.scores, metric):.4f}"
            scored = str(row.judged[0].n_scored)
            yield replace(about, reading=OWN, ours=ours, k=str(row.own.k), n_scored=scored)
