"""Freed memory stays with the process while its network works, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipelines.network_memory import ONE_ARENA, _glibc

PROGRAM = """
import resource, sys, threading
from contextlib import nullcontext
import numpy as np
from pipelines.network_memory import kept_for_the_next_layer

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident_mib():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith("VmRSS")) / 1024

def work():
    with kept_for_the_next_layer() if sys.argv[1] == "kept" else nullcontext():
        np.ones(100 << 20, np.uint8)
        before = faults()
        for _ in range(10):
            np.ones(100 << 20, np.uint8)
        print(faults() - before)
    print(resident_mib())

thread = threading.Thread(target=work)
thread.start(), thread.join()
"""


def faults_and_memory(how):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **ONE_ARENA},
    )
    return [float(line) for line in done.stdout.split()]


@pytest.mark.skipif(_glibc() is None, reason="only glibc has these switches")
def test_freed_memory_is_kept_in_the_block_and_given_back_after_it():
    plain, _ = faults_and_memory("plain")
    kept, resident_mib = faults_and_memory("kept")

    assert kept < plain / 10
    assert resident_mib < 100


def test_without_the_switches_nothing_happens(monkeypatch):
    from pipelines import network_memory

    monkeypatch.setattr(network_memory.sys, "platform", "darwin")
    with network_memory.kept_for_the_next_layer():
        assert network_memory._glibc() is None
