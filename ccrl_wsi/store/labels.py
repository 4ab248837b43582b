"""Labels that people gave to cells: a column of ``obs`` that outlives every clustering."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.errors import StoreError
from ccrl_wsi.store import layout
from ccrl_wsi.store.encoding import Node, consolidate, create_categorical, open_root
from ccrl_wsi.store.layout import Chunking
from ccrl_wsi.store.read import open_store
from ccrl_wsi.store.seal import break_seal, seal_store, without

_COLUMN = f"{layout.OBS}/{layout.LABEL}"
_REWRITTEN = (_COLUMN, "zarr.json", f"{layout.OBS}/zarr.json")


def write_labels(path: Path, code: IntArray, names: Sequence[str], files: Sequence[str]) -> None:
    """Add the labels of all cells to a finished store, in place of the ones it has.

    Interrupted, the store is known to be unfinished and has no labels.

    Parameters
    ----------
    code
        (n,) index into ``names``, -1 for none.
    files
        Names of the files that the labels were read from, to remember.

    Raises
    ------
    StoreError
        If the store is not finished, or the labels are not for its cells.
    """
    store = open_store(path)
    if len(code) != store.n_cells:
        raise StoreError(f"{path} has {store.n_cells} cells; {len(code)} labels were given.")
    known = break_seal(path)
    root = open_root(path, "r+")
    obs = root[layout.OBS]
    order = _hide_column(path, obs)
    ids = root[f"{layout.OBS}/cell_id"]
    rows = Chunking(ids.chunks[0], (ids.shards or ids.chunks)[0])
    codes = create_categorical(obs, layout.LABEL, names, len(code), rows)
    if len(code):
        codes[:] = code.astype(codes.dtype)
    obs.attrs.update({"column-order": [*order, layout.LABEL]})
    said = {"names": list(names), "files": list(files), "cells": int((code >= 0).sum())}
    root.attrs.update({"ccrl": {**root.attrs["ccrl"], "labels": said}})
    consolidate(path)
    seal_store(path, without(known, _REWRITTEN))


def drop_labels(path: Path) -> None:
    """Take the labels of a store away, if it has any, and seal it anew.

    Where the files of a store are replaced one by one, new labels must not meet old ones.
    """
    if not open_store(path).has_labels:
        return
    known = break_seal(path)
    root = open_root(path, "r+")
    _hide_column(path, root[layout.OBS])
    said = {name: entry for name, entry in root.attrs["ccrl"].items() if name != "labels"}
    root.attrs.update({"ccrl": said})
    consolidate(path)
    seal_store(path, without(known, _REWRITTEN))


def _hide_column(path: Path, obs: Node) -> list[str]:
    """Remove the column; returns the names of the others. Nobody sees a part of it."""
    order = [name for name in obs.attrs["column-order"] if name != layout.LABEL]
    obs.attrs.update({"column-order": order})
    shutil.rmtree(path / _COLUMN, ignore_errors=True)
    return order
