"""A finished slide for TIAViz."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ccrl_wsi.errors import StoreError
from ccrl_wsi.polygons import to_polygons
from ccrl_wsi.store import CellBatch, SlideStore, open_store

_ROWS_AT_ONCE = 16384
_OWN_COLUMNS = ("cell_id", "region", "uuid", "tile_row", "tile_column")


def export_tiaviz(store_path: Path, target: Path) -> int:
    """Write one slide for TIAViz, ``target`` ending in .db or .geojson; returns n cells.

    The annotation store (.db) opens at once; GeoJSON is read anew each time it is opened, but
    any Python can write it. The property ``type`` is the cluster, or the nucleus type before
    there are clusters.

    Raises
    ------
    StoreError
        If this Python cannot write an annotation store.
    """
    if target.suffix not in (".db", ".geojson"):
        raise StoreError(f"{target}: the name must end in .db or .geojson.")
    store = open_store(store_path)
    names = tuple(name for name in store.columns if name not in _OWN_COLUMNS)
    batches = store.iter_cells(_ROWS_AT_ONCE, names)
    temporary = target.with_name(f".{target.stem}.partial{target.suffix}")
    temporary.unlink(missing_ok=True)
    try:
        write = _write_annotation_store if target.suffix == ".db" else _write_flat_geojson
        write(temporary, store, batches)
        temporary.replace(target)
    except OSError as error:
        raise StoreError(f"Cannot write {target}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return store.n_cells


def _write_annotation_store(target: Path, store: SlideStore, batches: Iterable[CellBatch]) -> None:
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        raise StoreError(
            "TIAToolbox's annotation store needs a Python whose sqlite3 loads extensions, which "
            "this one does not: export to .geojson."
        )
    # It takes many seconds to import; only this export needs it.
    from tiatoolbox.annotation.storage import Annotation, SQLiteStore

    # Speed before size: the file is a copy made for looking at.
    database = SQLiteStore(target, compression_level=1)
    try:
        for batch in batches:
            pairs = zip(to_polygons(batch.outlines), _properties(store, batch), strict=True)
            database.append_many([Annotation(p, values) for p, values in pairs], batch.uuid)
        database.commit()
    finally:
        database.close()


def _write_flat_geojson(target: Path, store: SlideStore, batches: Iterable[CellBatch]) -> None:
    """GeoJSON with all values side by side in ``properties``, where TIAViz looks for them."""
    separator = ""
    with target.open("w", encoding="utf-8") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for batch in batches:
            shapes = shapely.to_geojson(to_polygons(batch.outlines)).tolist()
            rows = zip(batch.uuid, shapes, _properties(store, batch), strict=True)
            for uuid, shape, values in rows:
                file.write(
                    f'{separator}\n{{"type":"Feature","id":"{uuid}","geometry":{shape},'
                    f'"properties":{json.dumps(values)}}}'
                )
                separator = ","
        file.write("\n]}\n")


def _properties(store: SlideStore, batch: CellBatch) -> list[dict[str, Any]]:
    """Properties of each cell: plain values, without those that are not finite."""
    columns: dict[str, list[Any]] = {}
    for name, values in batch.columns.items():
        if store.is_categorical(name):
            # Code -1 takes the last entry.
            labels = [*store.categories(name), "none"]
            columns[name] = [labels[code] for code in values.tolist()]
        elif values.dtype.kind == "f":
            rounded = np.round(values.astype(np.float64), 4).tolist()
            columns[name] = [value if math.isfinite(value) else None for value in rounded]
        else:
            columns[name] = values.tolist()
    columns["type"] = columns["cluster" if store.has_clusters else "nucleus_type"]
    rows = zip(*columns.values(), strict=True)
    return [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None}
        for row in rows
    ]
