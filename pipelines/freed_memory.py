"""Memory that arrays no longer need stays with the process for a while, where it can be told so.

glibc gives the memory of every large array back to the system, which has to empty it before it
lends it again. Dask's own setting for its workers makes that worse. Other C libraries have no such
switches and are left alone.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

log = logging.getLogger("ccrl_wsi")

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_NEVER = -1
_LARGEST_IMAGE = 64 << 20
_LARGEST_MAP = 160 << 20
"""Of those a network makes by the dozen. Larger ones live long: kept, they would leave holes."""
_LEFT_FREE = 256 << 20

_CHANGING = Lock()
_networks = 0
"""Blocks of networks that threads of this process are in; the switches are the process' own."""

ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""The environment of workers: only so does what follows hold for all threads of a process."""


@contextmanager
def freed_memory_kept(*, of_network: bool) -> Iterator[None]:
    """Keep up to 256 MB for the next tile; and what a network needs, until the block ends.

    A tenth of a tile's time went into fresh pages, and a fifth to a quarter of a network's on CPU
    cores. After the last such block a network's memory is given back, because Dask stops workers
    that seem to need too much.
    """
    library = _glibc()
    if library is None:
        yield
        return
    _begin(library, of_network)
    try:
        yield
    finally:
        if of_network:
            _end(library)


def _begin(library: Any, of_network: bool) -> None:
    global _networks
    with _CHANGING:
        _networks += of_network
        _switch(library, _MMAP_THRESHOLD, _LARGEST_MAP if _networks else _LARGEST_IMAGE)
        _switch(library, _TRIM_THRESHOLD, _NEVER if _networks else _LEFT_FREE)


def _end(library: Any) -> None:
    """Give a network's memory back, if it was the last of this process."""
    global _networks
    with _CHANGING:
        _networks -= 1
        if not _networks:
            _switch(library, _TRIM_THRESHOLD, _LEFT_FREE)
            _switch(library, _MMAP_THRESHOLD, _LARGEST_IMAGE)
            library.malloc_trim(0)


def _switch(library: Any, name: int, value: int) -> None:
    if not library.mallopt(name, value):
        log.debug("The C library refuses mallopt(%d, %d): time is lost, nothing else.", name, value)


def _glibc() -> Any | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
    except OSError:
        return None
    has_switches = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    return library if has_switches else None
