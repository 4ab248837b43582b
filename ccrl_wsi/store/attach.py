"""What is added to a finished store beside its arrays: files, and words about it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ccrl_wsi.errors import StoreError
from ccrl_wsi.store.encoding import consolidate, open_root
from ccrl_wsi.store.seal import break_seal, seal_store


def add_files(path: Path, folder: str, files: Sequence[Path]) -> None:
    """Copy ``files`` into the store's ``folder``, in place of what is there, and seal it anew."""
    known = break_seal(path)
    target = path / folder
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for file in files:
            shutil.copyfile(file, target / file.name)
    except OSError as error:
        raise StoreError(
            f"Cannot write into {target}: {error.strerror or error}. Check free space."
        ) from error
    seal_store(path, {n: s for n, s in known.items() if not n.startswith(f"{folder}/")})


def update_description(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Merge ``entries`` into those of the root attribute ``ccrl``, and seal the store anew."""
    known = break_seal(path)
    root = open_root(path, "r+")
    ccrl = dict(root.attrs["ccrl"])
    merged = {name: {**ccrl.get(name, {}), **entry} for name, entry in entries.items()}
    root.attrs.update({"ccrl": {**ccrl, **merged}})
    consolidate(path)
    seal_store(path, {n: s for n, s in known.items() if n != "zarr.json"})
