"""Threads beside the network change neither order nor bytes, and are bounded."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.config import ComputeSettings
from ccrl_wsi.device_work import Span, tell
from ccrl_wsi.errors import ModelError
from ccrl_wsi.nuclei.watershed import Watershed
from ccrl_wsi.parts import read_part
from ccrl_wsi.records import SlideSource
from pipelines import partitions, stopwatch
from pipelines.jobs import Tally
from pipelines.lanes import CORES, Lanes, in_order, lanes_for
from pipelines.output_folder import made_folder
from pipelines.partitions import run_partition
from pipelines.plan import identify_slide, job_of, plan_slide
from pipelines.stopwatch import SharedTime, Stopwatch, UnitedTime


def test_results_come_in_order_and_no_more_are_under_way_than_allowed():
    drawn, taken, most = 0, 0, 0

    def items():
        nonlocal drawn, most
        for number in range(20):
            drawn += 1
            most = max(most, drawn - taken)
            yield number

    def work(number):
        time.sleep(0.01 * (number % 3 == 0))
        return number**2

    results = []
    for result in in_order(work, items(), threads=3, at_once=4, name="test"):
        taken += 1
        results.append(result)

    assert results == [number**2 for number in range(20)]
    # The one that is handed over counts as taken only after the hand-over.
    assert most <= 4


def test_without_threads_the_caller_works_and_draws_one_item_at_a_time():
    seen = []

    def work(number):
        seen.append((number, threading.current_thread()))
        return number

    results = in_order(work, iter(range(3)), threads=0, at_once=1, name="test")

    assert next(results) == 0
    assert seen == [(0, threading.current_thread())]
    assert list(results) == [1, 2]


@pytest.mark.parametrize("threads", [0, 2])
def test_what_goes_wrong_in_a_thread_is_raised_and_ends_the_rest(threads):
    worked = []

    def work(number):
        worked.append(number)
        if number == 3:
            raise ModelError("number 3 is wrong")
        return number

    with pytest.raises(ModelError, match="number 3"):
        list(in_order(work, range(1000), threads=threads, at_once=3, name="test"))
    assert len(worked) < 10


def test_what_goes_wrong_among_the_items_is_raised():
    def items():
        yield 1
        raise ModelError("no more")

    with pytest.raises(ModelError, match="no more"):
        list(in_order(str, items(), threads=2, at_once=3, name="test"))


def test_cores_that_run_the_network_get_no_threads_behind_it():
    assert lanes_for(ComputeSettings(), on_gpu=False) == Lanes(readers=1, ahead=2, behind=0)
    assert lanes_for(ComputeSettings(), on_gpu=True).behind >= 1
    given = ComputeSettings(extract_behind=3, read_ahead=0)
    assert lanes_for(given, on_gpu=False) == Lanes(readers=0, ahead=0, behind=3)


@pytest.mark.parametrize(("told", "behind"), [("1", 1), ("4", 2), ("64", 4)])
def test_threads_behind_a_gpu_leave_cores_to_the_partitions_beside(monkeypatch, told, behind):
    monkeypatch.setenv(CORES, told)
    assert lanes_for(ComputeSettings(), on_gpu=True).behind == behind


def test_the_seconds_of_a_lane_are_shared_by_its_threads():
    busy = Lanes(readers=1, ahead=2, behind=4).busy({"read": 2.0, "segment": 6.0, "crop": 2.0})

    assert busy == {"read": 2.0, "network": 0.0, "nuclei": 2.0}


def test_the_busiest_lane_is_told_from_the_tallies():
    one = Tally(lane_seconds={"read": 1.0, "network": 2.0}, elapsed_seconds=4.0, wall_seconds=4.0)
    gpu = replace(one, device_seconds=3.0)

    assert (one + one).lane_shares() == {"read": 0.25, "network": 0.5}
    assert gpu.lane_shares() == {"read": 0.25, "gpu": 0.75}
    assert Tally().lane_shares() == {}


class Late:
    """Maps that arrive some time after they were asked for, as a GPU's do."""

    tile = None

    def __init__(self, maps, seconds):
        self.maps, self.began = maps, time.perf_counter()
        self.there = self.began + seconds

    def wait(self):
        time.sleep(max(0.0, self.there - time.perf_counter()))
        # A GPU takes one tile after the other.
        tell(Span("network", self.began, self.began + 0.002))
        return self.maps


class LateWatershed(Watershed):
    """In two parts: the network's is a copy of the pixels, and comes late and out of order."""

    device = "cpu"

    def __init__(self):
        super().__init__()
        self.asked, self.finished, self.most = 0, 0, 0
        self.counting = threading.Lock()

    def predict(self, rgb, mpp):
        with self.counting:
            self.asked += 1
            self.most = max(self.most, self.asked - self.finished)
        return Late({"rgb": rgb, "mpp": np.array(mpp)}, 0.04 * (self.asked % 2))

    def segment(self, maps):
        with self.counting:
            self.finished += 1
        return self(maps["rgb"], float(maps["mpp"]))


