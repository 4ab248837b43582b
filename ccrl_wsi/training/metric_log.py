"""``metrics.csv``: one row a reading. After a resume the file is as if nobody had stopped."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ccrl_wsi.arrays import FloatArray
from ccrl_wsi.errors import StoreError
from ccrl_wsi.training.learner import Moment
from ccrl_wsi.training.loop import Reading

SPEED = "crops_per_second"
"""The last column, and the only one that differs between equal trainings."""


class MetricLog:
    """Columns: step, epoch, the ``rates``, loss, the learner's other metrics, crops_per_second.

    Rows of an older file before ``start_step`` are kept. Later ones are dropped, for those steps
    are done again; so is a row that a crash cut off.

    Parameters
    ----------
    path
        The file; its folder is made.
    start_step
        Steps done; 0 begins a new file.
    rates
        What else shall be written of a moment, by name: learning rate, momentum.

    Raises
    ------
    StoreError
        If the file cannot be read or written, or is something else.
    """

    def __init__(
        self, path: Path, start_step: int, rates: Callable[[Moment], Mapping[str, float]]
    ) -> None:
        self._path, self._rates = path, rates
        self._columns: list[str] = []
        rows: list[dict[str, str]] = []
        if start_step > 0 and path.exists():
            self._columns, rows = _read(path)
            rows = [row for row in rows if int(row["step"]) < start_step]
        self._rewrite(rows)

    def append(self, reading: Reading) -> None:
        """Write a row. A metric without a column gets one, empty in earlier rows."""
        moment, metrics = reading.moment, reading.metrics
        values = {"epoch": moment.epoch, **self._rates(moment), "loss": metrics["loss"]}
        values |= metrics | {SPEED: reading.crops_per_second}
        row = {"step": str(moment.step)} | {name: f"{v:.8g}" for name, v in values.items()}
        new = [name for name in row if name not in self._columns]
        if new:
            rows = _read(self._path)[1] if self._columns else []
            known = [name for name in self._columns if name != SPEED]
            self._columns = known + [name for name in new if name != SPEED] + [SPEED]
            self._rewrite(rows)
        with _explained(self._path), self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_lines(self._columns, [row]))

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        head = dict(zip(self._columns, self._columns, strict=True))
        text = _lines(self._columns, [head, *rows]) if head else ""
        unfinished = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        with _explained(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(text, encoding="utf-8", newline="")
            unfinished.replace(self._path)


def read_metrics(path: Path) -> dict[str, FloatArray]:
    """The columns of a file that :class:`MetricLog` wrote, (rows,) float64; NaN where empty.

    Raises
    ------
    StoreError
        If the file cannot be read or is something else.
    """
    columns, rows = _read(path)
    return {
        name: np.array([float(row[name] or "nan") for row in rows], np.float64) for name in columns
    }


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with _explained(path):
        text = path.read_text(encoding="utf-8")
    if not text:
        return [], []
    # A crash may have cut the last line off.
    whole = text[: text.rfind("\n") + 1]
    columns, *rows = list(csv.reader(io.StringIO(whole))) or [[]]
    if columns[:1] != ["step"]:
        raise StoreError(f"{path} is no record of a training. Move it away and start again.")
    try:
        found = [dict(zip(columns, row, strict=True)) for row in rows]
        [float(value or "nan") for row in found for value in row.values()]
        [int(row["step"]) for row in found]
    except ValueError:
        raise StoreError(
            f"{path} is damaged: a row does not fit its columns. Move it away and start again; "
            "the training itself does not need it."
        ) from None
    return columns, found


def _lines(columns: list[str], rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"The record of the training {path} cannot be read or written: {error}. Make room or "
            "allow access, and start again."
        ) from None
