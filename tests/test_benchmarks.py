"""Benchmarks can be chosen by name, are all described, and count as they say."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from ccrl_wsi.config import load_settings
from ccrl_wsi.geometry import Box
from ccrl_wsi.slides.array_reader import open_array
from pipelines.jobs import Tally
from pipelines.stopwatch import Event

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


def decodes(benchmark, boxes, size, n_kept=128):
    counter = benchmark("reading").DecodeCounter((256, 128), size, n_kept * 4 * 256 * 128)
    for box in boxes:
        counter.note(0, box)
    return counter.per_tile


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([Box(0, 0, 512, 256)], 1.0),
        # The second read finds its tile among those kept.
        ([Box(0, 0, 512, 256), Box(0, 0, 256, 128)], 1.0),
        ([Box(0, 0, 100, 100)], 0.25),
        # Two tiles on a seam are both needed.
        ([Box(255, 0, 2, 1)], 0.5),
        # There are none outside the slide.
        ([Box(-300, 0, 800, 900)], 1.0),
    ],
)
def test_decodes_are_counted_by_file_tile(benchmark, boxes, expected):
    assert decodes(benchmark, boxes, (512, 256)) == expected


def test_a_tile_that_is_no_longer_kept_is_decoded_again(benchmark):
    row = Box(0, 0, 129 * 256, 128)  # 128 of its tiles are kept
    assert decodes(benchmark, [row, row], (129 * 256, 128)) == 2.0


def test_of_a_region_the_first_row_is_decoded_last(benchmark):
    column = Box(0, 0, 256, 3 * 128)
    first, last = Box(0, 0, 256, 128), Box(0, 2 * 128, 256, 128)
    assert decodes(benchmark, [column, first], (256, 3 * 128), n_kept=1) == 1.0
    assert decodes(benchmark, [column, last], (256, 3 * 128), n_kept=1) == pytest.approx(4 / 3)


@pytest.mark.parametrize("tile_px", [240, 256, 512])
def test_a_run_decodes_little_twice(benchmark, tile_px):
    reading = benchmark("reading")
    info = open_array([np.zeros((4, 4, 3), np.uint8)], 0.25).info
    info = replace(info, level_tiles_px=((tile_px, tile_px),))
    run = reading.Run(mock.Mock(info=info), load_settings())
    before = replace(run, kept_bytes=reading.OPENSLIDES_OWN, order=list)
    # At least what lies in two margins of partitions of 4096 px.
    assert run.decodes(20_000) < {240: 1.12, 256: 1.13, 512: 1.26}[tile_px]
    assert before.decodes(20_000) > run.decodes(20_000) + 0.2


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
    assert table.rows == [("read", 0.5, 0.25), ("gpu", 1.5, 0.75)]


def test_what_a_gpu_did_has_rows_of_its_own_in_the_picture(benchmark, tmp_path):
    timeline = benchmark("timeline")
    lanes = ["nuclei_1", "GPU crops", "MainThread", "GPU encoder", "reader_0", "GPU network"]
    events = [Event(lane, lane.split("_")[0], i / 10, 1.0) for i, lane in enumerate(lanes)]

    in_order = ["reader_0", "MainThread", "GPU network", "nuclei_1", "GPU crops", "GPU encoder"]
    assert timeline.lanes_of(events) == in_order
    colors = [timeline.COLORS[lane] for lane in lanes if lane.startswith("GPU")]
    assert len({*colors, timeline.COLORS["network"], timeline.WAITING}) == 5
    timeline.write_trace(events, tmp_path / "timeline.json")
    rows = json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
    assert [row["tid"] for row in rows] == lanes


def test_threads_behind_a_gpu_get_the_maps_of_their_own_tiles(benchmark, tmp_path, monkeypatch):
    lanes = benchmark("lane_scaling")
    # Patched by the benchmark too; this puts back what there was.
    for name in ("segmenter_of", "reader_of", "cells_of_tile"):
        monkeypatch.setattr(lanes.partitions, name, getattr(lanes.partitions, name))
    monkeypatch.setattr(lanes, "BLOCKS", (3, 2))  # two tiles of unlike size, read from below
    job = lanes.prepared(tmp_path)
    tally = lanes.partitions.run_partition(lanes.with_threads(job, 1))
    assert tally.n_tiles == 2
    per_mm2 = tally.n_cells / tally.area_mm2
    assert 4000 < per_mm2 < 6000


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3000, 1020)])
def test_a_slide_repeats_its_block_pixel_by_pixel(benchmark, row, column):
    known = benchmark("known_nuclei")
    side = known.BLOCK_PX
    rng = np.random.default_rng(0)
    block = known.HoVerMaps(rng.random((side, side)), rng.random((side, side, 2)))
    rows, columns = (np.arange(first, first + 1100) % side for first in (row, column))
    found = known.piece(block, row, column, (1100, 1100))
    for maps, whole in zip(found, block, strict=True):
        assert np.array_equal(maps, whole[np.ix_(rows, columns)])
