"""Freed memory stays with the process while it is of use, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipelines import freed_memory
from pipelines.freed_memory import ONE_ARENA, freed_memory_kept

PROGRAM = """
import resource, sys, threading
from contextlib import nullcontext
import numpy as np
from pipelines.freed_memory import freed_memory_kept

mib = int(sys.argv[2])
ways = {"plain": nullcontext, "tiles": lambda: freed_memory_kept(of_network=False)}
ways["network"] = lambda: freed_memory_kept(of_network=True)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident_mib():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith("VmRSS")) / 1024

def work():
    with ways[sys.argv[1]]():
        np.ones(mib << 20, np.uint8)
        before = faults()
        for _ in range(10):
            np.ones(mib << 20, np.uint8)
        print(faults() - before)
    print(resident_mib())

thread = threading.Thread(target=work)
thread.start(), thread.join()
"""

needs_glibc = pytest.mark.skipif(freed_memory._glibc() is None, reason="only glibc has switches")


def faults_and_memory(how: str, mib: int) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, str(mib)],
        check=True,
        capture_output=True,
        text=True,
        # Without Dask's own setting, which the test may have inherited.
        env={n: v for n, v in os.environ.items() if not n.startswith("MALLOC_")} | ONE_ARENA,
    )
    return [float(line) for line in done.stdout.split()]


@needs_glibc
def test_images_of_the_next_tile_need_no_fresh_pages():
    # The C library keeps up to 32 MiB on its own.
    assert faults_and_memory("tiles", 48)[0] < faults_and_memory("plain", 48)[0] / 5


@needs_glibc
def test_a_networks_memory_is_kept_in_the_block_and_given_back_after_it():
    kept, resident_mib = faults_and_memory("network", 100)
    assert kept < faults_and_memory("plain", 100)[0] / 10
    assert resident_mib < 100


def test_without_the_switches_nothing_happens(monkeypatch):
    monkeypatch.setattr(freed_memory.sys, "platform", "darwin")
    with freed_memory_kept(of_network=True):
        assert freed_memory._glibc() is None


class Switches:
    """Stands in for glibc: what is set, and how often memory was given back."""

    def __init__(self, answer=1):
        self.set, self.trims, self.answer = {}, 0, answer

    def mallopt(self, name, value):
        self.set[name] = value
        return self.answer

    def malloc_trim(self, _):
        self.trims += 1


def test_memory_is_given_back_when_the_last_network_of_the_process_ends(monkeypatch):
    switches = Switches()
    monkeypatch.setattr(freed_memory, "_glibc", lambda: switches)
    first, second = freed_memory_kept(of_network=True), freed_memory_kept(of_network=True)
    first.__enter__()
    second.__enter__()
    with freed_memory_kept(of_network=False):
        pass
    first.__exit__(None, None, None)
    assert (switches.set[freed_memory._MMAP_THRESHOLD], switches.trims) == (160 << 20, 0)
    assert switches.set[freed_memory._TRIM_THRESHOLD] == -1
    second.__exit__(None, None, None)
    assert (switches.set[freed_memory._MMAP_THRESHOLD], switches.trims) == (64 << 20, 1)


def test_a_switch_that_is_refused_is_told(monkeypatch, caplog):
    monkeypatch.setattr(freed_memory, "_glibc", lambda: Switches(answer=0))
    with caplog.at_level("DEBUG", "ccrl_wsi"), freed_memory_kept(of_network=False):
        pass
    assert "mallopt(-3, " in caplog.text
