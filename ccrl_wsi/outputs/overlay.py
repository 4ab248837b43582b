"""A slide's store as the overlay QuPath opens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ccrl_wsi.arrays import AnyArray, BoolArray
from ccrl_wsi.config import OverlaySettings
from ccrl_wsi.errors import StoreError
from ccrl_wsi.measurement_names import MEASUREMENTS
from ccrl_wsi.outputs.geojson import OverlayChunk, OverlayClass, OverlayOptions, write_overlay
from ccrl_wsi.store import SlideStore

_ROWS_AT_ONCE = 8192
_DISPLAY = {measurement.name: measurement.display for measurement in MEASUREMENTS} | {
    "cluster": "CCRL cluster",
    "cluster_distance": "CCRL distance",
    "probability": "Detection probability",
    "type_probability": "Type probability",
}
# Colours for nucleus types where a slide has no clusters yet.
_TYPE_COLORS = (
    (160, 160, 160),
    (214, 39, 40),
    (44, 160, 44),
    (255, 193, 7),
    (31, 119, 180),
    (148, 103, 189),
    (255, 127, 14),
    (23, 190, 207),
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which cells an overlay shows; by default all.

    Parameters
    ----------
    region_px
        Left, top, right and bottom that hold the centroid (right and bottom excluded), in pixels
        of the overlay: where QuPath shows the cursor.
    clusters
        Names such as C03; empty: all cells, also those without a cluster.
    """

    region_px: tuple[float, float, float, float] | None = None
    clusters: tuple[str, ...] = ()


def write_slide_overlay(
    store: SlideStore, folder: Path, settings: OverlaySettings, selection: Selection | None = None
) -> list[Path]:
    """Write the overlay of ``store`` into ``folder``; returns the files written.

    Objects are classified by cluster, or by nucleus type before there are clusters.

    Raises
    ------
    StoreError
        If a cluster of ``selection`` does not exist, or the files cannot be written.
    """
    bounds = store.attrs["slide"]["bounds_px"]
    origin = (bounds["left"], bounds["top"]) if settings.crop_to_bounds else (0, 0)
    shown = None if selection is None else selected_cells(store, selection, origin)
    options = OverlayOptions(
        n_cells=store.n_cells if shown is None else int(shown.sum()),
        classes=overlay_classes(store),
        origin_px=origin,
        points_above=settings.points_above,
        split_above=settings.split_above,
    )
    chunks = overlay_chunks(store, settings.measurements)
    if shown is not None:
        chunks = _kept(chunks, shown)
    return write_overlay(folder, store.slide_id, chunks, options)


def selected_cells(
    store: SlideStore, selection: Selection, origin_px: tuple[int, int]
) -> BoolArray:
    """Which cells of ``store`` are in ``selection``: (n,).

    Raises
    ------
    StoreError
        If there is no such cluster.
    """
    shown = np.ones(store.n_cells, np.bool_)
    if selection.region_px is not None:
        left, top, right, bottom = selection.region_px
        x, y = (store.centroids() - np.asarray(origin_px)).T
        shown &= (left <= x) & (x < right) & (top <= y) & (y < bottom)
    if selection.clusters:
        names = store.categories("cluster") if store.has_clusters else []
        unknown = [name for name in selection.clusters if name not in names]
        if unknown:
            there_are = f"there are {', '.join(names)}" if names else "it has no clusters yet"
            raise StoreError(f"{store.slide_id} has no cluster {unknown[0]}; {there_are}.")
        wanted = [names.index(name) for name in selection.clusters]
        shown &= np.isin(store.obs("cluster"), wanted)
    return shown


def _kept(chunks: Iterable[OverlayChunk], shown: BoolArray) -> Iterator[OverlayChunk]:
    first = 0
    for chunk in chunks:
        rows = np.flatnonzero(shown[first : first + len(chunk.uuid)])
        first += len(chunk.uuid)
        if len(rows):
            yield OverlayChunk(
                [chunk.uuid[row] for row in rows.tolist()],
                chunk.outlines.where(rows),
                chunk.centroid_px[rows],
                chunk.class_index[rows],
                {name: values[rows] for name, values in chunk.measurements.items()},
            )


def overlay_classes(store: SlideStore) -> tuple[OverlayClass, ...]:
    """The classes of a slide's overlay: its clusters, or its nucleus types."""
    if store.has_clusters:
        legend = store.attrs["clusters"]
        return tuple(
            OverlayClass(name, (color[0], color[1], color[2]))
            for name, color in zip(legend["names"], legend["colors"], strict=True)
        )
    names = store.categories("nucleus_type")
    return tuple(
        OverlayClass(name, _TYPE_COLORS[i % len(_TYPE_COLORS)]) for i, name in enumerate(names)
    )


def overlay_chunks(store: SlideStore, measurements: tuple[str, ...]) -> Iterator[OverlayChunk]:
    """All cells of ``store`` with these columns; columns the store lacks are left out."""
    class_column = "cluster" if store.has_clusters else "nucleus_type"
    own = ("cluster", "cluster_distance") if store.has_clusters else ()
    wanted = dict.fromkeys((*own, "probability", "type_probability", *measurements))
    shown = tuple(name for name in wanted if name in store.columns)
    for batch in store.iter_cells(_ROWS_AT_ONCE, tuple(dict.fromkeys((*shown, class_column)))):
        yield OverlayChunk(
            batch.uuid,
            batch.outlines,
            batch.centroid_px,
            batch.columns[class_column],
            {_DISPLAY.get(name, name): _shown(name, batch.columns[name]) for name in shown},
        )


def _shown(name: str, values: AnyArray) -> AnyArray:
    # Numbered as the names are: C01 is cluster 1. A cell without a cluster has no number.
    return np.where(values < 0, np.nan, values + 1.0) if name == "cluster" else values
