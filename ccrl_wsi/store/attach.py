"""Files that lie in a store beside the arrays, such as its overlay."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ccrl_wsi.errors import StoreError
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
    untouched = {n: s for n, s in known.items() if not n.startswith(f"{folder}/")}
    seal_store(path, untouched)
