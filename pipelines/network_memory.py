"""Memory of a network on CPU cores: kept from layer to layer, given back after the partition."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h
_NEVER, _NONE = -1, 0

ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""The environment of workers: what follows holds for the threads of a process only with this."""


@contextmanager
def kept_for_the_next_layer() -> Iterator[None]:
    """Let this process keep what its arrays no longer need, until the block ends.

    glibc gives the memory of every large array back to the system, which has to empty it before
    it lends it again: a fifth to a quarter of a network's time on CPU cores. After the block it is
    given back, because Dask stops workers that seem to need too much. Other C libraries have no
    such switches and are left alone.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_MAX, _NONE)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
    except OSError:
        return None
    has_switches = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    return library if has_switches else None
