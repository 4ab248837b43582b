"""Workers that would compute something else, or somewhere else, get no work."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import Client, LocalCluster, Worker

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.records import SlideSource
from pipelines import worker_watch
from pipelines.dask_clusters import connect
from pipelines.folder_sign import Sign
from pipelines.machines import AddressMachine
from pipelines.models import find_models
from pipelines.worker_setup import CODE, make_setup, problems_here


@pytest.fixture
def setup(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text("this very run")
    sign = Sign(tmp_path / "out", ".lock", "this very run")
    return make_setup([SlideSource(tmp_path / "a.svs", "a")], sign)


@pytest.fixture
def lock(setup):
    return setup.sign.folder / ".lock"


@pytest.fixture(scope="module")
def cluster():
    # Workers as threads: what they are told is what matters here.
    with LocalCluster(
        n_workers=1, processes=False, threads_per_worker=1, dashboard_address=None, protocol="tcp",
        host="127.0.0.1",
    ) as cluster:  # fmt: skip
        yield cluster


def test_this_process_fits_itself(setup):
    assert problems_here(setup) == []
    assert {"numpy", "torch", "opencv", CODE} <= set(setup.environment)


def test_another_version_is_named_with_both_numbers(setup):
    other = replace(setup, environment={**setup.environment, "zarr": "2.18"})
    [problem] = problems_here(other)
    assert problem.startswith("zarr is 3.")
    assert problem.endswith("there, 2.18 here")


def test_other_code_under_the_same_version_is_noticed(setup):
    [problem] = problems_here(replace(setup, environment={**setup.environment, CODE: "0"}))
    assert problem.startswith(CODE)


def test_slides_that_are_not_seen_are_named(setup, tmp_path):
    gone = tuple(tmp_path / name for name in "abcd")
    [problem] = problems_here(replace(setup, folders=gone))
    assert str(tmp_path / "a") in problem
    assert problem.endswith("and 1 more")


def test_another_folder_of_the_same_name_is_noticed(setup, monkeypatch):
    monkeypatch.setattr("pipelines.worker_setup.PATIENCE_SECONDS", 0.3)
    [problem] = problems_here(replace(setup, sign=Sign(setup.sign.folder, ".lock", "another run")))
    assert "does not see this run's output folder" in problem


def test_a_file_that_shows_late_is_waited_for(setup, lock):
    lock.unlink()
    timer = threading.Timer(0.5, lock.write_text, ["this very run"])
    timer.start()
    assert problems_here(setup) == []
    timer.join()


def test_another_network_under_the_same_path_is_noticed(setup, smoke):
    models = find_models(smoke)
    assert problems_here(replace(setup, settings=smoke, models=models)) == []
    other = replace(models, encoder_fingerprint="00ff")
    [problem] = problems_here(replace(setup, settings=smoke, models=other))
    assert problem.startswith("its encoder is another one (")


def test_a_worker_that_does_not_fit_stops_the_run_before_it_begins(setup, cluster):
    other = replace(setup, environment={**setup.environment, "numpy": "1.0"})
    machine = AddressMachine(address=cluster.scheduler_address)
    with (
        pytest.raises(ConfigError, match=r"worker tcp://\S+ does not fit: numpy is .* 1\.0 here"),
        connect(machine, other),
    ):
        pass


def test_a_worker_that_comes_later_and_does_not_fit_leaves(setup, lock, cluster, monkeypatch):
    machine = AddressMachine(address=cluster.scheduler_address)
    with connect(machine, setup) as workers:
        monkeypatch.setattr("pipelines.worker_setup.PATIENCE_SECONDS", 0.1)
        lock.write_text("another run")
        client = workers.client
        before = len(client.nthreads())
        joined = cluster.sync(_join, cluster.scheduler_address)
        deadline = time.monotonic() + 60
        while joined.status.name != "closed":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(client.nthreads()) == before


def test_the_driver_hears_of_workers_that_left_and_ends_when_none_fits(
    setup, lock, cluster, monkeypatch, caplog
):
    machine = AddressMachine(address=cluster.scheduler_address)
    with connect(machine, setup) as workers:
        monkeypatch.setattr("pipelines.worker_setup.PATIENCE_SECONDS", 0.1)
        lock.write_text("another run")
        for _ in range(3):
            cluster.sync(_join, cluster.scheduler_address)
        deadline = time.monotonic() + 60
        while len(workers.watch._refused) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        workers.watch.check(1)  # One that fits goes on.
        with pytest.raises(ConfigError, match="does not see this run's output folder"):
            workers.watch.check(0)


def test_a_driver_that_was_killed_leaves_nothing_that_sends_workers_away(setup, lock, cluster):
    """As after SIGKILL: the connection ends, nothing is taken back."""
    before = set(cluster.scheduler.worker_plugins)
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        name = f"{worker_watch.PREFIX}dead"
        client.register_plugin(worker_watch.ForgetRun(client.id, name), name=f"{name}-end")
        client.register_plugin(worker_watch.LateWorkers(setup, name), name=name)
        assert name in cluster.scheduler.worker_plugins
    deadline = time.monotonic() + 30
    while set(cluster.scheduler.worker_plugins) != before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    lock.write_text("another run")
    joined = cluster.sync(_join, cluster.scheduler_address)
    assert joined.status.name == "running"
    cluster.sync(joined.close)


def test_the_scheduler_keeps_nothing_of_a_run(setup, cluster):
    before = set(cluster.scheduler.worker_plugins)
    with connect(AddressMachine(address=cluster.scheduler_address), setup):
        assert len(set(cluster.scheduler.worker_plugins) - before) == 1
    assert set(cluster.scheduler.worker_plugins) == before


async def _join(address: str) -> Worker:
    return await Worker(address, nthreads=1, host="127.0.0.1", dashboard=False)


def test_the_client_of_a_setup_is_closed(setup, cluster):
    with connect(AddressMachine(address=cluster.scheduler_address), setup) as workers:
        client = workers.client
        assert isinstance(client, Client)
    assert client.status == "closed"


def test_slides_the_driver_does_not_see_are_not_asked_for(tmp_path):
    setup = make_setup([SlideSource(Path("/nowhere/a.svs"), "a")], Sign(tmp_path, "x", "y"))
    assert setup.folders == ()
