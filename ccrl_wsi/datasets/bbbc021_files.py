"""BBBC021's files: a field's three channels, and nucleus locations where somebody measured them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from ccrl_wsi.arrays import AnyArray, FloatArray
from ccrl_wsi.datasets.bbbc021 import CHANNELS, Field
from ccrl_wsi.datasets.csv_tables import check_columns, read_csv
from ccrl_wsi.datasets.image_files import unreadable
from ccrl_wsi.errors import StoreError

X, Y = "Nuclei_Location_Center_X", "Nuclei_Location_Center_Y"
# tifffile and its codecs report damage in all these ways.
_DAMAGE = (OSError, ValueError, LookupError, EOFError, TypeError, RuntimeError)


def read_channels_of(folder: Path, field: Field, channels: Sequence[str] = CHANNELS) -> AnyArray:
    """The ``channels`` of a field (h, w, channels), of whatever type the files have.

    Files lie where the table says, or in the folder of their plate, as the archives unpack.

    Raises
    ------
    StoreError
        If a channel is not named, absent or unreadable, or channels differ in size or type.
    """
    planes = []
    for channel in channels:
        name = field.files[CHANNELS.index(channel)]
        if not name:
            raise StoreError(f"{field.key}: the table names no file for {channel}")
        path = find_file(folder, field, name)
        if path is None:
            raise StoreError(f"{field.key}: there is no {channel}, {name}")
        planes.append(_read_plane(path))
    kinds = {(plane.shape, plane.dtype) for plane in planes}
    if len(kinds) > 1:
        raise StoreError(f"{field.key}: its channels differ in size or type")
    return np.stack(planes, axis=-1)


def find_file(folder: Path, field: Field, name: str) -> Path | None:
    """Where the file ``name`` of the image table lies; None: nowhere."""
    base = Path(name).name
    places = (Path(name), Path(field.plate, base), Path(base))
    roots = (folder, folder / "images")
    return next((p for root in roots for at in places if (p := root / at).is_file()), None)


def read_locations(folder: Path, field: Field) -> FloatArray | None:
    """Nuclei (n, 2) x, y from ``locations/<plate>/<well>-<site>-Nuclei.csv``; None: no such file.

    Raises
    ------
    StoreError
        If the file is damaged.
    """
    path = folder / "locations" / field.plate / f"{field.well}-{field.site}-Nuclei.csv"
    if not path.is_file():
        return None
    table = read_csv(path, lambda name: False)
    check_columns(path, table, (X, Y))
    try:
        places = table[[X, Y]].to_numpy(np.float64)
    except ValueError as error:
        raise StoreError(f"{path} holds places that are no numbers.") from error
    found: FloatArray = places[np.isfinite(places).all(axis=1)]
    return found


def _read_plane(path: Path) -> AnyArray:
    try:
        plane = np.asarray(tifffile.imread(path))
    except _DAMAGE as error:
        raise unreadable(path, error) from error
    if not plane.size:  # tifffile says nothing of a lost directory
        raise unreadable(path, ValueError("it holds no image"))
    if plane.ndim != 2 or plane.dtype.kind not in "uif":
        raise StoreError(f"{path} has the shape {plane.shape}; a channel is one grey image.")
    return plane
