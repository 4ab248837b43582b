"""How far each slide is, remembered between runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ccrl_wsi.errors import StoreError
from ccrl_wsi.store import open_store
from pipelines.jobs import Tally
from pipelines.output_folder import OutputFolder, read_json, write_json
from pipelines.used_regions import UsedRegions

log = logging.getLogger("ccrl_wsi")


@dataclass(frozen=True, slots=True)
class SlideState:
    """A slide whose cells are in its store.

    Parameters
    ----------
    cells
        Fingerprint of the pixels and settings the cells come from.
    finish
        Fingerprint of the codebook and overlay settings the clusters and overlays come from;
        empty until they are written.
    regions
        The drawn regions the cells come from; None where there are none, or an earlier version did
        not say.
    """

    slide_id: str
    path: str
    patient: str | None
    group: str | None
    mpp: float
    cells: str
    tissue_mm2: float
    tally: Tally
    warnings: tuple[str, ...] = ()
    finish: str = ""
    overlays: tuple[str, ...] = field(default=())
    site: str | None = None
    scanner: str | None = None
    regions: UsedRegions | None = None

    def finished_as(self, finish: str, overlays: tuple[Path, ...]) -> SlideState:
        """The same slide with clusters and overlays."""
        return replace(self, finish=finish, overlays=tuple(path.name for path in overlays))


def save_state(folder: OutputFolder, state: SlideState) -> None:
    """Remember ``state``; called last, so that an interrupted step is absent."""
    save_states(folder, [state])


def save_states(folder: OutputFolder, states: Sequence[SlideState]) -> None:
    """The same of several slides, in no order."""
    paths = {state.slide_id: folder.state(state.slide_id) for state in states}
    for state in states:
        folder.make(paths[state.slide_id].parent)
        write_json(paths[state.slide_id], asdict(state))
    folder.publish(*paths.values())
    folder.forget(*paths)


def load_state(folder: OutputFolder, slide_id: str) -> SlideState | None:
    """What is remembered of a slide; None where its cells are not in a sound store."""
    path = folder.state(slide_id)
    if not path.is_file():
        return None
    folder.look_up([slide_id])
    try:
        state = _parse(read_json(path), path)
        store = open_store(folder.store(slide_id), unfinished=True)
    except StoreError as error:
        log.warning("%s is done anew: %s", slide_id, folder.told(str(error)))
        return None
    return state if store.attrs["fingerprint"] == state.cells else None


def known_slides(folder: OutputFolder) -> list[str]:
    """Names of the slides that had cells once, whether they still have or not."""
    return sorted(path.stem for path in (folder.root / "state").glob("*.json"))


def load_states(folder: OutputFolder) -> list[SlideState]:
    """All slides of the folder that have cells, by name."""
    names = known_slides(folder)
    folder.look_up(names)
    states = [load_state(folder, name) for name in names]
    return [state for state in states if state is not None]


def _parse(tree: dict[str, Any], path: Path) -> SlideState:
    try:
        tree["tally"] = Tally(**tree["tally"])
        tree["warnings"], tree["overlays"] = tuple(tree["warnings"]), tuple(tree["overlays"])
        if tree.get("regions"):
            tree["regions"] = UsedRegions(**tree["regions"])
        return SlideState(**tree)
    except (KeyError, TypeError):
        raise StoreError(f"{path} is damaged. Delete it and run again.") from None
