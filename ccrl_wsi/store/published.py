"""A slide's store to an object store and back: the seal goes last, and is the first to leave.

There is no renaming of folders there, so a store is written file by file. What has a seal is
finished; what has a broken one has whole cells and unfinished clusters; what has neither is
nothing yet, and is made anew.
"""

from __future__ import annotations

import json
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


def publish_new_store(objects: ObjectFolder, name: str, path: Path) -> None:
    """Write the sealed store ``path`` as ``name``, in place of whatever is there.

    A whole store with the same cells stays as it is, with its clusters.
    """
    there, seal = objects.inside(name), (path / SEAL).read_bytes()
    files = set(read_seal(path))
    if _content(there, SEAL) == seal and set(there.walk()) == files | {SEAL}:
        return  # Another worker was given the same slide, and was faster.
    if _has_same_cells(there, path):
        return  # That was long ago: there are clusters already, or they are being written.
    there.delete([SEAL])
    there.delete([BROKEN])
    _write(there, path, files, seal)


def publish_changed_store(objects: ObjectFolder, name: str, path: Path) -> None:
    """Write what changed in the sealed store ``path`` since :func:`fetch_store` copied it.

    Interrupted, a broken seal stays: the cells, which nothing changes, are known to be whole.
    """
    there, seal = objects.inside(name), (path / SEAL).read_bytes()
    before = _content(there, SEAL)
    new, old = read_seal(path), _sums(before)
    if before is not None:
        there.write(BROKEN, before)
        there.delete([SEAL])
    _write(there, path, {file for file in new if old.get(file) != new[file]}, seal)
    there.delete([BROKEN])


def _write(there: ObjectFolder, path: Path, files: set[str], seal: bytes) -> None:
    own = set(read_seal(path)) | {SEAL, BROKEN}
    # Metadata after data, a folder's after those in it: what can be seen is there.
    metadata = {file for file in files if file.rpartition("/")[2] == METADATA}
    there.put_files(path, sorted(files - metadata))
    for depth in sorted({file.count("/") for file in metadata}, reverse=True):
        there.put_files(path, [file for file in metadata if file.count("/") == depth])
    there.delete(file for file in there.walk() if file not in own)
    there.write(SEAL, seal)


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
