"""A folder in an object store such as S3. The only file that knows fsspec.

An object is written in one step: it is there whole, or not at all. Credentials and endpoint come
from the environment or from fsspec's own configuration; nothing of them is kept or told.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ccrl_wsi.errors import ConfigError, StorageError

Result = TypeVar("Result")

DRIVERS = {
    "s3": "'ccrl-wsi[s3]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "oci": "ocifs",
    "oss": "ossfs",
    "memory": "fsspec",
}
"""What can be written to, and what to install for it. Writing must be one step everywhere."""

AT_ONCE = 16
"""Objects that are read or written at the same time."""

_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|ACCOUNT_KEY|CONNECTION_STRING|CREDENTIAL")
_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "updated", "last_modified", "created", "size")


def is_url(place: Path | str) -> bool:
    """Whether ``place`` names something else than a path of this computer."""
    return isinstance(place, str) and _URL.match(place) is not None


@dataclass(frozen=True, slots=True)
class ObjectFolder:
    """All objects below a URL, by their names relative to it."""

    url: str

    @classmethod
    def at(cls, url: str) -> ObjectFolder:
        """The folder ``url``; nothing is asked of the store yet.

        Raises
        ------
        ConfigError
            If the URL is none that can be written to, or holds what should be secret.
        StorageError
            If the driver is not installed.
        """
        match = _URL.match(url)
        scheme = match.group(1).lower() if match else ""
        place = url[match.end() :] if match else url
        if scheme not in DRIVERS:
            raise ConfigError(
                f"{scheme}:// is no object store that results can be written to; there are "
                f"{', '.join(f'{name}://' for name in DRIVERS if name != 'memory')}. Mount "
                "anything else and give its folder."
            )
        if re.match(r"[^/]*:[^/]*@", place) or "?" in place or "#" in place:
            raise ConfigError(
                f"A {scheme}:// address holds no credentials and no options (`user:password@`, "
                "`?`, `#`). Give those in the environment."
            )
        if not place.strip("/"):
            raise ConfigError(f"{url} names no bucket. Give {scheme}://bucket/folder.")
        folder = cls(f"{scheme}://{place.rstrip('/')}")
        folder._connect()
        return folder

    def inside(self, name: str) -> ObjectFolder:
        """The folder ``name`` in this one."""
        return ObjectFolder(f"{self.url}/{name}")

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Bytes ``start`` to ``stop`` of an object; a negative ``start`` counts from its end.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        if start is not None and stop is not None and 0 <= stop <= start:
            return b""  # No store can say that.
        found: bytes = self._do(
            lambda files, path: files.cat_file(path, start=start, end=stop), name
        )
        return found

    def size(self, name: str) -> int:
        """Length of an object in bytes."""
        return int(self._do(lambda files, path: files.size(path), name))

    def open(self, name: str) -> BinaryIO:
        """An object as a file; only what is asked for is read."""
        return io.BufferedReader(_RangeReader(self, name), 1 << 16)

    def write(self, name: str, content: bytes, *, only_new: bool = False) -> bool:
        """Write an object in one step; ``only_new``: unless there is one. False if there was.

        Not every store can do the latter: some write all the same.
        """
        ask = _create if only_new else _overwrite
        try:
            self._do(lambda files, path: ask(files, path, content), name)
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise self._no_bucket() from None
        return True

    def put_files(self, folder: Path, names: Iterable[str], *, only_new: bool = False) -> bool:
        """Write the files ``names`` of ``folder``, each in one step, in no order.

        ``only_new``: none over an object, as :meth:`write` does. False if there was one.
        """

        def put(name: str) -> bool:
            local = folder / name
            if only_new:
                return self.write(name, local.read_bytes(), only_new=True)
            try:
                self._do(lambda files, path: files.put_file(str(local), path), name)
            except FileNotFoundError:
                raise self._no_bucket() from None
            return True

        return all(_all(put, names))

    def get_files(self, names: Iterable[str], folder: Path) -> None:
        """Read objects into files of the same names in ``folder``.

        Raises
        ------
        FileNotFoundError
            If one is missing.
        """

        def get(name: str) -> None:
            local = folder / name
            local.parent.mkdir(parents=True, exist_ok=True)
            self._do(lambda files, path: files.get_file(path, str(local)), name)

        _all(get, names)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, also those that are not there."""

        def delete(name: str) -> None:
            with suppress(FileNotFoundError):
                self._do(lambda files, path: files.rm_file(path), name)

        _all(delete, names)

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return bool(self._do(lambda files, path: files.isfile(path), name))

    def entries(self, name: str = "") -> tuple[dict[str, str], list[str]]:
        """What lies directly in the folder ``name``: objects with a stamp, and folders.

        The stamp changes when the object does. Both are empty where there is no such folder.

        Raises
        ------
        StorageError
            If there is no such bucket.
        """
        try:
            found = self._do(lambda files, path: files.ls(path, detail=True), name)
        except FileNotFoundError:
            self._check_bucket()
            return {}, []
        own = f"{name}/" if name else ""
        objects, folders = {}, []
        for info in found:
            last = str(info["name"]).rstrip("/").rpartition("/")[2]
            if info["type"] == "file":
                objects[own + last] = repr([str(info.get(key)) for key in _STAMPS])
            else:
                folders.append(last)
        return objects, folders

    def walk(self, name: str = "") -> list[str]:
        """Names of all objects below the folder ``name``, in alphabetical order."""
        _, root = self._connect()
        try:
            found = self._do(lambda files, path: files.find(path), name)
        except FileNotFoundError:
            return []
        return sorted(str(path).removeprefix(root).lstrip("/") for path in found)

    def modified(self, name: str) -> datetime | None:
        """When an object was written, by the clock of the store; None if it does not tell."""
        try:
            found: datetime = self._do(lambda files, path: files.modified(path), name)
        except (NotImplementedError, FileNotFoundError):
            return None
        return found

    def _do(self, ask: Callable[[Any, str], Any], name: str) -> Any:
        files, root = self._connect()
        with self._telling():
            # What another process wrote meanwhile is wanted, not what was listed before.
            files.invalidate_cache()
            return ask(files, f"{root}/{name}" if name else root)

    def _connect(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        scheme = self.url.partition(":")[0]
        with self._telling():
            try:
                files, root = url_to_fs(self.url)
            except ImportError:
                raise StorageError(
                    f"{scheme}:// needs a package that is not installed: pip install "
                    f"{DRIVERS[scheme]}."
                ) from None
        return files, root

    def _check_bucket(self) -> None:
        files, root = self._connect()
        bucket = root.partition("/")[0]
        with self._telling():
            is_there = not bucket or files.exists(bucket)
        if not is_there:
            raise self._no_bucket()

    def _no_bucket(self) -> StorageError:
        return StorageError(
            f"There is no bucket for {self.url}, or no right to see it. Make it first, or correct "
            "the address."
        )

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise what drivers raise, each in its own way, as one sentence without secrets."""
        try:
            yield
        except (StorageError, FileNotFoundError, FileExistsError, NotImplementedError):
            raise
        except Exception as error:  # noqa: BLE001 (drivers raise whatever they like)
            # Not from it: its own words, in a log, may hold a secret.
            raise StorageError(_sentence(self.url, error)) from None


class _RangeReader(io.RawIOBase):
    """An object as a file that is read piece by piece."""

    def __init__(self, folder: ObjectFolder, name: str) -> None:
        self._folder, self._name = folder, name
        self._size, self._place = folder.size(name), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        stop = min(self._place + len(buffer), self._size)
        if stop <= self._place:
            return 0
        found = self._folder.read(self._name, self._place, stop)
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)


def _overwrite(files: Any, path: str, content: bytes) -> None:
    files.pipe_file(path, content)


def _create(files: Any, path: str, content: bytes) -> None:
    try:
        files.pipe_file(path, content, mode="create")
    except (TypeError, NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOSYS:
            raise
        # Neither the driver nor the store knows how: look first.
        if files.isfile(path):
            raise FileExistsError(path) from None
        files.pipe_file(path, content)


def _all(work: Callable[[str], Result], names: Iterable[str]) -> list[Result]:
    names = list(names)
    if len(names) < 2:
        return [work(name) for name in names]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="objects") as pool:
        return list(pool.map(work, names))


def _sentence(url: str, error: Exception) -> str:
    kind = type(error).__name__
    if isinstance(error, PermissionError) or "Credential" in kind or "Authentication" in kind:
        return (
            f"{url}: access is refused ({_first_line(error)}). Check the credentials in the "
            "environment (such as AWS_ACCESS_KEY_ID) and their rights to read, write and delete."
        )
    if "Connect" in kind or "Timeout" in kind or "Endpoint" in kind:
        return (
            f"{url} cannot be reached ({kind}). Check the network and the endpoint (such as "
            "AWS_ENDPOINT_URL), then run the same command again: what is finished stays."
        )
    return (
        f"{url}: the object store failed ({kind}: {_first_line(error)}). Run the same command "
        "again: what is finished stays."
    )


def _first_line(error: Exception) -> str:
    """What the error says, without any value of the environment that is a secret."""
    text = str(error).partition("\n")[0]
    for name, value in os.environ.items():
        if len(value) > 5 and _SECRET.search(name.upper()):
            text = text.replace(value, "...")
    return text
