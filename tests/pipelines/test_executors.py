"""Serial and Dask do the same; Dask keeps little in flight and survives what workers meet."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import dask
import pytest
from dask.utils import key_split
from distributed import Client, LocalCluster

from ccrl_wsi.config import ComputeSettings
from ccrl_wsi.errors import ConfigError, SlideError
from pipelines import dask_clusters, executors
from pipelines.dask_clusters import Workers
from pipelines.executors import Dask, Serial, each, open_executor
from pipelines.freed_memory import ONE_ARENA
from pipelines.lanes import lanes_for
from pipelines.machines import AddressMachine, GpuMachine, LocalMachine, SerialMachine, SlurmMachine
from pipelines.worker_watch import Watch


def square_or_fail(x: int) -> int:
    if x < 0:
        raise SlideError(f"{x} is below zero. Give another number.")
    return x * x


def divide(x: int) -> float:
    return 1 / x


def die(x: int) -> int:
    if x == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def visible_gpus() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


def on(client: Client) -> Dask:
    return Dask(Workers(client, dict, Watch(client)))


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        scheduler_kwargs={"allowed_failures": 1},
    ) as cluster:
        yield cluster


@pytest.fixture(params=["serial", "dask"])
def executor(request):
    if request.param == "serial":
        yield Serial()
        return
    cluster = request.getfixturevalue("cluster")
    with Client(cluster, set_as_default=False) as client:
        yield on(client)


def test_every_item_has_one_outcome(executor):
    outcomes = list(each(executor, square_or_fail, range(20)))
    assert sorted((o.item, o.result) for o in outcomes) == [(x, x * x) for x in range(20)]


def test_equal_items_are_all_done(executor):
    assert [o.result for o in each(executor, square_or_fail, [3, 3, 3])] == [9, 9, 9]


def test_a_known_error_is_an_outcome_and_the_rest_goes_on(executor):
    outcomes = {o.item: o for o in each(executor, square_or_fail, [2, -1, 3])}
    assert outcomes[-1].failed
    assert "below zero" in outcomes[-1].error
    assert (outcomes[2].result, outcomes[3].result) == (4, 9)


def test_an_unforeseen_error_is_an_outcome_with_its_trace_and_the_rest_goes_on(executor):
    outcomes = {o.item: o for o in each(executor, divide, [1, 0, 4])}
    assert (outcomes[1].result, outcomes[4].result) == (1, 0.25)
    fault = outcomes[0].fault
    assert fault.message.startswith("ZeroDivisionError: division by zero. This was not foreseen")
    assert "in divide" in fault.trace


def fail_at_first(folder: Path) -> int:
    """Fails until it was tried three times."""
    tries = len(list(folder.iterdir()))
    (folder / str(tries)).touch()
    if tries < 2:
        raise OSError("the network is away")
    return tries


def test_what_fails_for_a_moment_is_tried_again(executor, tmp_path):
    [outcome] = each(executor, fail_at_first, [tmp_path])
    assert (outcome.result, outcome.failed) == (2, False)


def test_tries_are_limited(executor, tmp_path):
    executor.retries = 1
    [outcome] = each(executor, fail_at_first, [tmp_path])
    assert "the network is away" in outcome.error
    assert len(list(tmp_path.iterdir())) == 2


def test_what_an_outcome_brings_about_is_done_too(executor):
    waiting = [1]

    def take():
        return waiting.pop() if waiting else None

    seen = []
    for outcome in executor.run(square_or_fail, take):
        seen.append(outcome.item)
        if outcome.item < 20:
            waiting += [2 * outcome.item, 2 * outcome.item + 1]
    assert sorted(seen) == list(range(1, 40))


def test_items_are_drawn_only_as_workers_take_them(executor):
    drawn = []

    def items():
        for x in range(100):
            drawn.append(x)
            yield x

    outcomes = each(executor, square_or_fail, items())
    next(outcomes)
    assert len(drawn) <= 6
    assert len(list(outcomes)) == 99


def test_an_item_that_kills_its_workers_fails_alone(cluster):
    with Client(cluster, set_as_default=False) as client:
        outcomes = {o.item: o for o in each(on(client), die, range(4))}
    assert outcomes[1].failed
    assert "Workers died" in outcomes[1].error
    assert [outcomes[x].result for x in (0, 2, 3)] == [0, 2, 3]


def test_a_running_scheduler_is_reached_by_its_address(cluster):
    with open_executor(AddressMachine(address=cluster.scheduler_address)) as executor:
        assert [o.result for o in each(executor, square_or_fail, [5])] == [25]


def test_no_scheduler_at_the_address_is_told(monkeypatch):
    monkeypatch.setattr(dask_clusters, "CONNECT_SECONDS", 1)
    with (
        pytest.raises(ConfigError, match=r"No Dask scheduler answers at tcp://127.0.0.1:9"),
        open_executor(AddressMachine(address="tcp://127.0.0.1:9")),
    ):
        pass


def test_names_of_tasks_that_are_done_are_forgotten(cluster, monkeypatch):
    monkeypatch.setattr(executors, "LOOK_SECONDS", 0.0)
    with Client(cluster, set_as_default=False) as client:
        executor, most = on(client), 0
        for _ in each(executor, square_or_fail, range(200)):
            most = max(most, key_split.cache_info().currsize)
    assert 0 < most < 50


def dask_keeps() -> tuple[int, bool]:
    """Messages of a connection, and whether stacks are looked at."""
    names = ("admin.low-level-log-length", "worker.profile.enabled")
    length, profiles = (dask.config.get(f"distributed.{name}") for name in names)
    return length, profiles


def test_dask_keeps_few_messages_and_looks_at_no_stacks():
    usual = dask_keeps()
    with open_executor(LocalMachine(workers=1)) as executor:
        assert all(o.result == o.item**2 for o in each(executor, square_or_fail, range(150)))
        scheduler = executor.client.cluster.scheduler
        (to_worker,) = scheduler.stream_comms.values()
        for kept in (
            executor.client.scheduler_comm.recent_message_log,
            to_worker.recent_message_log,
            scheduler.transition_log,
        ):
            assert kept.maxlen == 100
        spans = scheduler.extensions["spans"].spans.values()
        assert [span._metadata for span in spans] == [None]
        assert set(executor.client.run(dask_keeps).values()) == {(100, False)}
    assert dask_keeps() == usual


def test_what_the_user_tells_dask_and_what_a_dashboard_shows_is_kept():
    with (
        dask.config.set({"distributed.admin.low-level-log-length": 321}),
        open_executor(LocalMachine(workers=1)) as executor,
    ):
        assert set(executor.client.run(dask_keeps).values()) == {(321, False)}
    assert dask_clusters._measured_less(LocalMachine(dashboard="127.0.0.1:8787")) == {}


def test_no_gpu_is_told(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="no CUDA GPU"), open_executor(GpuMachine()):
        pass


def told_of_cores():
    """What this process was begun with, and how many threads it would take behind a GPU."""
    begun_with = Path("/proc/self/environ").read_text(encoding="utf-8").split("\0")
    return set(begun_with), lanes_for(ComputeSettings(), on_gpu=True).behind


def test_every_gpu_gets_a_worker_that_sees_only_it(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr(dask_clusters, "cpu_count", lambda: 16)
    for name in (*dask_clusters.ONE_THREAD, *ONE_ARENA):
        monkeypatch.setenv(name, "")  # So that what Dask sets is taken back.
        monkeypatch.delenv(name)
    with open_executor(GpuMachine()) as executor:
        assert executor.resources == {"GPU": 1}
        executor.client.wait_for_workers(2)
        seen = executor.client.run(visible_gpus)
        assert sorted(seen.values()) == ["2", "5"]
        # Four partitions at once on sixteen cores.
        for begun_with, behind in executor.client.run(told_of_cores).values():
            assert {"OMP_NUM_THREADS=4", "MALLOC_ARENA_MAX=1"} <= begun_with
            assert behind == 2
        assert [o.result for o in each(executor, square_or_fail, [4])] == [16]


def test_without_jobqueue_slurm_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    machine = SlurmMachine(cores=1, memory="1 GB")
    with pytest.raises(ConfigError, match=r"ccrl-wsi\[slurm\]"), open_executor(machine):
        pass


def test_serial_needs_no_workers():
    with open_executor(SerialMachine()) as executor:
        assert executor.description == "this process"
