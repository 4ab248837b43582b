"""A finished run for other programs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from ccrl_wsi.config import Settings
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.outputs.anndata_file import export_anndata
from ccrl_wsi.outputs.geoparquet_file import export_cohort_geoparquet, export_geoparquet
from ccrl_wsi.outputs.overlay import write_slide_overlay
from ccrl_wsi.outputs.tiaviz import export_tiaviz
from ccrl_wsi.store import open_store
from pipelines.output_folder import OutputFolder, open_output
from pipelines.state import SlideState, load_states

Export = Callable[[OutputFolder, Sequence[SlideState], Path, Settings], list[Path]]


def export_cohort(out: Path, to: str, target: Path, settings: Settings) -> list[Path]:
    """Write all finished slides of ``out`` as ``to``; returns the files.

    ``anndata`` makes one file of the cohort (``target`` ends in .h5ad or .zarr), ``geoparquet`` too
    if ``target`` ends in .parquet; otherwise there is one file a slide in the folder ``target``.

    Raises
    ------
    ConfigError
        If ``out`` is not the output of a run, or the format is unknown.
    """
    if to not in EXPORTS:
        raise ConfigError(f"--to {to}: choose one of {', '.join(EXPORTS)}.")
    folder = open_output(out)
    finished = [state for state in load_states(folder) if state.finish]
    if not finished:
        raise ConfigError(f"{out} has no finished slide. Run `ccrl-wsi run` again first.")
    return EXPORTS[to](folder, finished, target, settings)


def _qupath(
    folder: OutputFolder, states: Sequence[SlideState], target: Path, settings: Settings
) -> list[Path]:
    return [
        path
        for state in states
        for path in write_slide_overlay(
            open_store(folder.store(state.slide_id)), target, settings.overlay
        )
    ]


def _anndata(
    folder: OutputFolder, states: Sequence[SlideState], target: Path, settings: Settings
) -> list[Path]:
    export_anndata([folder.store(state.slide_id) for state in states], target)
    return [target]


def _geoparquet(
    folder: OutputFolder, states: Sequence[SlideState], target: Path, settings: Settings
) -> list[Path]:
    stores = [folder.store(state.slide_id) for state in states]
    if target.suffix == ".parquet":
        export_cohort_geoparquet(stores, target)
        return [target]
    paths = [target / f"{state.slide_id}.parquet" for state in states]
    for store, path in zip(stores, paths, strict=True):
        export_geoparquet(store, path)
    return paths


def _tiaviz(
    folder: OutputFolder, states: Sequence[SlideState], target: Path, settings: Settings
) -> list[Path]:
    """TIAViz's own database where this Python's SQLite can write one, else its GeoJSON."""
    target.mkdir(parents=True, exist_ok=True)
    has_extensions = hasattr(sqlite3.Connection, "enable_load_extension")
    suffix = ".db" if has_extensions else ".geojson"
    paths = [target / f"{state.slide_id}{suffix}" for state in states]
    for state, path in zip(states, paths, strict=True):
        export_tiaviz(folder.store(state.slide_id), path)
    return paths


EXPORTS: dict[str, Export] = {
    "qupath": _qupath,
    "anndata": _anndata,
    "geoparquet": _geoparquet,
    "tiaviz": _tiaviz,
}
