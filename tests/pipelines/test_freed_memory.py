"""Freed memory stays with the process where the C library can be told so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipelines.freed_memory import keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from pipelines.freed_memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(10):
    image = np.ones(5 << 20, np.float32)  # 20 MB: more than the C library keeps on its own
    other = np.ones(5 << 20, np.float32)
    del image, other
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def page_faults(how):
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="another C library than glibc")
def test_images_of_the_next_tile_need_no_fresh_pages():
    assert page_faults("keep") < page_faults("plain")


def test_it_can_be_asked_for_again():
    assert keep_freed_memory() == keep_freed_memory()
