"""A crop set as one file, so that crops are cut once.

The file is an uncompressed ``.npz``: it is read at the speed of the disk, and the checksums of
the archive tell damage. Names and the rule lie in it as JSON; no pickle is ever opened.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.lib import format as npy

from ccrl_wsi.arrays import AnyArray
from ccrl_wsi.crop_set import PER_CROP, CropSet
from ccrl_wsi.errors import StoreError

FORMAT = "ccrl-wsi crops"
VERSION = 1
_HEADER = "crops.json"
_TYPES = {"crops": "uint8", "measurements": "float32", "source": "int32", "label": "int32"}
# zipfile and npy report damage in all these ways.
_DAMAGE = (zipfile.BadZipFile, ValueError, TypeError, KeyError, EOFError, NotImplementedError)


def save_crop_set(path: Path, crops: CropSet) -> None:
    """Write ``crops`` to ``path``: the whole set or nothing. Equal sets make equal files.

    Raises
    ------
    StoreError
        If the disk is full or does not allow it.
    """
    header = {
        "format": FORMAT,
        "version": VERSION,
        "source_names": list(crops.source_names),
        "class_names": list(crops.class_names),
        "scale": crops.scale,
        "mpp": crops.mpp,
    }
    # Several processes may cut the same crops at once.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with temporary.open("wb") as file:
            _write_archive(file, header, crops)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def load_crop_set(path: Path) -> CropSet:
    """Read what :func:`save_crop_set` wrote; 25,000 crops take about a tenth of a second.

    Raises
    ------
    StoreError
        If the file is missing, damaged, foreign or of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read(_HEADER))
            if (header["format"], header["version"]) != (FORMAT, VERSION):
                raise ValueError(f"it is of {header['format']} {header['version']}")
            arrays = {name: _read_array(archive, name) for name in PER_CROP}
        return CropSet(
            **arrays,
            source_names=tuple(header["source_names"]),
            class_names=tuple(header["class_names"]),
            scale=float(header["scale"]),
            mpp=float(header["mpp"]),
        )
    except FileNotFoundError:
        raise StoreError(f"There are no crops at {path}. Cut them again.") from None
    except OSError as error:
        raise StoreError(f"Cannot read {path}: {error.strerror or error}.") from error
    except _DAMAGE as error:
        raise StoreError(
            f"{path} is not a whole crop set of this version ({error}). Delete it: the crops are "
            "cut again."
        ) from error


def _unwritable(path: Path, error: OSError) -> StoreError:
    reason = error.strerror or error
    return StoreError(f"Cannot write {path}: {reason}. Check free space and permissions.")


def _write_archive(file: Any, header: dict[str, Any], crops: CropSet) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # ZipInfo's own date is 1980: equal crops give equal bytes.
        archive.writestr(zipfile.ZipInfo(_HEADER), json.dumps(header, sort_keys=True))
        for name, dtype in _TYPES.items():
            values = np.ascontiguousarray(getattr(crops, name), dtype)
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                npy.write_array(member, values, allow_pickle=False)


def _read_array(archive: zipfile.ZipFile, name: str) -> AnyArray:
    with archive.open(f"{name}.npy") as member:
        values: AnyArray = npy.read_array(member, allow_pickle=False)
    if values.dtype != _TYPES[name]:
        raise ValueError(f"{name} are {values.dtype}")
    return values
