"""One run at a time in an output folder, wherever that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pipelines.folder_lock import exclusive
from pipelines.folder_sign import Sign
from pipelines.object_lock import exclusive_objects
from pipelines.output_folder import OutputFolder


class Lock(Protocol):
    """What holds a folder, wherever that is."""

    @property
    def sign(self) -> Sign:
        """By what another computer knows that a folder is this run's."""
        ...

    def check(self) -> None:
        """Make sure that the folder is still held.

        Raises
        ------
        RunStopped
            If it is gone, or another run holds it.
        """
        ...


@contextmanager
def held(folder: OutputFolder) -> Iterator[Lock]:
    """Hold ``folder``; errors are told by the names that the user knows.

    Raises
    ------
    ConfigError
        If another process holds it.
    """
    if folder.remote is None:
        with exclusive(folder.root) as lock:
            yield lock
        return
    with folder.telling(), exclusive_objects(folder.remote.objects) as object_lock:
        folder.remote.lock = object_lock
        # What another run changed before this one held the folder.
        folder.remote.refresh()
        try:
            yield object_lock
        finally:
            folder.remote.lock = None
