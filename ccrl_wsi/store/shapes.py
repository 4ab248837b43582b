"""Outlines as GeoParquet, written and read in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from ccrl_wsi.arrays import AnyArray, IntArray
from ccrl_wsi.records import Outlines
from ccrl_wsi.store.wkb import decode_outlines, encode_outlines

OutlineFile: TypeAlias = Path | BinaryIO
"""Where outlines are read from."""


class OutlineWriter:
    """Takes outlines in portions; writes row groups of equal size. Row i is cell i."""

    def __init__(self, path: Path, row_group: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = _schema()
        self._row_group = row_group
        self._waiting: list[Outlines] = []
        self._n_written = 0
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        # A dictionary of shapes that are all different would only cost time.
        self._file = pq.ParquetWriter(
            path, self._schema, compression="zstd", use_dictionary=False, write_statistics=False
        )

    def append(self, outlines: Outlines) -> None:
        """Add outlines (level-0 pixels) after the last ones."""
        self._waiting.append(outlines)
        if sum(map(len, self._waiting)) >= self._row_group:
            waiting = Outlines.concat(self._waiting)
            n_whole = len(waiting) // self._row_group * self._row_group
            for first in range(0, n_whole, self._row_group):
                self._write(waiting.where(np.arange(first, first + self._row_group)))
            self._waiting = [waiting.where(np.arange(n_whole, len(waiting)))]

    def _write(self, outlines: Outlines) -> None:
        ids = np.arange(self._n_written, self._n_written + len(outlines), dtype=np.int64)
        table = pa.table([encode_outlines(outlines), pa.array(ids)], schema=self._schema)
        self._file.write_table(table, row_group_size=self._row_group)
        self._n_written += len(outlines)
        self._bounds[:2] = np.minimum(self._bounds[:2], outlines.xy.min(axis=0))
        self._bounds[2:] = np.maximum(self._bounds[2:], outlines.xy.max(axis=0))

    def __enter__(self) -> OutlineWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            rest = Outlines.concat(self._waiting)
            if len(rest):
                self._write(rest)
            self._file.add_key_value_metadata({"geo": json.dumps(self._geo())})
        self._file.close()

    def _geo(self) -> dict[str, object]:
        column: dict[str, object] = {
            "encoding": "WKB",
            "geometry_types": ["Polygon"] if self._n_written else [],
            "crs": None,
        }
        if self._n_written:
            column["bbox"] = self._bounds.tolist()
        return {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}


def iterate_outlines(path: OutlineFile, n_rows: int) -> Iterator[Outlines]:
    """All outlines in order, at most ``n_rows`` at a time."""
    with _open(path) as file:
        for batch in file.iter_batches(n_rows, columns=["geometry"]):
            yield decode_outlines(batch.column(0))


def iterate_polygons(path: OutlineFile, n_rows: int) -> Iterator[AnyArray]:
    """All outlines in order as shapely polygons, at most ``n_rows`` at a time."""
    with _open(path) as file:
        for batch in file.iter_batches(n_rows, columns=["geometry"]):
            yield shapely.from_wkb(batch.column(0).to_numpy(zero_copy_only=False))


def read_outlines(path: OutlineFile, rows: IntArray) -> Outlines:
    """Outlines of the ascending ``rows``. Reads only the row groups it needs."""
    found = [Outlines.concat([])]
    with _open(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        edges = np.concatenate([[0], np.cumsum(sizes)])
        places = np.searchsorted(rows, edges)
        for group, (first, last) in enumerate(zip(places[:-1], places[1:], strict=True)):
            if last > first:
                column = file.read_row_group(group, columns=["geometry"]).column(0)
                wkb = column.take(pa.array(rows[first:last] - edges[group]))
                found.append(decode_outlines(wkb.combine_chunks()))
    return Outlines.concat(found)


def read_cell_ids(path: Path) -> IntArray:
    """The index of the file: (n,) int64."""
    ids: IntArray = pq.read_table(path, columns=["cell_id"]).column(0).to_numpy()
    return ids


def _open(path: OutlineFile) -> pq.ParquetFile:
    # Read ahead, Arrow would keep all that it has read until the file is closed.
    return pq.ParquetFile(path, pre_buffer=False)


def _schema() -> pa.Schema:
    import pandas as pd

    # What pandas notes about a frame makes `cell_id` its index again.
    frame = pd.DataFrame({"geometry": [b""]}, index=pd.Index([0], dtype=np.int64, name="cell_id"))
    return pa.Schema.from_pandas(frame)
