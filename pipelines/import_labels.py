"""Classes that people gave to cells in QuPath, back into the stores."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ccrl_wsi.errors import ConfigError, LabelError
from ccrl_wsi.outputs.qupath_labels import (
    JoinedLabels,
    LabelledObjects,
    join_labels,
    read_labelled_objects,
)
from ccrl_wsi.store import SlideStore, drop_labels, open_store, telling_damage, write_labels
from pipelines.label_tables import write_label_tables
from pipelines.output_folder import OutputFolder, open_output
from pipelines.output_lock import held
from pipelines.state import SlideState, load_states, save_state

log = logging.getLogger("ccrl_wsi")

_ENDING = re.compile(r"(\.part-\d+)?\.(geojson|json)(\.gz)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Import:
    """A slide, its labels, and where they come from."""

    state: SlideState
    joined: JoinedLabels
    files: tuple[str, ...]


def import_labels(out: Path | str, files: Sequence[Path], slide_id: str | None) -> str:
    """Join the labels of GeoJSON ``files`` to the cells of their slides; returns what to say.

    A file belongs to the slide ``slide_id``, else to the one it is named after, else to the one
    whose cells' ids it holds. A slide's earlier labels are replaced. Nothing is written before all
    files are read.

    Raises
    ------
    ConfigError
        If ``out`` is not the output of a run, or there is no such slide.
    LabelError
        If a file cannot be read, no slide is known for it, or its labels fit no cell.
    """
    folder = open_output(out)
    with held(folder):
        finished = {state.slide_id: state for state in load_states(folder) if state.finish}
        if slide_id is not None and slide_id not in finished:
            known = ", ".join(finished) or "none that is finished"
            raise ConfigError(f"--slide {slide_id}: there is no such slide; there are: {known}.")
        by_slide: dict[str, list[tuple[Path, LabelledObjects]]] = {}
        for file in files:
            objects = read_labelled_objects(file)
            own = slide_id or _slide_of(file, objects, folder, list(finished))
            _refuse_other_slides(file, objects, folder, own, list(finished))
            by_slide.setdefault(own, []).append((file, objects))
        imports = [_join(folder, finished[name], read) for name, read in by_slide.items()]
        for one in imports:
            _write(folder, one)
        said = [sentence for one in imports for sentence in _tell(one)]
        said.append(write_label_tables(folder))
        folder.publish_tables()
        return "\n".join(said)


def _slide_of(
    file: Path, objects: LabelledObjects, folder: OutputFolder, slides: Sequence[str]
) -> str:
    name = _ENDING.sub("", file.name)
    if name in slides:
        return name
    wanted = set(objects.ids) - {""}
    for slide in slides:
        if wanted and any(wanted.intersection(ids) for ids in _ids(folder, slide)):
            return slide
    raise LabelError(
        f"{file}: no slide is called {name}, and none has a cell with an id of this file. Say "
        "which one is meant with --slide; there are: "
        f"{', '.join(slides) or 'none that is finished'}."
    )


def _refuse_other_slides(
    file: Path, objects: LabelledObjects, folder: OutputFolder, own: str, slides: Sequence[str]
) -> None:
    """A cell of another slide must not give its class to cells that lie where it would here."""
    # Ids of cells are of version 5; what a person draws in QuPath gets others.
    unknown = {name for name in objects.ids if name[14:15] == "5"}
    for slide in [own, *(name for name in slides if name != own)]:
        if not unknown:
            return
        found = {name for ids in _ids(folder, slide) for name in ids if name in unknown}
        if found and slide != own:
            raise LabelError(
                f"{file}: {len(found)} of its objects are cells of {slide}, not of {own}. Give "
                f"each slide's objects in a file of their own; for these --slide {slide}."
            )
        unknown -= found


def _ids(folder: OutputFolder, slide: str) -> Iterator[list[str]]:
    store = open_store(folder.store(slide))
    for start in range(0, store.n_cells, 65536):
        yield store.obs("uuid", start, start + 65536).tolist()


def _join(
    folder: OutputFolder, state: SlideState, read: Sequence[tuple[Path, LabelledObjects]]
) -> _Import:
    path = folder.store(state.slide_id)
    objects = LabelledObjects(
        ids=[name for _, one in read for name in one.ids],
        labels=[label for _, one in read for label in one.labels],
        areas=np.concatenate([one.areas for _, one in read]),
        n_others=sum(one.n_others for _, one in read),
    )
    with telling_damage(path):
        store = open_store(path)
        uuids = store.obs("uuid").tolist()
        joined = join_labels(objects, uuids, store.centroids() - _origin(store))
    names = ", ".join(str(file) for file, _ in read)
    if not len(objects):
        raise LabelError(
            f"{names}: no object has a class that a person gave ({objects.n_others} have none, or "
            "a cluster's name). Give classes to cells or areas in QuPath and export them again."
        )
    if joined.n_by_id + joined.n_by_area == 0:
        raise LabelError(
            f"{names}: none of {len(objects)} objects with a class fits a cell of "
            f"{state.slide_id}. Is it another slide's, or was the slide opened with another "
            "origin (overlay.crop_to_bounds)?"
        )
    return _Import(state, joined, tuple(file.name for file, _ in read))


def _origin(store: SlideStore) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Where the overlay, and so what is drawn beside it, counts from."""
    bounds = store.attrs["slide"]["bounds_px"]
    is_cropped = store.attrs["settings"]["overlay"]["crop_to_bounds"]
    return np.array([bounds["left"], bounds["top"]] if is_cropped else [0, 0], np.float64)


def _write(folder: OutputFolder, one: _Import) -> None:
    path = folder.store(one.state.slide_id)
    # Stopped from here on, the store is unfinished: `run` or `cluster` must look at it again.
    save_state(folder, one.state.finished_as("", ()))
    if folder.remote is not None:
        with folder.changing(path) as store, telling_damage(store):
            drop_labels(store)
    with folder.changing(path) as store, telling_damage(store):
        write_labels(store, one.joined.code, one.joined.names, one.files)
    save_state(folder, one.state)


def _tell(one: _Import) -> list[str]:
    joined = one.joined
    counts = np.bincount(joined.code[joined.code >= 0], minlength=len(joined.names)).tolist()
    shares = ", ".join(f"{n} {name}" for n, name in zip(counts, joined.names, strict=True))
    said = [
        f"{one.state.slide_id}: {sum(counts)} of {len(joined.code)} cells have a label now "
        f"({shares}): {joined.n_by_id} by their id, {joined.n_by_area} by lying in an area."
    ]
    if joined.n_unmatched:
        said.append(f"  {joined.n_unmatched} objects with a class fit no cell.")
    if joined.n_conflicts:
        said.append(
            f"  {joined.n_conflicts} cells were given two classes: the later object of two with "
            "one id counts, and the smaller of two areas."
        )
    return said
