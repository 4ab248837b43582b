"""One run at a time in an output folder, wherever that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.folder_lock import exclusive
from pipelines.object_lock import exclusive_objects
from pipelines.output_folder import OutputFolder


@contextmanager
def held(folder: OutputFolder) -> Iterator[None]:
    """Hold ``folder``; errors are told by the names that the user knows.

    Raises
    ------
    ConfigError
        If another process holds it.
    """
    if folder.remote is None:
        with exclusive(folder.root):
            yield
        return
    with folder.telling(), exclusive_objects(folder.remote.objects) as lock:
        folder.remote.lock = lock
        # What another run changed before this one held the folder.
        folder.remote.refresh()
        try:
            yield
        finally:
            folder.remote.lock = None
