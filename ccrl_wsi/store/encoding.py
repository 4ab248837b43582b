"""AnnData's on-disk encoding, written with zarr alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import zarr

from ccrl_wsi.arrays import AnyArray
from ccrl_wsi.store.heading import is_heading, open_heading
from ccrl_wsi.store.layout import Chunking

Node: TypeAlias = Any
"""A group or an array. zarr's own types cannot tell which of them lies under a name."""

ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
STRINGS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}
DICT = {"encoding-type": "dict", "encoding-version": "0.1.0"}
CATEGORICAL = {"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False}


class RowWriter:
    """Takes rows in portions of any size; the disk sees whole files only.

    Partly written shards would be read and packed again with every portion.
    """

    def __init__(self, array: Node) -> None:
        self._array = array
        step = (array.shards or array.chunks)[0]
        dtype = object if array.dtype.kind in "TO" else array.dtype
        self._buffer = np.empty((min(step, array.shape[0]), *array.shape[1:]), dtype)
        self._n_buffered = 0
        self._n_written = 0

    def append(self, rows: AnyArray | Sequence[str]) -> None:
        """Add ``rows`` after the last ones."""
        n_taken = 0
        while n_taken < len(rows):
            n = min(len(self._buffer) - self._n_buffered, len(rows) - n_taken)
            self._buffer[self._n_buffered : self._n_buffered + n] = rows[n_taken : n_taken + n]
            self._n_buffered += n
            n_taken += n
            if self._n_buffered == len(self._buffer):
                self.flush()

    def flush(self) -> None:
        """Write what is buffered; called once more after the last rows."""
        if self._n_buffered:
            stop = self._n_written + self._n_buffered
            self._array[self._n_written : stop] = self._buffer[: self._n_buffered]
            self._n_written, self._n_buffered = stop, 0


def create_rows(
    group: Node,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    chunking: Chunking,
) -> Node:
    """An empty array of ``shape[0]`` rows; ``dtype`` is a number's, or ``str``."""
    rows = chunking.fitted(shape[0])
    rest = tuple(max(1, size) for size in shape[1:])
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(rows.chunk_rows, *rest),
        shards=(rows.shard_rows, *rest),
        attributes=STRINGS if dtype is str else ARRAY,
    )


def create_categorical(
    group: Node, name: str, categories: Sequence[str], n_rows: int, chunking: Chunking
) -> Node:
    """A categorical column; returns the array that takes its codes (-1: none)."""
    column = group.create_group(name, attributes=CATEGORICAL)
    write_strings(column, "categories", categories)
    dtype = np.int8 if len(categories) < 128 else np.int16
    return create_rows(column, "codes", (n_rows,), dtype, chunking)


def write_strings(group: Node, name: str, values: Sequence[str]) -> None:
    """A short array of strings."""
    array = group.create_array(
        name, shape=(len(values),), dtype=str, chunks=(max(1, len(values)),), attributes=STRINGS
    )
    if values:
        array[:] = np.asarray(values, dtype=object)


def write_mapping(group: Node, name: str, values: Mapping[str, Any]) -> None:
    """A dict of strings and numbers."""
    inner = group.create_group(name, attributes=DICT)
    for key, value in values.items():
        array = inner.create_array(
            key,
            shape=(),
            dtype=str if isinstance(value, str) else np.asarray(value).dtype,
            attributes=scalar_attributes(value),
        )
        array[...] = value


def scalar_attributes(value: Any) -> dict[str, str]:
    """Attributes of a string or number by itself."""
    kind = "string" if isinstance(value, str) else "numeric-scalar"
    return {"encoding-type": kind, "encoding-version": "0.2.0"}


def create_mappings(group: Node, names: Sequence[str]) -> None:
    """Empty dicts: the parts of an AnnData that hold nothing yet."""
    for name in names:
        group.create_group(name, attributes=DICT)


def dataframe_attributes(columns: Sequence[str]) -> dict[str, Any]:
    """Attributes of a data frame's group with these columns."""
    return {
        "encoding-type": "dataframe",
        "encoding-version": "0.2.0",
        "_index": "_index",
        "column-order": list(columns),
    }


def open_root(path: Path, mode: Literal["r", "r+"]) -> Node:
    """The root group of the store ``path``, as it is now rather than as it was consolidated."""
    if mode == "r" and is_heading(path):
        return open_heading(path)
    return zarr.open_group(path, mode=mode, use_consolidated=False)


def consolidate(path: Path) -> None:
    """Copy all metadata into the root, so that opening the store reads one file."""
    with warnings.catch_warnings():
        # Every reader of this layout understands it, though the format's text lacks it so far.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        # The GeoParquet file, where SpatialData wants it.
        warnings.filterwarnings("ignore", message="Object at .* is not recognized")
        zarr.consolidate_metadata(path)
