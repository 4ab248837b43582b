"""A slide's store to an object store and back: the seal goes last, and is the first to leave.

There is no renaming of folders there, so a store is written file by file. What has a seal is
finished; what has a broken one has whole cells and unfinished clusters; what has neither is
nothing yet, and is made anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from ccrl_wsi.errors import StoreError
from ccrl_wsi.object_storage import ObjectFolder
from ccrl_wsi.store.layout import BROKEN, METADATA, SEAL
from ccrl_wsi.store.placing import same_files
from ccrl_wsi.store.seal import read_seal


def fetch_store(objects: ObjectFolder, name: str, path: Path) -> None:
    """Copy the store ``name`` to ``path``, where there is nothing yet.

    Raises
    ------
    StoreError
        If it is not there, or its cells are not whole.
    """
    there = objects.inside(name)
    files = there.walk()
    if not files:
        raise StoreError(f"There is no store {there.url}. `ccrl-wsi run` makes it.")
    if not {SEAL, BROKEN} & set(files):
        raise StoreError(f"{there.url} is not finished: run the same command again.")
    try:
        there.get_files(files, path)
    except FileNotFoundError:
        raise StoreError(f"{there.url} is changed by somebody else. Run again.") from None


def publish_new_store(
    objects: ObjectFolder,
    name: str,
    path: Path,
    still_ours: Callable[[], None] = lambda: None,
) -> None:
    """Write the sealed store ``path`` as ``name``, in place of whatever is there.

    A whole store with the same cells stays as it is, with its clusters; also one that another
    worker finishes meanwhile, as far as the store can refuse to write over objects.

    ``still_ours`` is asked before anything that others see is changed; it raises to prevent that.
    """
    there, seal = objects.inside(name), (path / SEAL).read_bytes()
    still_ours()
    files, before = set(read_seal(path)), there.walk()
    if set(before) == files | {SEAL} and _content(there, SEAL) == seal:
        return  # Another worker was given the same slide, and was faster.
    if _has_same_cells(there, path):
        return  # That was long ago: there are clusters already, or they are being written.
    # Only what was there then: whatever comes meanwhile is another worker's.
    there.delete([SEAL] if SEAL in before else [])
    there.delete([file for file in before if file not in files or _is_metadata(file)])
    there.put_files(path, sorted(file for file in files if not _is_metadata(file)))
    still_ours()
    for level in _metadata(files):
        if not there.put_files(path, level, only_new=True):
            if {SEAL, BROKEN} & set(there.walk()):
                return  # Another worker was faster; what is written here are the same arrays.
            there.put_files(path, level)
    there.write(SEAL, seal, only_new=True)


def publish_changed_store(
    objects: ObjectFolder,
    name: str,
    path: Path,
    still_ours: Callable[[], None] = lambda: None,
) -> None:
    """Write what changed in the sealed store ``path`` since :func:`fetch_store` copied it.

    Interrupted, a broken seal stays: the cells, which nothing changes, are known to be whole.
    ``still_ours`` as in :func:`publish_new_store`.
    """
    there, seal = objects.inside(name), (path / SEAL).read_bytes()
    before = _content(there, SEAL)
    new, old = read_seal(path), _sums(before)
    files = {file for file in new if old.get(file) != new[file]}
    still_ours()
    if before is not None:
        there.write(BROKEN, before)
        there.delete([SEAL])
    there.put_files(path, sorted(file for file in files if not _is_metadata(file)))
    still_ours()
    for level in _metadata(files):
        there.put_files(path, level)
    own = set(new) | {SEAL, BROKEN}
    there.delete(file for file in there.walk() if file not in own)
    there.write(SEAL, seal)
    there.delete([BROKEN])


def _metadata(files: Iterable[str]) -> list[list[str]]:
    """Metadata in the order of writing: after data, a folder's after those of folders in it.

    So what can be seen is there.
    """
    found = sorted(file for file in files if _is_metadata(file))
    depths = sorted({file.count("/") for file in found}, reverse=True)
    return [[file for file in found if file.count("/") == depth] for depth in depths]


def _is_metadata(file: str) -> bool:
    return file.rpartition("/")[2] == METADATA


def _has_same_cells(there: ObjectFolder, path: Path) -> bool:
    sealed, broken = _content(there, SEAL), _content(there, BROKEN)
    sums, new = _sums(sealed if sealed is not None else broken), read_seal(path)
    if not same_files(new, sums) or _identity(_content(there, METADATA)) != _identity(
        (path / METADATA).read_bytes()
    ):
        return False
    # A store that is being clustered changes; its cells do not.
    wanted = sums if sealed is not None else {n: sums[n] for n in new if not n.endswith(METADATA)}
    contents = ((n, _content(there, n)) for n in wanted)
    return all(c is not None and sha256(c).hexdigest() == wanted[n] for n, c in contents)


def _identity(metadata: bytes | None) -> tuple[Any, Any] | None:
    """What a store says of the settings of its cells, and of tiles that were left out."""
    try:
        ccrl = json.loads(metadata or b"")["attributes"]["ccrl"]
        return ccrl["fingerprint"], ccrl["notes"].get("n_tiles_skipped")
    except (ValueError, KeyError, TypeError):
        return None


def _content(there: ObjectFolder, name: str) -> bytes | None:
    try:
        return there.read(name)
    except FileNotFoundError:
        return None


def _sums(seal: bytes | None) -> dict[str, str]:
    """Checksums by file; none where the seal is missing or cannot be read, so that all is new."""
    try:
        return dict(json.loads(seal or b"")["sha256"])
    except (ValueError, KeyError, TypeError):
        return {}
