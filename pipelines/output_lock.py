"""One run at a time in an output folder, wherever that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.folder_lock import FolderLock, exclusive
from pipelines.object_lock import ObjectLock, exclusive_objects
from pipelines.output_folder import OutputFolder


@contextmanager
def held(folder: OutputFolder) -> Iterator[FolderLock | ObjectLock]:
    """Hold ``folder``; errors are told by the names that the user knows.

    Raises
    ------
    ConfigError
        If another process holds it.
    """
    if folder.remote is None:
        with exclusive(folder.root) as local:
            yield local
        return
    with folder.telling(), exclusive_objects(folder.remote.objects) as lock:
        folder.remote.lock = lock
        # What another run changed before this one held the folder.
        folder.remote.refresh()
        try:
            yield lock
        finally:
            folder.remote.lock = None