@pytest.fixture
def job(slide_file, smoke, tmp_path):
    tiles = smoke.tiles.model_copy(update={"core_px": 128, "partition_side": 8})
    settings = smoke.model_copy(update={"tiles": tiles})
    folder = made_folder(tmp_path / "out")
    plan = plan_slide(
        identify_slide(SlideSource(slide_file, "drawn"), settings, ""), settings, folder
    )
    made = job_of(plan, plan.partitions[0], settings, folder)
    made.target.parent.mkdir(parents=True)
    return made


def with_threads(job, behind, ahead=2):
    compute = ComputeSettings(device="cpu", extract_behind=behind, read_ahead=ahead)
    return replace(job, settings=job.settings.model_copy(update={"compute": compute}))


def same_cells(one, other):
    assert len(one) == len(other) > 100
    assert one.outlines.xy.tobytes() == other.outlines.xy.tobytes()
    for name in ("centroid_px", "area_um2", "measurements", "embedding", "probability", "tile"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_threads_change_no_byte(job, monkeypatch):
    tally = run_partition(with_threads(job, 0, ahead=0))
    serial = read_part(job.target)
    late = LateWatershed()
    monkeypatch.setattr(partitions, "segmenter_of", lambda settings: late)
    watch = Stopwatch(keeps_events=True)
    again = run_partition(with_threads(job, 3), watch)

    same_cells(serial, read_part(job.target))
    assert (again.n_cells, again.n_clipped) == (tally.n_cells, tally.n_clipped)
    assert late.asked == late.finished == again.n_tiles
    assert 1 < late.most <= 4
    assert 0.002 <= again.device_seconds <= 0.002 * again.n_tiles + 1e-9
    lanes = {event.lane for event in watch.events}
    assert {"GPU network", "reader_0", "nuclei_0", "nuclei_1"} <= lanes


def test_an_error_behind_the_network_is_the_partitions(job, monkeypatch):
    class Broken(LateWatershed):
        def segment(self, maps):
            raise ModelError("the host could not")

    monkeypatch.setattr(partitions, "segmenter_of", lambda settings: Broken())
    with pytest.raises(ModelError, match="the host could not"):
        run_partition(with_threads(job, 2))
    assert not job.target.exists()


def test_every_thread_counts():
    watch = Stopwatch()

    def work(_):
        with watch.stage("work"):
            time.sleep(0.02)

    list(in_order(work, range(8), threads=4, at_once=8, name="test"))

    assert watch.seconds["work"] >= 8 * 0.02


def test_time_is_shared_by_those_who_work_at_once():
    passing = SharedTime()
    began = time.perf_counter()
    with passing.share() as first:
        with passing.share() as second:
            time.sleep(0.03)
        time.sleep(0.02)

    elapsed = time.perf_counter() - began
    assert first[0] + second[0] == pytest.approx(elapsed, abs=0.005)
    assert first[0] > second[0] >= 0.015


spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=30)


@given(spans)
def test_time_in_which_a_gpu_did_several_things_counts_once(spans):
    united = UnitedTime()
    counted = sum(united.add(float(begin), float(begin + length)) for begin, length in spans)

    seconds = {second for begin, length in spans for second in range(begin, begin + length)}
    assert counted == len(seconds)


def test_time_of_long_ago_is_forgotten(monkeypatch):
    monkeypatch.setattr(stopwatch, "_STRETCHES", 10)
    united = UnitedTime()
    assert sum(united.add(2.0 * i, 2.0 * i + 1) for i in range(100)) == 100
    assert united.add(198.0, 200.0) == 1.0
    assert len(united._begins) <= 10


def test_a_partitions_time_holds_all_but_loading_networks(job, monkeypatch):
    def slow(function, seconds):
        def call(*arguments):
            time.sleep(seconds)
            return function(*arguments)

        return call

    for name, seconds in (("segmenter_of", 0.7), ("reader_of", 0.2), ("write_part", 0.3)):
        monkeypatch.setattr(partitions, name, slow(getattr(partitions, name), seconds))
    run_partition(job)
    began = time.perf_counter()
    tally = run_partition(job)

    passed = time.perf_counter() - began
    assert tally.wall_seconds == pytest.approx(tally.elapsed_seconds, abs=0.05)
    assert tally.elapsed_seconds == pytest.approx(passed - 0.7, abs=0.1)
    assert tally.elapsed_seconds >= 0.5
