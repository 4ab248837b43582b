"""One run at a time in an output folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ccrl_wsi.errors import ConfigError


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the folder; it is free again when the process ends, however it ends.

    Raises
    ------
    ConfigError
        If another process holds it.
    """
    with (root / ".lock").open("a+", encoding="utf-8") as file:
        if not _try_lock(file):
            file.seek(0)
            raise ConfigError(
                f"Another run ({file.read().strip() or 'of another user'}) is working in {root}. "
                "Wait for it, or give another folder with -o."
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {_host()}")
        file.flush()
        yield


def _try_lock(file: TextIO) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # The file system has no locks.
        return True
    return True


def _host() -> str:
    import platform

    return platform.node()
