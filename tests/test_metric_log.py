"""The record of a training is the same whether it was stopped or not."""

from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.errors import StoreError
from ccrl_wsi.training.learner import Moment
from ccrl_wsi.training.loop import Reading
from ccrl_wsi.training.metric_log import SPEED, MetricLog, read_metrics


def rates(moment):
    return {"lr": 0.001 * moment.step, "momentum": 0.999}


def reading(step, speed=100.0, **metrics):
    metrics = {"alignment": 1 / 3, "loss": step + 0.5} | metrics
    return Reading(Moment(step, 100, 8), metrics, speed)


def written(path, steps, start=0, speed=100.0):
    log = MetricLog(path, start, rates)
    for step in steps:
        log.append(reading(step, speed))


def test_columns_and_values(tmp_path):
    path = tmp_path / "new" / "metrics.csv"
    written(path, [0, 10])
    assert path.read_text().splitlines() == [
        "step,epoch,lr,momentum,loss,alignment,crops_per_second",
        "0,0,0,0.999,0.5,0.33333333,100",
        "10,1.25,0.01,0.999,10.5,0.33333333,100",
    ]
    columns = read_metrics(path)
    np.testing.assert_allclose(columns["loss"], [0.5, 10.5])


@pytest.mark.parametrize("resumed", [1, 10, 15, 20, 25])
def test_a_resumed_file_is_as_if_nobody_had_stopped(tmp_path, resumed):
    whole, stopped = tmp_path / "whole.csv", tmp_path / "stopped.csv"
    written(whole, [0, 10, 20, 30])
    written(stopped, [0, 10, 20])
    # A crash in the middle of a line.
    with stopped.open("a") as file:
        file.write("30,3.7")
    written(stopped, [s for s in (0, 10, 20, 30) if s >= resumed], start=resumed, speed=77.0)
    expected, got = read_metrics(whole), read_metrics(stopped)
    assert list(expected) == list(got)
    for name in expected:
        if name != SPEED:
            np.testing.assert_array_equal(expected[name], got[name])
    assert got[SPEED][-1] == 77
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stopped.csv", "whole.csv"]


def test_a_new_training_begins_a_new_file(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("something else\n")
    written(path, [0])
    assert read_metrics(path)["step"].tolist() == [0]


def test_a_resumed_training_without_its_file_begins_one(tmp_path):
    written(tmp_path / "metrics.csv", [30], start=25)
    assert read_metrics(tmp_path / "metrics.csv")["step"].tolist() == [30]


def test_a_metric_that_comes_later_gets_a_column_before_the_speed(tmp_path):
    path = tmp_path / "metrics.csv"
    log = MetricLog(path, 0, rates)
    log.append(reading(0))
    log.append(reading(10, prototype=2.0))
    log.append(reading(20))
    columns = read_metrics(path)
    assert list(columns)[-2:] == ["prototype", SPEED]
    np.testing.assert_array_equal(columns["prototype"], [np.nan, 2, np.nan])
    assert columns[SPEED].tolist() == [100, 100, 100]


def test_a_record_nothing_was_written_to_yet_is_empty(tmp_path):
    MetricLog(tmp_path / "metrics.csv", 0, rates)
    assert read_metrics(tmp_path / "metrics.csv") == {}
    written(tmp_path / "metrics.csv", [10], start=5)
    assert read_metrics(tmp_path / "metrics.csv")["step"].tolist() == [10]


@pytest.mark.parametrize(
    "text",
    ["a,b\n1,2\n", "step,loss\n1\n", "step,loss\nx,1\n", "step,loss\n1,x\n", "\n\n", "\xff\n"],
)
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match=r"metrics\.csv"):
        MetricLog(path, 5, rates)
    assert path.read_text(encoding="latin-1") == text


def test_a_folder_in_the_way_is_named(tmp_path):
    with pytest.raises(StoreError, match="cannot be read or written"):
        read_metrics(tmp_path / "absent.csv")
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(StoreError, match="cannot be read or written"):
        MetricLog(tmp_path / "metrics.csv", 0, rates)
