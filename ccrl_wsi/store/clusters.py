"""Clusters of a slide's cells: the only thing in a store that is ever replaced."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.errors import StoreError
from ccrl_wsi.store import layout
from ccrl_wsi.store.encoding import (
    Node,
    consolidate,
    create_categorical,
    create_rows,
    open_root,
    write_strings,
)
from ccrl_wsi.store.layout import Chunking
from ccrl_wsi.store.read import open_store
from ccrl_wsi.store.seal import break_seal, seal_store, without

_COLUMNS = (layout.CLUSTER, layout.CLUSTER_DISTANCE)
_COLORS = f"{layout.TABLE}/uns/cluster_colors"
_TOUCHED = (*(f"{layout.OBS}/{name}" for name in _COLUMNS), _COLORS)
_REWRITTEN = (*_TOUCHED, "zarr.json", f"{layout.OBS}/zarr.json")

Color = tuple[int, int, int]


def write_clusters(
    path: Path,
    cluster: IntArray,
    distance: FloatArray,
    cluster_names: Sequence[str],
    colors: Sequence[Color],
    codebook_fingerprint: str,
) -> None:
    """Add the clusters of all cells to a store, or replace the ones it has.

    The seal is broken first and renewed last: an interrupted store is known to be unfinished, and
    calling again finishes it.

    Parameters
    ----------
    path
        The slide's store.
    cluster, distance
        (n,) index into ``cluster_names``, -1 for none, and (n,) distance to the cluster's centre.
    cluster_names, colors
        Name and red, green, blue (0..255) of every cluster of the codebook.
    codebook_fingerprint
        Which codebook they come from.
    """
    store = open_store(path, unfinished=True)
    _check(path, store.n_cells, cluster, distance, len(cluster_names))
    if len(colors) != len(cluster_names):
        raise StoreError(f"{len(colors)} colours for {len(cluster_names)} clusters.")
    known = break_seal(path)
    for folder in _TOUCHED:
        shutil.rmtree(path / folder, ignore_errors=True)
    root = open_root(path, "r+")
    _write_columns(root, cluster, distance, cluster_names)
    uns = root[f"{layout.TABLE}/uns"]
    write_strings(uns, "cluster_colors", ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in colors])
    legend = {
        "names": list(cluster_names),
        "colors": [[int(value) for value in rgb] for rgb in colors],
        "codebook": codebook_fingerprint,
    }
    root.attrs.update({"ccrl": {**root.attrs["ccrl"], "clusters": legend}})
    consolidate(path)
    seal_store(path, without(known, _REWRITTEN))


def codebook_of(path: Path) -> str | None:
    """Fingerprint of the codebook a finished store is clustered with; None if it is not."""
    try:
        attributes = open_store(path).attrs
    except StoreError:
        return None
    return str(attributes["clusters"]["codebook"]) if "clusters" in attributes else None


def _write_columns(
    root: Node, cluster: IntArray, distance: FloatArray, names: Sequence[str]
) -> None:
    obs = root[layout.OBS]
    rows = Chunking(*_rows_of(root[f"{layout.OBS}/cell_id"]))
    codes = create_categorical(obs, layout.CLUSTER, names, len(cluster), rows)
    distances = create_rows(obs, layout.CLUSTER_DISTANCE, (len(cluster),), np.float32, rows)
    if len(cluster):
        codes[:] = cluster.astype(codes.dtype)
        distances[:] = distance.astype(np.float32)
    order = [name for name in obs.attrs["column-order"] if name not in _COLUMNS]
    obs.attrs.update({"column-order": [*order, *_COLUMNS]})


def _rows_of(array: Node) -> tuple[int, int]:
    return array.chunks[0], (array.shards or array.chunks)[0]


def _check(
    path: Path, n_cells: int, cluster: IntArray, distance: FloatArray, n_clusters: int
) -> None:
    if len(cluster) != n_cells or len(distance) != n_cells:
        raise StoreError(
            f"{path} has {n_cells} cells; {len(cluster)} clusters and {len(distance)} distances "
            "were given."
        )
    if n_cells and (cluster.min() < -1 or cluster.max() >= n_clusters):
        raise StoreError(
            f"{path}: clusters {cluster.min()}..{cluster.max()} do not fit {n_clusters} names."
        )
