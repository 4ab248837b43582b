"""A store that lies in an object store, seen from here: its heading on this disk, arrays there.

A heading is a folder with the store's attributes, its seal, and a file that says where the rest
lies. It opens as any store does; what is read of it comes from the object store, piece by piece.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import zarr
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from ccrl_wsi.errors import StoreError
from ccrl_wsi.object_storage import ObjectFolder
from ccrl_wsi.store.layout import BROKEN, METADATA, SEAL

ELSEWHERE = "elsewhere.json"
"""Names the folder in the object store; no store has a file of this name."""


def fetch_heading(objects: ObjectFolder, name: str, path: Path) -> None:
    """Make ``path`` the heading of the store ``name``, if that has whole cells.

    A store is sealed last and loses its seal first, so one with neither a seal nor a broken one is
    not whole: nothing is made of it.
    """
    path.mkdir(parents=True, exist_ok=True)
    for seal in (SEAL, BROKEN):
        try:
            (path / seal).write_bytes(objects.read(f"{name}/{seal}"))
            (path / METADATA).write_bytes(objects.read(f"{name}/{METADATA}"))
        except FileNotFoundError:
            (path / seal).unlink(missing_ok=True)
            continue
        (path / ELSEWHERE).write_text(json.dumps({"url": f"{objects.url}/{name}"}))
        return
    path.rmdir()


def is_heading(path: Path) -> bool:
    """Whether ``path`` is the heading of a store that lies elsewhere."""
    return (path / ELSEWHERE).is_file()


def refuse_heading(path: Path) -> None:
    """Refuse to write where only a heading is.

    Raises
    ------
    StoreError
        If ``path`` is one.
    """
    if is_heading(path):
        raise StoreError(f"{path} is only read from here; it is changed where all of it is.")


def open_heading(path: Path) -> Any:
    """The root group of a store that lies elsewhere, for reading."""
    # A broken seal is of a store whose clusters were being written: its cells are whole.
    sealed = [file for file in (path / SEAL, path / BROKEN) if file.is_file()]
    known = json.loads(sealed[0].read_text(encoding="utf-8"))["sha256"] if sealed else {}
    store = _Elsewhere(path, _there(path), frozenset(known))
    return zarr.open_group(store, mode="r", use_consolidated=True)


def open_elsewhere(path: Path, name: str) -> BinaryIO:
    """A file of a store that lies elsewhere; only what is asked for is read."""
    return _there(path).open(name)


def _there(path: Path) -> ObjectFolder:
    return ObjectFolder(json.loads((path / ELSEWHERE).read_text(encoding="utf-8"))["url"])


class _Elsewhere(Store):
    """What zarr reads: attributes from the heading, chunks from the object store."""

    def __init__(self, path: Path, objects: ObjectFolder, known: frozenset[str]) -> None:
        super().__init__(read_only=True)
        self._path, self._objects, self._known = path, objects, known

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Elsewhere) and self._objects == other._objects

    def __hash__(self) -> int:
        return hash(self._objects)

    def with_read_only(self, read_only: bool = False) -> _Elsewhere:
        if not read_only:
            refuse_heading(self._path)
        return self

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if key == METADATA:
            return prototype.buffer.from_bytes((self._path / key).read_bytes())
        if key not in self._known:
            return None
        # A sealed chunk that is missing is damage; zarr would take zeros for it.
        content = await asyncio.to_thread(self._objects.read, key, *_range(byte_range))
        return prototype.buffer.from_bytes(content)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        return list(
            await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges))
        )

    async def exists(self, key: str) -> bool:
        return key == METADATA or key in self._known

    @property
    def supports_writes(self) -> bool:
        return False

    async def set(self, key: str, value: Buffer) -> None:
        refuse_heading(self._path)

    @property
    def supports_deletes(self) -> bool:
        return False

    async def delete(self, key: str) -> None:
        refuse_heading(self._path)

    @property
    def supports_listing(self) -> bool:
        return False

    async def list(self) -> AsyncIterator[str]:
        for name in sorted(self._known):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for name in sorted(self._known):
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        own = f"{prefix.rstrip('/')}/" if prefix else ""
        below = {n.removeprefix(own).partition("/")[0] for n in self._known if n.startswith(own)}
        for name in sorted(below):
            yield name


def _range(wanted: ByteRequest | None) -> tuple[int | None, int | None]:
    if isinstance(wanted, RangeByteRequest):
        return wanted.start, wanted.end
    if isinstance(wanted, OffsetByteRequest):
        return wanted.offset, None
    if isinstance(wanted, SuffixByteRequest):
        return -wanted.suffix, None
    return None, None
