"""Memory that arrays no longer need stays with the process for a while, where it can be told so.

glibc gives the memory of every large array back to the system, which has to empty it before it
lends it again. Dask's own setting for its workers makes that worse. Other C libraries have no such
switches and are left alone.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
_NEVER, _NONE, _USUAL = -1, 0, 65536
_LARGEST_IMAGE = 64 << 20
_LEFT_FREE = 256 << 20

ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""The environment of workers: only so does what follows hold for all threads of a process."""


@contextmanager
def freed_memory_kept(*, of_network: bool) -> Iterator[None]:
    """Keep up to 256 MB for the next tile; and all that a network needs, until the block ends.

    A tenth of a tile's time went into fresh pages, and a fifth to a quarter of a network's on CPU
    cores. After the block a network's memory is given back, because Dask stops workers that seem
    to need too much.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _LARGEST_IMAGE)
    library.mallopt(_TRIM_THRESHOLD, _NEVER if of_network else _LEFT_FREE)
    library.mallopt(_MMAP_MAX, _NONE if of_network else _USUAL)
    try:
        yield
    finally:
        if of_network:
            library.mallopt(_TRIM_THRESHOLD, _LEFT_FREE)
            library.mallopt(_MMAP_MAX, _USUAL)
            library.malloc_trim(0)


def _glibc() -> Any | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
    except OSError:
        return None
    has_switches = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    return library if has_switches else None
