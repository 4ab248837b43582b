"""Work on a worker's own disk where the output folder is in an object store.

A job says which paths it reads and which it writes. What it reads is fetched into a temporary
folder, the work is done there as it is done in a folder on disk, what it wrote is published, and
the folder is removed. Nothing of the driver's disk is needed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from ccrl_wsi.errors import CcrlError, StoreError
from ccrl_wsi.object_storage import ObjectFolder
from ccrl_wsi.store import (
    fetch_heading,
    fetch_store,
    publish_changed_store,
    publish_new_store,
)
from pipelines.folder_sign import Sign

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class StagedWork(Generic[Job, Result]):
    """``work``, on jobs whose paths lie below the driver's ``root``.

    A job has the properties ``reads`` and ``writes``, tuples of paths. A store that is only read is
    read piece by piece from where it is; one that is only written is new.

    ``sign`` is that of the run. A worker that was cut off may come back when another run has the
    folder: it must not write over what that one made.
    """

    work: Callable[[Job], Result]
    objects: ObjectFolder
    root: Path
    sign: Sign | None = None

    def __call__(self, job: Job) -> Result:
        """The result of ``work``, when everything it wrote is published.

        Raises
        ------
        CcrlError
            As ``work`` does, with the places in the object store in its sentence.
        """
        with tempfile.TemporaryDirectory(
            prefix="ccrl-wsi-work-", ignore_cleanup_errors=True
        ) as folder:
            here = Path(folder).resolve()
            try:
                local = _moved(job, self.root, here)
                self._fetch(local, here)
                result = self.work(local)
                self._publish(local, here)
            except CcrlError as error:
                told = str(error).replace(str(here), self.objects.url)
                own = getattr(job, "folder", None)
                error.args = (own.told(told) if own is not None else told,)
                raise
        return result

    def _fetch(self, job: Any, here: Path) -> None:
        for path in job.writes:
            path.parent.mkdir(parents=True, exist_ok=True)
        stores = [path for path in job.reads if path.suffix == ".zarr"]
        for path in stores:
            copy = fetch_store if path in job.writes else fetch_heading
            copy(self.objects, path.relative_to(here).as_posix(), path)
        files = [p.relative_to(here).as_posix() for p in job.reads if p not in stores]
        try:
            self.objects.get_files(files, here)
        except FileNotFoundError:
            raise StoreError(
                f"An object that is needed for {here}/{files[0]} is missing. Run the same command "
                "again."
            ) from None

    def _still_ours(self) -> None:
        if self.sign is not None and not self.sign.is_seen():
            raise StoreError(
                f"It cannot be seen that this run still holds {self.objects.url}: nothing more is "
                "written there. If no other run holds it, run the same command again."
            )

    def _publish(self, job: Any, here: Path) -> None:
        self._still_ours()
        # Stores last: their seals say that all is done.
        for path in sorted(job.writes, key=lambda path: path.suffix == ".zarr"):
            name = path.relative_to(here).as_posix()
            if path.suffix == ".zarr":
                is_changed = path in job.reads
                publish = publish_changed_store if is_changed else publish_new_store
                publish(self.objects, name, path, self._still_ours)
            elif path.is_dir():
                files = [file.relative_to(here).as_posix() for file in path.iterdir()]
                self.objects.put_files(here, files)
            else:
                self.objects.put_files(here, [name])


def _moved(job: Any, root: Path, here: Path) -> Any:
    """The job with its paths below ``root`` moved to below ``here``."""

    def moved(value: Any) -> Any:
        if isinstance(value, tuple) and all(isinstance(one, Path) for one in value):
            return tuple(moved(one) for one in value)
        if isinstance(value, Path) and value.is_relative_to(root):
            return here / value.relative_to(root)
        return value

    return replace(job, **{field.name: moved(getattr(job, field.name)) for field in fields(job)})
