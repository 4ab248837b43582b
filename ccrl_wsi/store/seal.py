"""The seal: a checksum of every file, written last. A store without it is unfinished."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ccrl_wsi.errors import StoreError
from ccrl_wsi.store.heading import refuse_heading
from ccrl_wsi.store.layout import BROKEN, SEAL


def seal_store(path: Path, known: dict[str, str] | None = None) -> None:
    """Write the checksums of all files of the store ``path``, in one step.

    ``known`` holds checksums of files that nobody has touched since: they are not read again.
    """
    known = known or {}
    sums = {name: known.get(name) or _checksum(path / name) for name in _file_names(path)}
    temporary = path / f".{SEAL}.tmp"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"sha256": sums}, file, indent=0, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path / SEAL)
        (path / BROKEN).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"Cannot seal {path}: {error.strerror or error}.") from error


def is_sealed(path: Path) -> bool:
    """Whether the store was finished; its files are not looked at."""
    return (path / SEAL).is_file()


def break_seal(path: Path) -> dict[str, str]:
    """Mark the store as unfinished; returns the checksums it had (none if it never had a seal).

    They are kept until the next seal, so that nothing damaged meanwhile is sealed as sound.
    """
    refuse_heading(path)
    seal, broken = path / SEAL, path / BROKEN
    if seal.exists():
        seal.replace(broken)
    for leftover in path.rglob("*.partial"):  # zarr's, of a process that was killed
        leftover.unlink()
    try:
        return _read_sums(broken)
    except StoreError:
        return {}


def read_seal(path: Path) -> dict[str, str]:
    """File name, relative to the store, to checksum.

    Raises
    ------
    StoreError
        If the store has no seal, or it is not readable.
    """
    if not (path / SEAL).is_file():
        raise StoreError(f"{path} is not finished: run the same command again.")
    return _read_sums(path / SEAL)


def known_sums(path: Path) -> dict[str, str]:
    """As :func:`read_seal`; of a store whose clusters are being written, what it had before."""
    return _read_sums(path / (SEAL if is_sealed(path) else BROKEN))


def changed_files(path: Path) -> list[str]:
    """One sentence for each file that is missing, extra or changed since the seal."""
    sealed = read_seal(path)
    present = set(_file_names(path))
    problems = [f"{name}: missing" for name in sorted(sealed.keys() - present)]
    problems += [f"{name}: not part of the store" for name in sorted(present - sealed.keys())]
    problems += [
        f"{name}: changed since it was written"
        for name in sorted(sealed.keys() & present)
        if _checksum(path / name) != sealed[name]
    ]
    return problems


def without(sums: dict[str, str], touched: Iterable[str]) -> dict[str, str]:
    """The checksums of files that lie in none of the ``touched`` files and folders."""
    prefixes = tuple(touched)
    return {
        name: value
        for name, value in sums.items()
        if not any(name == prefix or name.startswith(f"{prefix}/") for prefix in prefixes)
    }


def _read_sums(file: Path) -> dict[str, str]:
    try:
        sums = json.loads(file.read_text(encoding="utf-8"))["sha256"]
        return {str(name): str(value) for name, value in sums.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"The checksums in {file} cannot be read ({error}).") from error


def _file_names(path: Path) -> list[str]:
    own = {SEAL, BROKEN, f".{SEAL}.tmp"}
    names = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return sorted(name for name in names if name not in own)


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
