"""Outlines with all columns as GeoParquet, written in pieces: of one slide, or of a cohort."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from ccrl_wsi.arrays import FloatArray
from ccrl_wsi.errors import StoreError
from ccrl_wsi.polygons import to_polygons
from ccrl_wsi.records import Outlines
from ccrl_wsi.store import CellBatch, SlideStore, open_store

_ROWS_AT_ONCE = 16384
_NOT_SHOWN = ("cell_id", "region", "uuid")


def export_geoparquet(store_path: Path, target: Path) -> int:
    """Write one slide's outlines with all columns of ``obs`` as GeoParquet; returns n cells.

    Coordinates are level-0 pixels; the index is the cell id.
    """
    return _write([open_store(store_path)], target, is_cohort=False)


def export_cohort_geoparquet(store_paths: Sequence[Path], target: Path) -> int:
    """Write the outlines of all slides into one GeoParquet file; returns n cells.

    The columns slide_id, patient and group come first. Coordinates are level-0 pixels of their own
    slide: slides lie on top of each other.
    """
    return _write([open_store(path) for path in store_paths], target, is_cohort=True)


def _write(stores: Sequence[SlideStore], target: Path, *, is_cohort: bool) -> int:
    names = tuple(dict.fromkeys(n for s in stores for n in s.columns if n not in _NOT_SHOWN))
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _Writer(temporary, _frame(stores[0], _no_cells(), names, is_cohort)) as writer:
            for store in stores:
                own = tuple(name for name in names if name in store.columns)
                for batch in store.iter_cells(_ROWS_AT_ONCE, own):
                    bounds = batch.outlines.xy.min(axis=0), batch.outlines.xy.max(axis=0)
                    writer.append(_frame(store, batch, names, is_cohort), *bounds)
        temporary.replace(target)
    except OSError as error:
        raise StoreError(f"Cannot write {target}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return sum(store.n_cells for store in stores)


class _Writer:
    """One row group a frame; what GeoParquet says of the whole comes at the end."""

    def __init__(self, path: Path, empty: pd.DataFrame) -> None:
        schema = pa.Schema.from_pandas(empty)
        place = schema.get_field_index("geometry")  # Without rows its type cannot be seen.
        self._schema = schema.set(place, pa.field("geometry", pa.binary()))
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._low, self._high = np.full(2, np.inf), np.full(2, -np.inf)

    def append(self, frame: pd.DataFrame, low: FloatArray, high: FloatArray) -> None:
        self._file.write_table(pa.Table.from_pandas(frame, schema=self._schema))
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.add_key_value_metadata({"geo": json.dumps(self._geo())})
        self._file.close()

    def _geo(self) -> dict[str, object]:
        is_empty = not np.isfinite(self._low).all()
        column: dict[str, object] = {
            "encoding": "WKB",
            "geometry_types": [] if is_empty else ["Polygon"],
            "crs": None,
        }
        if not is_empty:
            column["bbox"] = [*self._low.tolist(), *self._high.tolist()]
        return {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _no_cells() -> CellBatch:
    return CellBatch(0, [], Outlines.concat([]), np.zeros((0, 2)), {})


def _frame(
    store: SlideStore, batch: CellBatch, names: Sequence[str], is_cohort: bool
) -> pd.DataFrame:
    ids = np.arange(batch.first, batch.first + len(batch), dtype=np.int64)
    columns: dict[str, Any] = {}
    if is_cohort:
        notes = store.attrs["notes"]
        said = {"slide_id": store.slide_id, "patient": notes["patient"], "group": notes["group"]}
        columns = {name: _repeated(value, len(batch)) for name, value in said.items()}
        columns["cell_id"] = ids
    columns["uuid"] = pd.array(batch.uuid, dtype=pd.StringDtype())
    columns |= {name: _values(store, batch, name) for name in names}
    columns["geometry"] = shapely.to_wkb(to_polygons(batch.outlines), byte_order=1)
    index = None if is_cohort else pd.Index(ids, name="cell_id")
    return pd.DataFrame(columns, index=index).astype({"geometry": object})


def _values(store: SlideStore, batch: CellBatch, name: str) -> Any:
    if name not in store.columns:
        return _repeated(None, len(batch))
    values = batch.columns[name] if name in batch.columns else store.obs(name, 0, 0)
    if store.is_categorical(name):
        return _categorical(values.tolist(), store.categories(name))
    return values


def _repeated(value: str | None, n: int) -> pd.Categorical:
    return _categorical([-1 if value is None else 0] * n, [] if value is None else [value])


def _categorical(codes: list[int], categories: list[str]) -> pd.Categorical:
    # Text even where there is none: the first slide decides the type of the column.
    return pd.Categorical.from_codes(codes, pd.Index(categories, dtype="string"))
