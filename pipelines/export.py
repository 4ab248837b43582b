"""A finished run for other programs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccrl_wsi.config import OverlaySettings, Settings
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.outputs.anndata_file import export_anndata
from ccrl_wsi.outputs.geoparquet_file import export_cohort_geoparquet, export_geoparquet
from ccrl_wsi.outputs.overlay import Selection, write_slide_overlay
from ccrl_wsi.outputs.same_space import check_same_space
from ccrl_wsi.outputs.tiaviz import export_tiaviz
from ccrl_wsi.store import open_store
from pipelines.failure_log import why_no_clusters
from pipelines.output_folder import OutputFolder, open_output
from pipelines.state import SlideState, load_states


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How overlays are written; other formats take all cells as they are.

    Parameters
    ----------
    settings
        Those of the overlay count.
    selection
        Which cells; None: all.
    points
        Centroids only, however few cells there are.
    at_most
        Objects a file; None: what the settings say.
    slides
        Ids of the slides to write, in every format; empty: all.
    """

    settings: Settings
    selection: Selection | None = None
    points: bool = False
    at_most: int | None = None
    slides: tuple[str, ...] = ()

    @property
    def overlay(self) -> OverlaySettings:
        """How overlays are written, with what was asked for."""
        asked: dict[str, int] = {"points_above": 0} if self.points else {}
        asked |= {"split_above": self.at_most} if self.at_most is not None else {}
        return self.settings.overlay.model_copy(update=asked)

    @property
    def is_plain(self) -> bool:
        """Whether nothing was asked for that only overlays follow."""
        return self.selection is None and not self.points and self.at_most is None


Export = Callable[[OutputFolder, Sequence[SlideState], Path, ExportOptions], list[Path]]


def overlay_selection(region: str, clusters: str) -> Selection | None:
    """What ``--region x0,y0,x1,y1`` and ``--clusters C01,C02`` ask for; None where both are empty.

    Raises
    ------
    ConfigError
        If the region is not four numbers with something between them.
    """
    if not region and not clusters:
        return None
    names = tuple(name.strip() for name in clusters.split(",") if name.strip())
    if not region:
        return Selection(None, names)
    try:
        left, top, right, bottom = (float(part) for part in region.split(","))
    except ValueError:
        left, top, right, bottom = 0.0, 0.0, 0.0, 0.0
    if not (left < right and top < bottom):
        raise ConfigError(
            f"--region {region}: give left,top,right,bottom in level-0 pixels as QuPath shows "
            "them, for example --region 1000,2000,5000,6000."
        )
    return Selection((left, top, right, bottom), names)


def export_cohort(
    out: Path | str, to: str, target: Path | None, options: ExportOptions
) -> list[Path]:
    """Write all finished slides of ``out`` as ``to``; returns the files.

    ``anndata`` makes one file of the cohort (``target`` ends in .h5ad or .zarr), ``geoparquet`` too
    if ``target`` ends in .parquet; otherwise there is one file a slide in the folder ``target``.
    Without ``target`` it is the format's own place in the folder ``exports`` of ``out``.

    Raises
    ------
    ConfigError
        If ``out`` is not the output of a run, the format is unknown or does not follow the options,
        or ``target`` lies among results.
    StoreError
        If the slides differ in encoder, columns or codebook, or cannot be written.
    """
    if to not in EXPORTS:
        raise ConfigError(f"--to {to}: choose one of {', '.join(EXPORTS)}.")
    folder = open_output(out)
    states = load_states(folder)
    finished = [state for state in states if state.finish]
    if not finished:
        why = why_no_clusters(folder) if states else ""
        nothing = f"no clusters. {why}" if why else "no finished slide. Run `ccrl-wsi run` again."
        raise ConfigError(f"{out} has {nothing}")
    finished = _chosen(finished, options.slides)
    if not options.is_plain and to != "qupath":
        raise ConfigError(
            f"--to {to} writes all cells with their outlines: --points, --region, --clusters and "
            "--at-most are for --to qupath. Choose cells in the program that opens the file."
        )
    if target is None:
        if folder.remote is not None:
            raise ConfigError(
                "Exports are written to this computer's disk: give a file or folder with -t."
            )
        target = OutputFolder(Path(out)).exports / _PLACES[to]
    _refuse_results(target)
    with folder.telling():
        check_same_space([open_store(folder.store(state.slide_id)) for state in finished])
        return EXPORTS[to](folder, finished, target, options)


def _chosen(finished: Sequence[SlideState], slides: Sequence[str]) -> list[SlideState]:
    ids = [state.slide_id for state in finished]
    unknown = [name for name in slides if name not in ids]
    if unknown:
        raise ConfigError(f"--slide {unknown[0]}: no finished slide has this id. See slides.csv.")
    return [state for state in finished if not slides or state.slide_id in slides]


def _refuse_results(target: Path) -> None:
    """Nothing is written among the results of a run, of this one or another, but in `exports`."""
    place = target.resolve()
    for parent in (place, *place.parents):
        run = OutputFolder(parent)
        is_run = run.run_file.is_file() and run.slides.is_dir()
        if is_run and place != run.exports and run.exports not in place.parents:
            raise ConfigError(
                f"{target} lies among the results of a run, which exports must not change. Give "
                f"another folder with -t, or one in {run.exports}."
            )


def _qupath(
    folder: OutputFolder, states: Sequence[SlideState], target: Path, options: ExportOptions
) -> list[Path]:
    paths: list[Path] = []
    for state in states:
        store = open_store(folder.store(state.slide_id))
        paths += write_slide_overlay(store, target, options.overlay, options.selection)
    return paths


def _anndata(
    folder: OutputFolder, states: Sequence[SlideState], target: Path, options: ExportOptions
) -> list[Path]:
    traits = [{"site": state.site, "scanner": state.scanner} for state in states]
    export_anndata([folder.store(state.slide_id) for state in states], target, traits)
    return [target]


def _geoparquet(
    folder: OutputFolder, states: Sequence[SlideState], target: Path, options: ExportOptions
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
    folder: OutputFolder, states: Sequence[SlideState], target: Path, options: ExportOptions
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

_PLACES = {
    "qupath": "qupath",
    "anndata": "cohort.zarr",
    "geoparquet": "geoparquet",
    "tiaviz": "tiaviz",
}
"""In the folder `exports`; .zarr because it needs no further package."""
