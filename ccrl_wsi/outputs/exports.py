"""Finished slides for other programs: AnnData of a cohort, GeoParquet, TIAViz."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely

from ccrl_wsi.errors import StoreError
from ccrl_wsi.polygons import to_polygons
from ccrl_wsi.store import CellBatch, SlideStore, open_store

_ROWS_AT_ONCE = 16384
_CATEGORICAL = ("region", "nucleus_type", "cluster")
_OWN_COLUMNS = ("cell_id", "region", "uuid", "tile_row", "tile_column")


def export_anndata(store_paths: Sequence[Path], target: Path) -> int:
    """Write all slides as one AnnData, ``target`` ending in .h5ad or .zarr; returns n cells.

    ``obs`` gets the columns slide_id, patient and group. All embeddings are in memory at once.

    Raises
    ------
    StoreError
        If the slides were embedded by different encoders or clustered with different codebooks,
        or anndata is not installed.
    """
    if target.suffix not in (".h5ad", ".zarr"):
        raise StoreError(f"{target}: the name must end in .h5ad or .zarr.")
    anndata = _import_anndata()
    stores = [open_store(path) for path in store_paths]
    _check_same_space(stores)
    tables = [_table(anndata, store) for store in stores]
    cohort = anndata.concat(tables, merge="same", uns_merge="same")
    cohort.obs["slide_id"] = cohort.obs["slide_id"].astype("category")
    for name in ("patient", "group"):
        cohort.obs[name] = cohort.obs[name].astype("category")
    temporary = target.with_name(f".{target.name}.partial{target.suffix}")
    _remove(temporary)
    if target.suffix == ".zarr":
        with anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=True):
            cohort.write_zarr(temporary)
    else:
        cohort.write_h5ad(temporary)
    _remove(target)
    temporary.rename(target)
    return int(cohort.n_obs)


def export_geoparquet(store_path: Path, target: Path) -> int:
    """Write one slide's outlines with all columns of ``obs`` as GeoParquet; returns n cells.

    Coordinates are level-0 pixels; the index is the cell id.
    """
    store = open_store(store_path)
    names = tuple(name for name in store.columns if name not in ("cell_id", "region", "uuid"))
    frames = [_frame(store, batch) for batch in store.iter_cells(_ROWS_AT_ONCE, names)]
    whole = pd.concat(frames) if frames else geopandas.GeoDataFrame(geometry=[])
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        whole.to_parquet(temporary, compression="zstd")
        temporary.replace(target)
    except OSError as error:
        raise StoreError(f"Cannot write {target}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return len(whole)


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
    _remove(temporary)
    try:
        write = _write_annotation_store if target.suffix == ".db" else _write_flat_geojson
        write(temporary, store, batches)
        temporary.replace(target)
    except OSError as error:
        raise StoreError(f"Cannot write {target}: {error.strerror or error}.") from error
    finally:
        _remove(temporary)
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


def _import_anndata() -> Any:
    try:
        import anndata
    except ImportError:
        raise StoreError(
            "Exporting AnnData needs the package anndata: pip install 'ccrl-wsi[spatial]'."
        ) from None
    return anndata


def _check_same_space(stores: Sequence[SlideStore]) -> None:
    """Vectors and cluster numbers mean the same only from one encoder and one codebook."""
    if not stores:
        raise StoreError("There is no finished slide to export. Run `ccrl-wsi run` first.")
    made = {
        (
            store.attrs["encoder"]["fingerprint"],
            tuple(store.columns),
            store.attrs.get("clusters", {}).get("codebook"),
        ): store
        for store in stores
    }
    if len(made) > 1:
        a, b = list(made.values())[:2]
        raise StoreError(
            f"{a.slide_id} and {b.slide_id} differ in encoder, columns or clusters. "
            "Run the cohort again so that all slides are treated alike."
        )


def _table(anndata: Any, store: SlideStore) -> Any:
    table = anndata.read_zarr(store.path / "tables" / "cells")
    notes = store.attrs["notes"]
    table.obs["slide_id"] = store.slide_id
    for name in ("patient", "group"):
        table.obs[name] = notes.get(name)
    # What holds for a slide only, and for a table that annotates shapes beside it.
    table.uns = {
        name: np.asarray(value, dtype=object)
        for name, value in table.uns.items()
        if name == "cluster_colors"
    }
    del table.obs["region"]
    return table


def _frame(store: SlideStore, batch: CellBatch) -> geopandas.GeoDataFrame:
    columns: dict[str, Any] = {"uuid": batch.uuid}
    for name, values in batch.columns.items():
        is_coded = name in _CATEGORICAL
        columns[name] = (
            pd.Categorical.from_codes(values.tolist(), pd.Index(store.categories(name)))
            if is_coded
            else values
        )
    index = pd.RangeIndex(batch.first, batch.first + len(batch), name="cell_id")
    return geopandas.GeoDataFrame(columns, geometry=to_polygons(batch.outlines), index=index)


def _properties(store: SlideStore, batch: CellBatch) -> list[dict[str, Any]]:
    """Properties of each cell: plain values, without those that are not finite."""
    columns: dict[str, list[Any]] = {}
    for name, values in batch.columns.items():
        if name in _CATEGORICAL:
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


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
