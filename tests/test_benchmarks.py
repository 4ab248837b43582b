"""Benchmarks can be chosen by name, are all described, and count as they say."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from ccrl_wsi.geometry import Box
from pipelines.jobs import Tally

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
SHARED = {"drawn_cells", "known_nuclei", "measured"}
NAMES = {file.stem for file in FOLDER.glob("*.py")} - SHARED


@pytest.fixture(scope="module")
def benchmark():
    """Imports a benchmark by name, without its wish for one thread: other tests have their own."""
    with mock.patch.dict(os.environ):
        yield import_module


def test_the_fast_set_is_made_of_benchmarks_there_are():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (chosen,) = re.findall(r"^BENCH \?= (.*)$", makefile, re.MULTILINE)
    assert set(chosen.split()) <= NAMES
    assert len(chosen.split()) > 3


def test_every_benchmark_is_described_and_no_other():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    described = re.findall(r"^### `(\w+)`", text, re.MULTILINE)
    assert sorted(described) == sorted(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_says_in_a_line_what_it_is_and_how_it_is_called(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    assert first.startswith('"""')
    assert first.endswith(".")
    assert f"python benchmarks/{name}.py" in rest.partition('"""')[0]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([Box(0, 0, 512, 512)], 1.0),
        # The second read finds its tile among those kept.
        ([Box(0, 0, 512, 512), Box(0, 0, 256, 256)], 1.0),
        ([Box(0, 0, 100, 100)], 0.25),
        # Two tiles on a seam are both needed.
        ([Box(255, 0, 2, 1)], 0.5),
    ],
)
def test_decodes_are_counted_by_file_tile(benchmark, boxes, expected):
    decodes_per_tile = benchmark("reading").decodes_per_tile
    assert decodes_per_tile(iter(boxes), Box(0, 0, 512, 512), 256) == expected


def test_a_tile_that_is_no_longer_kept_is_decoded_again(benchmark):
    row = Box(0, 0, 129 * 256, 256)  # 128 of its tiles are kept
    whole = Box(0, 0, 129 * 256, 256)
    assert benchmark("reading").decodes_per_tile(iter([row, row]), whole, 256) == 2.0


@pytest.mark.parametrize(("text", "expected"), [("4x8", (4, 8)), ("8", (8, 8))])
def test_a_slide_is_so_many_blocks(benchmark, text, expected):
    assert benchmark("whole_job").shape(text) == expected


def test_nuclei_are_alike_to_a_hundredth(benchmark):
    labels = np.zeros((60, 60), np.int32)
    labels[:20, :20], labels[30:50, 30:50] = 1, 2
    other = np.where(labels == 2, 1, 2 * (labels == 1))
    share_alike = benchmark("stages").share_alike
    assert share_alike(labels, other) == 1
    other[0, :10] = 0
    assert share_alike(labels, other) == 0.5


def test_lanes_are_told_per_area(benchmark):
    tally = Tally(
        n_cells=7,
        area_mm2=2.0,
        lane_seconds={"read": 1.0, "network": 0.1},
        elapsed_seconds=4.0,
        wall_seconds=4.0,
        device_seconds=3.0,
    )
    table = benchmark("timeline").table_of(tally)
    assert table.rows == [("read", 0.5, 0.25), ("network", 1.5, 0.75)]
