"""Reading a slide's store in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ccrl_wsi.arrays import AnyArray, ByteArray, FloatArray, IntArray
from ccrl_wsi.errors import StoreError
from ccrl_wsi.records import Outlines
from ccrl_wsi.store import layout
from ccrl_wsi.store.encoding import Node, open_root
from ccrl_wsi.store.heading import is_heading, open_elsewhere
from ccrl_wsi.store.seal import is_sealed
from ccrl_wsi.store.shapes import OutlineFile, iterate_outlines, read_outlines


@dataclass(frozen=True, slots=True)
class CellBatch:
    """Some neighbouring rows of a store.

    Parameters
    ----------
    first
        Row of the first cell.
    uuid
        n ids.
    outlines, centroid_px
        n rings and (n, 2) float64, in level-0 pixels.
    columns
        (n,) each: the columns asked for. Categorical ones as codes, -1 for none.
    """

    first: int
    uuid: list[str]
    outlines: Outlines
    centroid_px: FloatArray
    columns: Mapping[str, AnyArray]

    def __len__(self) -> int:
        return len(self.uuid)


class SlideStore:
    """One slide's finished cells, open for reading."""

    def __init__(self, path: Path, root: Node) -> None:
        self.path = path
        self._root = root
        self._table = root[layout.TABLE]
        self._embedding = self._table["X"]

    @property
    def attrs(self) -> dict[str, Any]:
        """What the store says of itself: the root attribute ``ccrl``."""
        return dict(self._root.attrs["ccrl"])

    @property
    def slide_id(self) -> str:
        """The slide's name."""
        return str(self.attrs["slide"]["slide_id"])

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self._embedding.shape[0])

    @property
    def n_dimensions(self) -> int:
        """Length of an embedding."""
        return int(self._embedding.shape[1])

    @property
    def n_crops(self) -> int:
        """Number of crops: that of the cells, or 0 where they were not kept."""
        return int(self._root[layout.CROPS].shape[0]) if layout.CROPS in self._root else 0

    @property
    def chunk_rows(self) -> int:
        """Rows that are read from disk at once, whatever part of them is asked for."""
        return int(self._embedding.chunks[0])

    @property
    def columns(self) -> list[str]:
        """Names of the columns of ``obs``."""
        return list(self._table["obs"].attrs["column-order"])

    @property
    def has_clusters(self) -> bool:
        """Whether the cells have been clustered."""
        return "clusters" in self._root.attrs["ccrl"]

    @property
    def has_labels(self) -> bool:
        """Whether people's labels were joined to the cells."""
        return layout.LABEL in self.columns

    def embedding(self, start: int = 0, stop: int | None = None) -> FloatArray:
        """Embeddings of rows ``start`` to ``stop``: (n, d) float32."""
        rows: FloatArray = self._embedding[start : self.n_cells if stop is None else stop]
        return rows

    def embedding_rows(self, rows: IntArray) -> FloatArray:
        """Embeddings of the ascending ``rows``: (n, d) float32. Reads only chunks it needs."""
        found = np.empty((len(rows), self.n_dimensions), np.float32)
        step = self.chunk_rows
        edges = np.searchsorted(rows, np.arange(0, self.n_cells + step, step))
        for chunk, (first, last) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            if last > first:
                start = chunk * step
                found[first:last] = self.embedding(start, start + step)[rows[first:last] - start]
        return found

    def obs(self, name: str, start: int = 0, stop: int | None = None) -> AnyArray:
        """A column of ``obs``: (n,). Categorical ones as codes (-1: none), text as objects.

        Raises
        ------
        StoreError
            If there is no such column.
        """
        if name not in self.columns:
            raise StoreError(
                f"{self.path} has no column {name!r}; it has: {', '.join(self.columns)}."
            )
        values: AnyArray = self._column(name)[start:stop]
        return values.astype(object) if values.dtype.kind == "T" else values

    def column_length(self, name: str) -> int:
        """Rows of a column of ``obs``, or of its index ``_index``."""
        return int(self._column(name).shape[0])

    def _column(self, name: str) -> Node:
        column: Node = self._table[f"obs/{name}"]
        return column["codes"] if isinstance(column, zarr.Group) else column

    def is_categorical(self, name: str) -> bool:
        """Whether :meth:`obs` gives codes of :meth:`categories`."""
        return isinstance(self._table[f"obs/{name}"], zarr.Group)

    def categories(self, name: str) -> list[str]:
        """Names that the codes of a categorical column stand for."""
        return [str(value) for value in self._table[f"obs/{name}/categories"][:]]

    def centroids(self, start: int = 0, stop: int | None = None) -> FloatArray:
        """Centroids (n, 2) float64 in level-0 pixels."""
        rows: FloatArray = self._table["obsm/spatial"][start:stop]
        return rows

    def outlines(self, rows: IntArray) -> Outlines:
        """Outlines of the ascending ``rows``, in level-0 pixels."""
        return read_outlines(self._outline_file(), rows)

    def _outline_file(self) -> OutlineFile:
        file = self.path / layout.PARQUET
        return open_elsewhere(self.path, layout.PARQUET) if is_heading(self.path) else file

    def crops(self, start: int = 0, stop: int | None = None) -> ByteArray:
        """Crops (n, side, side, 3) uint8.

        Raises
        ------
        StoreError
            If the store was made without keeping them.
        """
        if layout.CROPS not in self._root:
            raise StoreError(f"{self.path} holds no crops: run with --set crops.keep=true.")
        rows: ByteArray = self._root[layout.CROPS][start:stop]
        return rows

    def iter_cells(self, n_rows: int, columns: tuple[str, ...] = ()) -> Iterator[CellBatch]:
        """All cells in order, at most ``n_rows`` at a time, with the ``columns`` asked for."""
        first = 0
        for outlines in iterate_outlines(self._outline_file(), n_rows):
            stop = first + len(outlines)
            yield CellBatch(
                first,
                self.obs("uuid", first, stop).tolist(),
                outlines,
                self.centroids(first, stop),
                {name: self.obs(name, first, stop) for name in columns},
            )
            first = stop


def open_store(path: Path, *, unfinished: bool = False) -> SlideStore:
    """Open one slide's store.

    ``unfinished`` also accepts one that was interrupted while its clusters were written: its
    cells are complete all the same.

    Raises
    ------
    StoreError
        If it is absent, foreign, unfinished, or of another version.
    """
    if not path.is_dir():
        raise StoreError(f"There is no store {path}. `ccrl-wsi run` makes it.")
    try:
        root = open_root(path, "r")
        schema = root.attrs["ccrl"]["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a store of this package ({error}).") from error
    if schema != layout.SCHEMA_VERSION:
        raise StoreError(
            f"{path} has store schema {schema}, this version reads {layout.SCHEMA_VERSION}. "
            "Run again into another output folder."
        )
    if not (unfinished or is_sealed(path)):
        raise StoreError(f"{path} is not finished: run the same command again.")
    return SlideStore(path, root)
