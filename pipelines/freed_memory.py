"""Memory that was freed stays with the process, for the next tile."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_IMAGE = 64 << 20
_LEFT_FREE = 256 << 20


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 256 MB that its arrays no longer need; whether it can.

    Without it glibc returns the memory of every large image and asks for it again: a tenth of a
    tile's time goes into fresh pages. Dask's own setting for its workers is the other extreme.
    Other C libraries have no such switch and are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_IMAGE) and mallopt(_TRIM_THRESHOLD, _LEFT_FREE))
