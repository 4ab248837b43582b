"""One partition's result on disk: whole, or not there.

A part is an uncompressed ``.npz``. Its first member is a small JSON header, so that a resumed run
can ask thousands of parts what they are without reading their arrays.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
from numpy.lib import format as npy

from ccrl_wsi.arrays import FloatArray
from ccrl_wsi.errors import StoreError
from ccrl_wsi.records import Cells, Outlines

PART_SCHEMA = 1
_HEADER = "part.json"
_PLAIN_FIELDS = (
    "centroid_px",
    "area_um2",
    "probability",
    "nucleus_type",
    "type_probability",
    "is_clipped",
    "tile",
    "measurements",
    "embedding",
    "crops",
)
_ARRAYS = (*_PLAIN_FIELDS, "outline_xy", "outline_start")
# zipfile and npy report damage in all these ways.
_DAMAGE = (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, NotImplementedError)


def write_part(path: Path, cells: Cells, manifest: Mapping[str, Any]) -> None:
    """Commit ``cells`` as ``path`` in one step: a reader sees the whole part or none.

    ``manifest`` (JSON values) must hold ``fingerprint``: what the cells were computed with.
    """
    header = {
        **manifest,
        "fingerprint": str(manifest["fingerprint"]),
        "schema": PART_SCHEMA,
        "n_cells": len(cells),
        "n_crops": len(cells.crops),
        "n_vertices": len(cells.outlines.xy),
    }
    arrays = {name: getattr(cells, name) for name in _PLAIN_FIELDS}
    arrays |= {"outline_xy": cells.outlines.xy, "outline_start": cells.outlines.start}
    # Two workers may be given the same partition, on two computers with the same process id.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            _write_archive(file, header, arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"Cannot write {path}: {error.strerror or error}. Check free space and permissions."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def part_manifest(path: Path | BinaryIO) -> dict[str, Any]:
    """The header of a finished part, a file or what is open as one, without its arrays.

    Raises
    ------
    StoreError
        If the part is absent, cut short, foreign, or of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _checked_header(path, archive)
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def read_part(path: Path) -> Cells:
    """The cells of a finished part.

    Raises
    ------
    StoreError
        If the part is absent, damaged, foreign, or of another version.
    """
    values = _read_arrays(path, _ARRAYS)
    try:
        outlines = Outlines(values.pop("outline_xy"), values.pop("outline_start"))
        return Cells(outlines=outlines, **values)
    except ValueError as error:
        raise _damaged(path, error) from error


def read_part_fields(path: Path, names: Iterable[str]) -> dict[str, FloatArray]:
    """Some of the arrays of a part, by their name in :class:`Cells`; the rest stays unread."""
    return _read_arrays(path, names)


def _write_archive(file: Any, header: dict[str, Any], arrays: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # ZipInfo's own date is 1980: equal cells give equal bytes.
        archive.writestr(zipfile.ZipInfo(_HEADER), json.dumps(header, sort_keys=True))
        for name, values in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                npy.write_array(member, np.ascontiguousarray(values), allow_pickle=False)


def _read_arrays(path: Path, names: Iterable[str]) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            _checked_header(path, archive)
            found = {}
            for name in names:
                with archive.open(f"{name}.npy") as member:
                    found[name] = npy.read_array(member, allow_pickle=False)
            return found
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _checked_header(path: Path | BinaryIO, archive: zipfile.ZipFile) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(archive.read(_HEADER))
    if header["schema"] != PART_SCHEMA:
        raise StoreError(
            f"{path} has part schema {header['schema']}, this version reads {PART_SCHEMA}. "
            "Delete the part, or run into another output folder."
        )
    missing = {f"{name}.npy" for name in _ARRAYS} - set(archive.namelist())
    if missing:
        raise KeyError(f"no {sorted(missing)[0]}")
    return header


def _damaged(path: Path | BinaryIO, error: Exception) -> StoreError:
    if isinstance(error, FileNotFoundError):
        return StoreError(f"There is no part {path}. Run again to compute it.")
    return StoreError(
        f"{path} is not a whole part ({error}). Delete it and run again: only it is computed anew."
    )
