"""The lock of a folder in an object store: held by one, given back, and taken over when dead."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from ccrl_wsi import object_storage
from ccrl_wsi.errors import ConfigError, RunStopped
from ccrl_wsi.object_storage import ObjectFolder
from pipelines import object_lock
from pipelines.object_lock import LOCK, ObjectLock, exclusive_objects
from tests.object_stores import empty_memory


@pytest.fixture
def folder(monkeypatch):
    monkeypatch.setattr(object_lock, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr(object_lock, "BEAT_SECONDS", 0.02)
    empty_memory()
    return ObjectFolder.at("memory://bucket/out")


def write_lock(folder: ObjectFolder, **said: object) -> None:
    folder.write(LOCK, json.dumps({"owner": "another", **said}).encode())


def test_a_held_folder_is_refused_and_free_again_afterwards(folder):
    with exclusive_objects(folder):
        with (
            pytest.raises(ConfigError, match=r"process \d+ on .* is working in memory://bucket"),
            exclusive_objects(folder),
        ):
            pass
        assert folder.exists(LOCK)
    assert folder.walk() == []
    with exclusive_objects(folder):
        pass


def test_it_is_free_again_after_an_error(folder):
    with pytest.raises(ZeroDivisionError), exclusive_objects(folder):
        raise ZeroDivisionError
    assert folder.walk() == []


def test_the_lock_of_a_process_that_ended_here_is_taken_over(folder):
    with exclusive_objects(folder):
        said = json.loads(folder.read(LOCK))
    for changed in ({"began": said["began"] - 60}, {"process": 2**22 + 1}):
        write_lock(folder, **{**said, **changed, "owner": "another"})
        with exclusive_objects(folder) as lock:
            lock.check()
    write_lock(folder, **{**said, "owner": "another"})
    with pytest.raises(ConfigError), exclusive_objects(folder):
        pass


@pytest.mark.parametrize(("age", "is_taken"), [(60, False), (200, True)])
def test_the_lock_of_another_computer_counts_until_it_is_old(folder, monkeypatch, age, is_taken):
    """By the clock of the store; what the other computer says of the time does not count."""
    write_lock(folder, computer="elsewhere", host="elsewhere", process=7, renewed=0.0)
    now = datetime.now(UTC)

    def modified(self, name):
        return now - timedelta(seconds=age) if name == LOCK else now

    monkeypatch.setattr(ObjectFolder, "modified", modified)
    if is_taken:
        with exclusive_objects(folder):
            assert json.loads(folder.read(LOCK))["owner"] != "another"
    else:
        with pytest.raises(ConfigError, match="process 7 on elsewhere"), exclusive_objects(folder):
            pass
        assert folder.walk() == [LOCK]


def test_it_is_renewed_and_its_loss_is_noticed(folder):
    with exclusive_objects(folder) as lock:
        first = json.loads(folder.read(LOCK))["renewed"]
        wait_until(lambda: json.loads(folder.read(LOCK))["renewed"] > first)
        lock.check()
        write_lock(folder, process=1)
        wait_until(lambda: lock._is_lost)
        with pytest.raises(RunStopped, match="another run may work there"):
            lock.check()
    assert json.loads(folder.read(LOCK))["owner"] == "another"


@pytest.mark.parametrize("knows_conditions", [True, False])
def test_of_many_that_begin_at_once_one_holds_the_folder(folder, monkeypatch, knows_conditions):
    """Also in a store that writes over what there is whatever it is told."""
    if not knows_conditions:
        monkeypatch.setattr(object_storage, "_create", object_storage._overwrite)
    monkeypatch.setattr(object_lock, "SETTLE_SECONDS", 0.5)
    together, held = threading.Barrier(6), []

    def begin() -> None:
        lock = ObjectLock(folder)
        together.wait()
        try:
            lock.take()
        except ConfigError:
            return
        held.append(lock)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    held[0].give_back()
    assert folder.walk() == []


def wait_until(holds) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
