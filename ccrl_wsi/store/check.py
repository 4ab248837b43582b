"""Whether a store is what it says it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ccrl_wsi.errors import StoreError
from ccrl_wsi.store import layout
from ccrl_wsi.store.damage import DAMAGE
from ccrl_wsi.store.read import SlideStore, open_store
from ccrl_wsi.store.seal import changed_files
from ccrl_wsi.store.shapes import iterate_polygons, read_cell_ids

_UUID5 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_ROWS = 16384


def check_store(path: Path) -> list[str]:
    """What is wrong with the store ``path``, one sentence each; nothing if all is well.

    Compares checksums, counts, ids, geometry and clusters. Memory holds ids and one piece of the
    rest.
    """
    try:
        store = open_store(path)
        problems = changed_files(path)
    except StoreError as error:
        return [str(error)]
    checks = (_check_counts, _check_ids, _check_outlines, _check_numbers)
    for check in (*checks, _check_clusters, _check_labels):
        problems += _guarded(check, store)
    return problems


def _guarded(check: Callable[[SlideStore], list[str]], store: SlideStore) -> list[str]:
    try:
        return check(store)
    except (*DAMAGE, StoreError) as error:
        what = check.__name__.removeprefix("_check_")
        return [f"{what}: cannot be read ({type(error).__name__}: {error})"]


def _check_counts(store: SlideStore) -> list[str]:
    expected = store.attrs["counts"]["cells"]
    lengths = {"X": store.n_cells, "obsm/spatial": len(store.centroids())}
    lengths |= {f"obs/{name}": store.column_length(name) for name in ["_index", *store.columns]}
    lengths[layout.PARQUET] = len(read_cell_ids(store.path / layout.PARQUET))
    if store.attrs["counts"]["crops"]:
        lengths[layout.CROPS] = store.n_crops
    return [
        f"{name}: {length} rows instead of {expected}"
        for name, length in lengths.items()
        if length != expected
    ]


def _check_ids(store: SlideStore) -> list[str]:
    problems = []
    uuids = store.obs("uuid")
    n_repeated = len(uuids) - len(set(uuids))
    n_foreign = sum(_UUID5.fullmatch(value) is None for value in uuids)
    if n_repeated:
        problems.append(f"obs/uuid: {n_repeated} ids occur more than once")
    if n_foreign:
        problems.append(f"obs/uuid: {n_foreign} ids are not UUIDs of version 5")
    counted = np.arange(store.n_cells)
    for name, ids in {
        "obs/cell_id": store.obs("cell_id"),
        layout.PARQUET: read_cell_ids(store.path / layout.PARQUET),
    }.items():
        if not np.array_equal(ids, counted):
            problems.append(f"{name}: cell ids do not count from 0")
    return problems


def _check_outlines(store: SlideStore) -> list[str]:
    n_invalid = n_other = 0
    for polygons in iterate_polygons(store.path / layout.PARQUET, _ROWS):
        n_other += int((shapely.get_type_id(polygons) != shapely.GeometryType.POLYGON).sum())
        # An unclosed ring does not parse at all; is_valid finds crossings and empty areas.
        n_invalid += int((~shapely.is_valid(polygons) | (shapely.area(polygons) <= 0)).sum())
    problems = []
    if n_other:
        problems.append(f"{layout.PARQUET}: {n_other} outlines are not polygons")
    if n_invalid:
        problems.append(f"{layout.PARQUET}: {n_invalid} outlines cross themselves or are empty")
    return problems


def _check_numbers(store: SlideStore) -> list[str]:
    n_bad_centroids = int((~np.isfinite(store.centroids()).all(axis=1)).sum())
    n_bad_vectors = 0
    for start in range(0, store.n_cells, _ROWS):
        rows = store.embedding(start, start + _ROWS)
        n_bad_vectors += int((~np.isfinite(rows).all(axis=1)).sum())
    problems = []
    if n_bad_centroids:
        problems.append(f"obsm/spatial: {n_bad_centroids} centroids are not finite")
    if n_bad_vectors:
        problems.append(f"X: {n_bad_vectors} embeddings are not finite")
    return problems


def _check_clusters(store: SlideStore) -> list[str]:
    if not store.has_clusters:
        return []
    legend: dict[str, Any] = store.attrs["clusters"]
    problems = []
    if store.categories(layout.CLUSTER) != legend["names"]:
        problems.append("obs/cluster: names differ from the codebook's")
    codes = store.obs(layout.CLUSTER)
    n_outside = int(((codes < -1) | (codes >= len(legend["names"]))).sum())
    if n_outside:
        problems.append(f"obs/cluster: {n_outside} cells are in no cluster of the codebook")
    n_bad = int((~np.isfinite(store.obs(layout.CLUSTER_DISTANCE)) & (codes >= 0)).sum())
    if n_bad:
        problems.append(f"obs/cluster_distance: {n_bad} distances are not finite")
    return problems


def _check_labels(store: SlideStore) -> list[str]:
    if not store.has_labels:
        return []
    codes, n_names = store.obs(layout.LABEL), len(store.categories(layout.LABEL))
    n_outside = int(((codes < -1) | (codes >= n_names)).sum())
    return [f"obs/label: {n_outside} cells have a label without a name"] if n_outside else []
