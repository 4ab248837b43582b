"""The crops that runs kept in their stores, as one set."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ccrl_wsi.arrays import AnyArray, IntArray
from ccrl_wsi.crop_set import UNLABELLED, CropSet
from ccrl_wsi.data_settings import DataSettings
from ccrl_wsi.errors import ConfigError, StoreError
from ccrl_wsi.measurement_names import NAMES
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.store import SlideStore, open_store, telling_damage
from pipelines.output_folder import open_output
from pipelines.state import known_slides

log = logging.getLogger("ccrl_wsi")

ROWS = 4096
"""Rows of a store in memory at once: whole chunks of crops."""


def gather_kept_crops(data: DataSettings, seed: int) -> CropSet:
    """Crops and measurements of all slides of a run, slide by slide.

    Classes are the labels that `import-labels` joined to cells, in alphabetical order.

    Of a slide with more than ``data.max_per_slide`` cells so many are drawn; which, depends on
    the slide's name and ``seed`` alone.

    Raises
    ------
    ConfigError
        If the folder is not that of a run, crops were not kept, or the rule is another.
    StoreError
        With a line for every store that is missing or damaged.
    """
    stores = _open_stores(data)
    mpp = _check_rule(data, stores)
    rows = [_drawn_rows(store, data.max_per_slide, seed) for store in stores]
    n = sum(map(len, rows))
    crops = np.empty((n, data.size_px, data.size_px, 3), np.uint8)
    measurements = np.empty((n, len(NAMES)), np.float32)
    label = np.full(n, UNLABELLED, np.int32)
    class_names = _class_names(stores)
    first = 0
    for store, wanted in zip(stores, rows, strict=True):
        stop = first + len(wanted)
        with telling_damage(store.path):
            _copy_rows(store.crops, wanted, crops[first:stop])
            for column, name in enumerate(NAMES):
                values = store.obs(name)
                measurements[first:stop, column] = values[wanted]
            if store.has_labels:
                label[first:stop] = _labels(store, class_names)[wanted]
        log.info("%s: %d of %d cells", store.slide_id, len(wanted), store.n_cells)
        first = stop
    return CropSet(
        crops=crops,
        measurements=measurements,
        source=np.repeat(np.arange(len(stores), dtype=np.int32), [len(some) for some in rows]),
        label=label,
        source_names=tuple(store.slide_id for store in stores),
        class_names=class_names,
        scale=data.scale,
        mpp=mpp,
    )


def kept_cells(data: DataSettings) -> list[list[Any]]:
    """What identifies the cells of every slide of a run: name, fingerprint, number, labels."""
    return [
        [s.slide_id, s.attrs["fingerprint"], s.n_cells, *_label_digest(s)]
        for s in _open_stores(data)
    ]


def _class_names(stores: list[SlideStore]) -> tuple[str, ...]:
    names: set[str] = set()
    for store in stores:
        if store.has_labels:
            with telling_damage(store.path):
                names.update(store.categories("label"))
    return tuple(sorted(names))


def _labels(store: SlideStore, class_names: tuple[str, ...]) -> IntArray:
    """Index into ``class_names`` of each cell (n,), ``UNLABELLED`` for none."""
    # The last entry is for code -1.
    own = [class_names.index(name) for name in store.categories("label")]
    numbers: IntArray = np.array([*own, UNLABELLED], np.int32)[store.obs("label")]
    return numbers


def _label_digest(store: SlideStore) -> list[str]:
    """Changes with the labels of a slide; empty where it has none."""
    if not store.has_labels:
        return []
    with telling_damage(store.path):
        codes = np.ascontiguousarray(store.obs("label"), np.int32)
        digest = hashlib.sha256(json.dumps(store.categories("label")).encode())
    digest.update(codes.tobytes())
    return [digest.hexdigest()[:16]]


def _open_stores(data: DataSettings) -> list[SlideStore]:
    """The stores with cells, by slide name."""
    folder = open_output(data.path)
    stores, problems = [], []
    for name in known_slides(folder):
        path = folder.store(name)
        try:
            with telling_damage(path):
                # Its clusters may be half written; its cells are whole.
                store = open_store(path, unfinished=True)
                if store.n_cells:
                    stores.append(store)
        except StoreError as error:
            problems.append(str(error))
    if problems:
        raise StoreError("\n".join(problems))
    if not stores:
        raise ConfigError(
            f"{data.path} has no slide with cells. Run `ccrl-wsi run --set crops.keep=true` first."
        )
    return stores


def _check_rule(data: DataSettings, stores: list[SlideStore]) -> float:
    """Refuse crops that were not kept or cut otherwise; um per pixel the run was asked for."""
    without = [store for store in stores if not store.n_crops]
    if without:
        raise ConfigError(
            f"The run in {data.path} kept no crops of {without[0].slide_id}. Run the slides with "
            "--set crops.keep=true into another output folder."
        )
    settings = stores[0].attrs["settings"]
    made = {
        "scale": float(settings["crops"]["scale"]),
        "size_px": int(settings["crops"]["size_px"]),
        "mpp": float(settings["tiles"]["mpp"]),
    }
    asked = {"scale": data.scale, "size_px": data.size_px, "mpp": data.mpp or made["mpp"]}
    other = [name for name in made if not math.isclose(made[name], asked[name], rel_tol=1e-6)]
    if other:
        wanted = ", ".join(f"data.{name}={made[name]:g} (now {asked[name]:g})" for name in other)
        raise ConfigError(f"The crops in {data.path} were cut by another rule. Set {wanted}.")
    return made["mpp"]


def _drawn_rows(store: SlideStore, at_most: int | None, seed: int) -> IntArray:
    """Ascending rows, so that a store is read from front to back."""
    if at_most is None or store.n_cells <= at_most:
        return np.arange(store.n_cells)
    rng = rng_for(seed, "crops", store.slide_id)
    return np.sort(rng.choice(store.n_cells, at_most, replace=False))


def _copy_rows(read: Callable[[int, int], AnyArray], rows: IntArray, target: AnyArray) -> None:
    """Fill ``target`` with the ascending ``rows``, some neighbouring ones at a time."""
    blocks, firsts = np.unique(rows // ROWS, return_index=True)
    stops = np.append(firsts[1:], len(rows))
    for block, first, stop in zip(blocks.tolist(), firsts, stops, strict=True):
        start = block * ROWS
        target[first:stop] = read(start, start + ROWS)[rows[first:stop] - start]
