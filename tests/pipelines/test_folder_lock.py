"""Two runs in one folder: the second is told who the first is; the dead hold nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ccrl_wsi.errors import ConfigError, RunStopped
from pipelines import folder_lock
from pipelines.folder_lock import FolderLock, Holder, exclusive

HOLD = (
    "import sys, time; from pathlib import Path; from pipelines.folder_lock import exclusive\n"
    "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)
ELSEWHERE = Holder("abc", "another-computer", 4711, 1.0, "2026-01-01T00:00:00+00:00", 17)


@pytest.fixture(autouse=True)
def short_beats(monkeypatch):
    monkeypatch.setattr(folder_lock, "BEAT_SECONDS", 0.05)


def write(folder, holder):
    (folder / ".lock").write_text(json.dumps(asdict(holder)))


def test_a_second_run_is_told_who_the_first_is(tmp_path):
    with (
        exclusive(tmp_path),
        pytest.raises(ConfigError, match=rf"process {os.getpid()} on \S+ since 20.* working in"),
        exclusive(tmp_path),
    ):
        pass


def test_the_folder_is_free_afterwards(tmp_path):
    for _ in range(3):
        with exclusive(tmp_path):
            pass
    assert (tmp_path / ".lock").read_text() == ""


def test_what_a_killed_process_held_is_free_at_once(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=f"process {process.pid} "), exclusive(tmp_path):
        pass
    process.kill()
    process.wait()
    began = time.monotonic()
    with exclusive(tmp_path):
        assert time.monotonic() - began < 2


def test_a_silent_holder_on_another_computer_is_taken_over(tmp_path):
    write(tmp_path, ELSEWHERE)
    with exclusive(tmp_path) as lock:
        assert json.loads((tmp_path / ".lock").read_text())["run"] == lock.me.run


def test_a_living_holder_on_another_computer_is_respected(tmp_path, monkeypatch):
    """Its file system keeps locks to itself; only the number in the file tells."""
    import threading

    ended = threading.Event()

    def beat():
        number = 0
        while not ended.wait(0.02):
            number += 1
            write(tmp_path, replace(ELSEWHERE, beat=number))

    write(tmp_path, ELSEWHERE)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(ConfigError, match="process 4711 on another-computer"):
            FolderLock(tmp_path).__enter__()
    finally:
        ended.set()
        thread.join()


def test_without_locks_of_the_file_system_a_living_process_here_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "_try_lock", lambda file: True)
    with (
        exclusive(tmp_path),
        pytest.raises(ConfigError, match=f"process {os.getpid()} "),
        exclusive(tmp_path),
    ):
        pass


def test_a_run_that_was_taken_over_stops_and_leaves_the_lock_alone(tmp_path):
    with exclusive(tmp_path) as lock:
        lock.check()
        write(tmp_path, ELSEWHERE)
        deadline = time.monotonic() + 10
        while lock._taken_by is None:
            time.sleep(0.02)
            assert time.monotonic() < deadline
        with pytest.raises(RunStopped, match=re.escape("4711 on another-computer since")):
            lock.check()
    assert json.loads((tmp_path / ".lock").read_text())["run"] == "abc"


def test_a_run_that_stood_still_looks_before_it_trusts_its_beats(tmp_path, monkeypatch):
    # Beats that never come again are those of a process that has just been woken.
    monkeypatch.setattr(FolderLock, "_keep_beating", lambda self: None)
    with exclusive(tmp_path) as lock:
        write(tmp_path, ELSEWHERE)
        time.sleep(3 * folder_lock.BEAT_SECONDS)
        with pytest.raises(RunStopped, match="4711 on another-computer"):
            lock.check()


def test_a_dead_number_of_another_computer_of_the_same_name_says_nothing(tmp_path):
    here = replace(folder_lock._this_process(), process=2**22 + 1)
    assert folder_lock._has_ended_here(here)
    assert not folder_lock._has_ended_here(replace(here, computer="another"))


def test_a_mount_is_found_by_whole_names(monkeypatch):
    kinds = [("/", "ext4"), ("/data/co", "nfs4")]
    mounts = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in kinds]
    monkeypatch.setattr(folder_lock.psutil, "disk_partitions", lambda all: mounts)
    assert not folder_lock._is_shared(Path("/data/cohort/out"))
    assert folder_lock._is_shared(Path("/data/co/out"))


def test_a_folder_that_is_gone_ends_the_run(tmp_path):
    (tmp_path / "out").mkdir()
    with exclusive(tmp_path / "out") as lock:
        lock.check()
        (tmp_path / "out").rename(tmp_path / "elsewhere")
        with pytest.raises(RunStopped, match="out is gone"):
            lock.check()


def test_of_two_newcomers_at_a_dead_lock_the_last_to_write_remains(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "_is_shared", lambda root: True)
    other = replace(ELSEWHERE, run="newcomer", process=1)

    def both_write(seconds, sleep=time.sleep):
        if seconds == folder_lock.BEAT_SECONDS / 2:
            write(tmp_path, other)
        sleep(seconds)

    monkeypatch.setattr(folder_lock.time, "sleep", both_write)
    with pytest.raises(ConfigError, match="process 1 on another-computer"):
        FolderLock(tmp_path).__enter__()


@pytest.mark.parametrize("text", ["process 12 on somewhere", "{", "[]", '{"run": 3}'])
def test_what_cannot_be_read_holds_nothing(tmp_path, text):
    (tmp_path / ".lock").write_text(text)
    with exclusive(tmp_path):
        pass


def test_a_folder_that_vanishes_does_not_hide_the_first_error(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()

    def vanish():
        (folder / ".lock").unlink()
        folder.rmdir()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), exclusive(folder):
        vanish()
