"""A new store takes its place: in one step, beside others that may be doing the same.

A worker that was taken for dead, or whose driver died, may end long after another has made the
same store. Each writes under a name of its own, and cells that are there already stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ccrl_wsi.errors import StoreError
from ccrl_wsi.store.layout import METADATA, StoreDescription
from ccrl_wsi.store.read import open_store
from ccrl_wsi.store.seal import changed_files, is_sealed, known_sums, read_seal, seal_store

_MARK = ".being-written"
_TRIES = 5


@contextmanager
def new_store(path: Path, description: StoreDescription) -> Iterator[Path]:
    """A folder to write a store into; when the block ends it is sealed and becomes ``path``.

    A store with the same cells that is there stays as it is, with its clusters.
    """
    temporary = _beside(path, "partial")
    path.parent.mkdir(exist_ok=True)  # Not those above: what is gone is not made anew.
    temporary.mkdir()
    mark = temporary / _MARK
    try:
        mark.touch()
        yield temporary
        # Whoever removed the folder meanwhile took the mark with it: zarr would make the rest
        # again, and half a store would get a seal.
        mark.unlink()
        seal_store(temporary)
        _take_place(temporary, path, description)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what workers that died left in the folder of stores; none of ours is at work yet."""
    for pattern in (".*.partial", ".*.old"):
        for left_over in folder.glob(pattern):
            # Under another name at once: if its worker lives after all, it notices.
            aside = _beside(left_over, "old")
            with suppress(FileNotFoundError):
                left_over.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)


def has_same_cells(path: Path, sums: dict[str, str], description: StoreDescription) -> bool:
    """Whether the store ``path`` is whole and holds the cells of the one with these checksums."""
    try:
        ccrl, there = open_store(path, unfinished=True).attrs, known_sums(path)
        if is_sealed(path) and changed_files(path):
            return False
    except StoreError:
        return False
    skipped = "n_tiles_skipped"
    return (
        ccrl["fingerprint"] == description.fingerprint
        and ccrl["notes"].get(skipped) == description.notes.get(skipped)
        and same_files(sums, there)
    )


def same_files(new: dict[str, str], there: dict[str, str]) -> bool:
    """Whether the arrays of a ``new`` store, without clusters, are all among those ``there``."""
    return all(there.get(n) == s for n, s in new.items() if not n.endswith(METADATA))


def _take_place(temporary: Path, path: Path, description: StoreDescription) -> None:
    sums = read_seal(temporary)
    for attempt in range(_TRIES):
        if has_same_cells(path, sums, description):
            return
        aside = _beside(path, "old")
        try:
            # A folder cannot be replaced in one step: the old one steps aside and goes last.
            with suppress(FileNotFoundError):
                path.rename(aside)
            temporary.rename(path)
        except OSError:
            if aside.exists() and not path.exists():
                aside.rename(path)
            # Another worker may have been between the two steps.
            if attempt == _TRIES - 1 or not path.exists() or not temporary.exists():
                raise
        else:
            return
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name.lstrip('.')}.{uuid4().hex}.{suffix}")
