"""What every benchmark shares: fair timing, the machine's name, one table, one line of JSON.

    from measured import Table, in_turns
    seconds = in_turns({"ours": work, "theirs": other}, rounds=5)
    table = Table("what was compared", ("path", "seconds", "ratio"))
    table.row("ours", median(seconds["ours"]), 1.0)
    table.publish("name_of_the_benchmark")

The line goes to ``benchmarks/results.jsonl``, or to the file that ``BENCH_RESULTS`` names.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil

RESULTS = Path(__file__).with_name("results.jsonl")

Cell = str | int | float | None


class Table:
    """Rows of figures under named columns; figures that fall short are printed like all others."""

    def __init__(self, title: str, columns: tuple[str, ...]) -> None:
        self.title, self.columns = title, columns
        self.rows: list[tuple[Cell, ...]] = []

    def row(self, *cells: Cell) -> None:
        """Add a row; None is a figure that was not measured."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for the columns {', '.join(self.columns)}")
        self.rows.append(cells)

    def __str__(self) -> str:
        texts = [self.columns, *[tuple(map(_text, row)) for row in self.rows]]
        widths = [max(len(row[i]) for row in texts) for i in range(len(self.columns))]
        lines = [
            "  ".join(
                text.ljust(width) if i == 0 else text.rjust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in texts
        ]
        return "\n".join([f"{self.title} ({machine()})", *lines])

    def publish(self, benchmark: str) -> None:
        """Print the table and append it as one line of JSON."""
        print(self)
        line = {
            "benchmark": benchmark,
            "title": self.title,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
        }
        with Path(os.environ.get("BENCH_RESULTS", RESULTS)).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def in_turns(
    works: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 3,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every work in every round, taken in turns so that a busy moment hits all alike.

    ``clock=time.process_time`` gives core-seconds of this process instead.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(warm_up + rounds):
        for name, work in works.items():
            began = clock()
            work()
            if number >= warm_up:
                seconds[name].append(clock() - began)
    return seconds


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure; a single round is itself."""
    return {name: median(figures[name] for figures in rounds) for name in rounds[0]}


def spread(values: Sequence[float]) -> str:
    """The lowest and the highest."""
    return f"{_text(float(min(values)))}-{_text(float(max(values)))}"


def machine() -> str:
    """Processor, cores, memory and GPU of this computer, in a few words."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {_gpu()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    return (
        f"{cell:,.3g}"
        if isinstance(cell, float) and abs(cell) < 1000
        else (f"{cell:,.0f}" if isinstance(cell, float) else str(cell))
    )
