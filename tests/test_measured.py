"""The table of a benchmark: what is printed is what is kept."""

from __future__ import annotations

import json

import pytest
from measured import Table, in_turns


def test_a_table_is_printed_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results.jsonl"))
    table = Table("Two ways", ("way", "seconds", "ratio"))
    table.row("ours", 0.5, 1.0)
    table.row("theirs", 2.25, None)
    table.publish("ways")
    said = capsys.readouterr().out
    assert said.startswith("Two ways (")
    assert [line.split() for line in said.splitlines()[1:]] == [
        ["way", "seconds", "ratio"],
        ["ours", "0.5", "1"],
        ["theirs", "2.25", "-"],
    ]
    [line] = (tmp_path / "results.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert kept["rows"][1] == {"way": "theirs", "seconds": 2.25, "ratio": None}
    assert "cores" in kept["machine"]


def test_a_row_must_fit_the_columns():
    with pytest.raises(ValueError, match="2 cells for the columns"):
        Table("x", ("a",)).row("one", "two")


def test_works_take_turns_and_warming_up_is_not_counted():
    order = []
    ticks = iter(range(100))
    seconds = in_turns(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        rounds=2,
        clock=lambda: float(next(ticks)),
    )
    assert "".join(order) == "ababab"
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
