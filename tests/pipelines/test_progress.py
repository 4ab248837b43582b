"""What a run tells of itself while it works, to people and to programs."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from ccrl_wsi.errors import RunStopped
from ccrl_wsi.slides.slide_list import list_slides
from pipelines import progress
from pipelines.bottleneck import find_bottleneck
from pipelines.jobs import Tally
from pipelines.machines import SerialMachine
from pipelines.output_folder import OutputFolder
from pipelines.progress import Counts, Progress
from pipelines.run import run_cohort
from tests.pipelines.commands import start_until_first_part


def test_what_binds_is_named_with_what_would_help():
    seconds = {"read": 12.0, "segment": 3.0, "embed": 2.0, "write": 9.0}
    found = find_bottleneck(Tally(seconds=seconds, lane_seconds={"read": 6.0, "nuclei": 2.0}))
    assert (found.stage, found.share) == ("read", 0.6)
    assert "compute.read_ahead" in found.advice


def test_a_gpu_that_works_all_the_time_binds_however_fast_it_is_asked():
    lanes = {"read": 3.0, "network": 0.1, "nuclei": 4.0}
    gpu = Tally(
        seconds={"embed": 0.5},
        lane_seconds=lanes,
        elapsed_seconds=10.0,
        wall_seconds=10.0,
        device_seconds=9.0,
    )
    found = find_bottleneck(gpu)
    assert (found.stage, found.share) == ("gpu", round(9 / 16.5, 3))
    assert find_bottleneck(replace(gpu, device_seconds=2.0)).stage == "nuclei"


def test_partitions_that_share_a_gpu_share_its_time():
    both = Tally(
        lane_seconds={"read": 3.0, "network": 0.1, "nuclei": 12.0},
        elapsed_seconds=20.0,
        wall_seconds=10.0,
        device_seconds=8.0,
    )
    # The nuclei of each took 6 of the 10 seconds, the GPU 8.
    assert find_bottleneck(both).stage == "gpu"
    assert find_bottleneck(replace(both, wall_seconds=20.0)).stage == "nuclei"


def test_without_time_nothing_binds():
    assert find_bottleneck(Tally()) is None


def test_slides_not_opened_yet_count_like_those_that_were():
    assert Counts(slides=10, begun=4, kept=2, partitions=20).partitions_expected == 80
    assert Counts(slides=3, begun=3, kept=3).partitions_expected == 0
    assert Counts(slides=3).partitions_expected == 0
    assert Counts(slides=3, begun=1, failed=1, unopened=1, partitions=7).partitions_expected == 14


def test_a_finished_run_says_so_in_numbers(slide_file, smoke, tmp_path):
    slides = list_slides([str(slide_file), str(tmp_path / "gone.svs")])
    run_cohort(slides, tmp_path, smoke, SerialMachine())
    said = json.loads((tmp_path / "progress.json").read_text())
    report = json.loads((tmp_path / "run_report.json").read_text())
    assert said["state"] == "done"
    assert {n: said["slides"][n] for n in ("all", "done", "failed", "there_already")} == {
        "all": 2, "done": 1, "failed": 1, "there_already": 0,
    }  # fmt: skip
    assert said["slides"]["working"] == {}
    assert said["partitions"] == {"done": 12, "expected": 12}
    assert said["cells"] == report["cells_in_all"]["n_cells"] > 0
    shares = report["throughput"]["stage_shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert report["throughput"]["slowest_stage"] in ("read", "nuclei", "embed", "load")
    run_cohort(slides[:1], tmp_path, smoke, SerialMachine())
    again = json.loads((tmp_path / "progress.json").read_text())
    assert again["slides"]["there_already"] == 1
    assert again["cells"] == 0


def test_the_file_says_that_a_run_lives_also_while_nothing_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "FILE_EVERY_SECONDS", 0.02)
    file, owner = tmp_path / "progress.json", ["us"]

    def still_ours():
        if owner != ["us"]:
            raise RunStopped("Another run took the folder over.")

    with Progress(3, OutputFolder(tmp_path), still_ours) as told:
        assert read(file)["state"] == "running"
        before, deadline = file.stat().st_mtime_ns, time.monotonic() + 10
        while file.stat().st_mtime_ns == before:
            time.sleep(0.01)
            assert time.monotonic() < deadline
        told.counts.done = 2
        while read(file)["slides"]["done"] != 2:
            time.sleep(0.01)
            assert time.monotonic() < deadline
        # The file is the other run's now, to the last word.
        owner[:] = ["them"]
        time.sleep(0.1)
        file.write_text("{}")
        time.sleep(0.1)
        assert file.read_text() == "{}"
        owner[:] = ["us"]
    assert read(file)["state"] == "done"
    last = file.stat().st_mtime_ns
    time.sleep(0.1)
    assert file.stat().st_mtime_ns == last


def read(file):
    return json.loads(file.read_text())


def test_sigterm_ends_a_run_in_order_and_the_file_says_stopped(slide_file, tmp_path):
    process = start_until_first_part(slide_file, tmp_path)
    now = json.loads((tmp_path / "progress.json").read_text())
    assert (now["state"], now["process"]) == ("running", process.pid)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "The same command continues where it was." in said
    assert "Traceback" not in said
    assert json.loads((tmp_path / "progress.json").read_text())["state"] == "stopped"
    assert (tmp_path / ".lock").read_text() == ""
