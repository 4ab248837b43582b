"""An AnnData file that is filled row by row, as .zarr or .h5ad: memory holds one portion of rows.

Both hold the same groups and arrays with the same attributes, those of AnnData's on-disk format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr

from ccrl_wsi.arrays import AnyArray
from ccrl_wsi.errors import StoreError
from ccrl_wsi.store.encoding import (
    ARRAY,
    CATEGORICAL,
    DICT,
    STRINGS,
    Node,
    RowWriter,
    consolidate,
    create_categorical,
    create_mappings,
    create_rows,
    dataframe_attributes,
    scalar_attributes,
    write_mapping,
    write_strings,
)
from ccrl_wsi.store.layout import Chunking

ANNDATA = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
_EMPTY = ("layers", "obsm", "obsp", "varm", "varp", "uns")
_CHUNK_ROWS = 8192


class Rows(Protocol):
    """Takes the rows of one array, in portions."""

    def append(self, rows: AnyArray | Sequence[str]) -> None:
        """Add ``rows`` after the last ones."""
        ...

    def flush(self) -> None:
        """Write what still waits; after the last rows."""
        ...


class TableFile(Protocol):
    """An AnnData of known size; paths such as ``obs/area_um2``."""

    def rows(self, path: str, shape: tuple[int, ...], dtype: Any) -> Rows:
        """An array of ``shape[0]`` rows; ``dtype`` is a number's, or ``str``."""
        ...

    def categorical(self, path: str, categories: Sequence[str], n_rows: int) -> Rows:
        """A categorical column that takes codes, -1 for none."""
        ...

    def strings(self, path: str, values: Sequence[str]) -> None:
        """A short array of strings."""
        ...

    def mapping(self, path: str, values: Mapping[str, Any]) -> None:
        """A dict of strings and numbers."""
        ...

    def frame(self, path: str, columns: Sequence[str]) -> None:
        """A data frame; its index is the array ``_index``."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


def create_table(path: Path) -> TableFile:
    """An empty AnnData at ``path``, which ends in .zarr or .h5ad.

    Raises
    ------
    StoreError
        If h5py, which .h5ad needs, is not installed.
    """
    return _ZarrTable(path) if path.suffix == ".zarr" else _Hdf5Table(path)


def is_table(path: Path) -> bool:
    """Whether the folder ``path`` is an AnnData in Zarr."""
    try:
        attributes = zarr.open_group(path, mode="r").attrs
        return attributes.get("encoding-type") == ANNDATA["encoding-type"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


class _ZarrTable:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._root: Node = zarr.create_group(path, zarr_format=3, attributes=dict(ANNDATA))
        create_mappings(self._root, _EMPTY)

    def rows(self, path: str, shape: tuple[int, ...], dtype: Any) -> Rows:
        group, name = self._place(path)
        return RowWriter(create_rows(group, name, shape, dtype, Chunking()))

    def categorical(self, path: str, categories: Sequence[str], n_rows: int) -> Rows:
        group, name = self._place(path)
        return RowWriter(create_categorical(group, name, categories, n_rows, Chunking()))

    def strings(self, path: str, values: Sequence[str]) -> None:
        group, name = self._place(path)
        write_strings(group, name, values)

    def mapping(self, path: str, values: Mapping[str, Any]) -> None:
        group, name = self._place(path)
        write_mapping(group, name, values)

    def frame(self, path: str, columns: Sequence[str]) -> None:
        self._root.create_group(path, attributes=dataframe_attributes(columns))

    def close(self) -> None:
        consolidate(self._path)

    def _place(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        return (self._root[folder] if folder else self._root), name


class _Hdf5Table:
    def __init__(self, path: Path) -> None:
        try:
            import h5py
        except ImportError:
            raise StoreError(
                "Writing .h5ad needs the package h5py: pip install 'ccrl-wsi[spatial]'. "
                ".zarr needs nothing more."
            ) from None
        self._text = h5py.string_dtype("utf-8")
        self._root: Node = h5py.File(path, "w")
        self._root.attrs.update(ANNDATA)
        for name in _EMPTY:
            self._group(name, DICT)

    def rows(self, path: str, shape: tuple[int, ...], dtype: Any) -> Rows:
        is_text = dtype is str
        chunks = (max(1, min(_CHUNK_ROWS, shape[0])), *(max(1, size) for size in shape[1:]))
        array = self._root.create_dataset(
            path, shape, self._text if is_text else dtype, chunks=chunks if all(shape) else None
        )
        array.attrs.update(STRINGS if is_text else ARRAY)
        return _Hdf5Rows(array)

    def categorical(self, path: str, categories: Sequence[str], n_rows: int) -> Rows:
        self._group(path, CATEGORICAL)
        self.strings(f"{path}/categories", categories)
        return self.rows(f"{path}/codes", (n_rows,), np.int8 if len(categories) < 128 else np.int16)

    def strings(self, path: str, values: Sequence[str]) -> None:
        array = self._root.create_dataset(path, (len(values),), self._text)
        array.attrs.update(STRINGS)
        if values:
            array[:] = np.asarray(values, dtype=object)

    def mapping(self, path: str, values: Mapping[str, Any]) -> None:
        self._group(path, DICT)
        for name, value in values.items():
            kind = self._text if isinstance(value, str) else None
            array = self._root.create_dataset(f"{path}/{name}", data=value, dtype=kind)
            array.attrs.update(scalar_attributes(value))

    def frame(self, path: str, columns: Sequence[str]) -> None:
        # HDF5 knows no empty list of texts, only an empty array of them.
        attributes = dataframe_attributes(columns)
        attributes["column-order"] = np.array(list(columns), dtype=self._text)
        self._group(path, attributes)

    def close(self) -> None:
        self._root.close()

    def _group(self, path: str, attributes: Mapping[str, Any]) -> None:
        self._root.create_group(path).attrs.update(attributes)


class _Hdf5Rows:
    def __init__(self, array: Node) -> None:
        self._array = array
        self._n_written = 0

    def append(self, rows: AnyArray | Sequence[str]) -> None:
        if len(rows):
            stop = self._n_written + len(rows)
            self._array[self._n_written : stop] = rows
            self._n_written = stop

    def flush(self) -> None:
        """Nothing waits: HDF5 keeps its own chunks."""
