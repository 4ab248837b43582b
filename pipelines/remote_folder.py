"""An output folder in an object store, as the driver sees it.

The driver works on a desk: a temporary folder with copies of the small files (settings, states,
tables, codebook) and the headings of stores. What is written there is published at once. Workers
never see the desk; what they need lies in the object store.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from ccrl_wsi.object_storage import AT_ONCE, ObjectFolder
from ccrl_wsi.store import fetch_heading, fetch_store, publish_changed_store
from pipelines.folder_sign import Sign

NOT_COPIED = ".html"
"""Reports are written, never read."""


class Lock(Protocol):
    """What says that no other run works in the folder."""

    @property
    def sign(self) -> Sign:
        """By what workers know that."""
        ...

    def check(self) -> None:
        """Raise if another run has taken the folder over."""
        ...


class RemoteFolder:
    """Copies between the desk and the object store. Names are paths relative to both."""

    def __init__(self, objects: ObjectFolder) -> None:
        self.objects = objects
        # Resolved: workers name files by it, and it must be the same name everywhere.
        self.desk = Path(tempfile.mkdtemp(prefix="ccrl-wsi-")).resolve()
        self.lock: Lock | None = None
        self._finalizer = weakref.finalize(self, shutil.rmtree, self.desk, ignore_errors=True)
        self._copied: dict[str, str] = {}
        self._local: dict[str, tuple[int, int]] = {}
        self._looked_up: set[str] = set()
        self._parts: dict[str, frozenset[str]] = {}
        self._folders: dict[str, frozenset[str]] = {}

    def refresh(self) -> None:
        """Copy what is small and changed since it was copied last; forget what was listed."""
        top, _ = self.objects.entries()
        states, _ = self.objects.entries("state")
        found = {n: stamp for n, stamp in top.items() if _is_copied(n)} | states
        wanted = [name for name, stamp in found.items() if self._copied.get(name) != stamp]
        self.objects.get_files(wanted, self.desk)
        for name in self._copied.keys() - found.keys():
            (self.desk / name).unlink(missing_ok=True)
        self._copied = found
        self._local = {name: _stamp(self.desk / name) for name in top if _is_copied(name)}
        self._parts.clear()
        self._folders.clear()
        self.forget(sorted(self._looked_up))

    def publish(self, paths: Iterable[Path]) -> None:
        """Write files of the desk, several at once; delete the objects where there is no file."""
        if self.lock is not None:
            self.lock.check()
        by_name = {self.name_of(path): path for path in paths}
        written = [name for name, path in by_name.items() if path.is_file()]
        removed = by_name.keys() - set(written)
        self.objects.put_files(self.desk, written)
        self.objects.delete(sorted(removed))
        self._local.update((name, _stamp(by_name[name])) for name in written)
        for name in removed:
            self._local.pop(name, None)
        # Whatever is there now, it is not what was copied.
        self._copied.update(dict.fromkeys(by_name, "published"))

    def publish_tables(self) -> None:
        """Publish all files at the top of the desk that were written, or removed, since."""
        files = {p.name for p in self.desk.iterdir() if p.is_file() and p.suffix != ".tmp"}
        known = files | {name for name in self._local if "/" not in name}
        self.publish(
            self.desk / name
            for name in sorted(known)
            if name not in files or self._local.get(name) != _stamp(self.desk / name)
        )

    def look_up(self, stores: Iterable[Path]) -> None:
        """Put headings of those ``stores`` on the desk that are there and have whole cells."""
        wanted = [path for path in stores if self.name_of(path) not in self._looked_up]

        def fetch(path: Path) -> None:
            fetch_heading(self.objects, self.name_of(path), path)

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="headings") as pool:
            list(pool.map(fetch, wanted))
        self._looked_up |= {self.name_of(path) for path in wanted}

    def forget(self, names: Iterable[str]) -> None:
        """Look the stores up again when they are asked for: workers may have written them."""
        for name in names:
            shutil.rmtree(self.desk / name, ignore_errors=True)
            self._looked_up.discard(name)

    def fetch(self, path: Path) -> None:
        """Put a copy of an object on the desk, if there is one."""
        fetch(self.objects, self.name_of(path), path)

    def clear(self, folder: Path, *, is_likely: bool) -> None:
        """Delete everything below ``folder``, here and there.

        Where it is not likely that there is anything, the store is asked once for all folders.
        """
        shutil.rmtree(folder, ignore_errors=True)
        siblings = self.name_of(folder.parent)
        if siblings not in self._folders:
            self._folders[siblings] = self.names_in(folder.parent)
        if is_likely or folder.name in self._folders[siblings]:
            self.objects.delete(self.objects.walk(self.name_of(folder)))

    def names_in(self, folder: Path) -> frozenset[str]:
        """Names of what lies directly in ``folder``."""
        files, folders = self.objects.entries(self.name_of(folder))
        return frozenset([name.rpartition("/")[2] for name in files] + folders)

    def part(self, path: Path) -> BinaryIO | Path:
        """A partition's result as a file that is read in pieces; ``path`` if there is none."""
        folder = self.name_of(path.parent)
        if folder not in self._parts:
            # Once a slide, not once a part: most of them are absent.
            self._parts[folder] = self.names_in(path.parent)
        is_there = path.name in self._parts[folder]
        return self.objects.open(self.name_of(path)) if is_there else path

    @contextmanager
    def fetched(self, path: Path) -> Iterator[Path]:
        """A copy of a file, or of a whole store, for as long as it is needed."""
        with tempfile.TemporaryDirectory(dir=self.desk, prefix=".copy-") as folder:
            copy = Path(folder) / self.name_of(path)
            fetch(self.objects, self.name_of(path), copy)
            yield copy

    @contextmanager
    def changing(self, store: Path) -> Iterator[Path]:
        """A copy of a store to change; the changes are published at the end."""
        with self.fetched(store) as copy:
            yield copy
            still_ours = self.lock.check if self.lock is not None else lambda: None
            publish_changed_store(self.objects, self.name_of(store), copy, still_ours)
        self.forget([self.name_of(store)])

    def name_of(self, path: Path) -> str:
        """The name of what lies at ``path`` of the desk; nothing for the desk itself."""
        return "" if path == self.desk else path.relative_to(self.desk).as_posix()

    def told(self, text: str) -> str:
        """A sentence about the desk as one about the object store."""
        return re.sub(rf"{re.escape(str(self.desk))}(/\.copy-[^/]+)?", self.objects.url, text)


def fetch(objects: ObjectFolder, name: str, path: Path) -> None:
    """Copy the object or the store ``name`` to ``path``; a missing object leaves nothing."""
    if path.suffix == ".zarr":
        fetch_store(objects, name, path)
        return
    try:
        content = objects.read(name)
    except FileNotFoundError:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _is_copied(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(NOT_COPIED)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
