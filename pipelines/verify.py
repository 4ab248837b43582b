"""Whether a finished result is whole."""

from __future__ import annotations

import gzip
from pathlib import Path

from ccrl_wsi.clusters.codebook import load_codebook
from ccrl_wsi.errors import CcrlError
from ccrl_wsi.store import check_store, open_store
from ccrl_wsi.store.damage import ADVICE
from ccrl_wsi.wording import counted
from pipelines.failure_log import why_no_clusters
from pipelines.output_folder import OutputFolder, open_output
from pipelines.state import SlideState, known_slides, load_states


def verify_output(out: Path | str) -> tuple[list[str], str]:
    """Sentences about what is wrong, and one about what was looked at.

    Raises
    ------
    ConfigError
        If ``out`` is not the output of a run.
    """
    folder = open_output(out)
    states = load_states(folder)
    problems = _check_folder(folder, states)
    why = why_no_clusters(folder)
    if why and not all(state.finish for state in states):
        problems.append(f"There are no clusters. {why}")
    codebook, problem = _codebook(folder)
    problems += [problem] if problem else []
    n_cells = 0
    for state in states:
        with folder.telling(), folder.fetched(folder.store(state.slide_id)) as path:
            found = check_store(path)
        if found and state.finish:
            # Only a damaged store is worth deleting; anything else has its own remedy.
            found.append(ADVICE.format(store=folder.store(state.slide_id)))
        found = found or _check_against_state(folder, state, codebook, why)
        problems += [folder.told(f"{state.slide_id}: {problem}") for problem in found]
        n_cells += state.tally.n_cells
    verdict = f"{len(problems)} problems" if problems else "no problems"
    return problems, f"{counted(len(states), 'slide')}, {counted(n_cells, 'cell')}: {verdict}."


def _check_folder(folder: OutputFolder, states: list[SlideState]) -> list[str]:
    problems = []
    known = {state.slide_id for state in states}
    problems += [
        f"{name}: its store is missing or damaged. Run again: only this slide is done anew."
        for name in known_slides(folder)
        if name not in known
    ]
    for name in sorted(folder.names_in(folder.slides)):
        if name.endswith(".zarr") and not name.startswith(".") and Path(name).stem not in known:
            problems.append(f"{name} is not finished. Run the same command again.")
    if not states:
        problems.append(f"{folder.name} holds no finished slide.")
    return problems


def _codebook(folder: OutputFolder) -> tuple[str, str]:
    """Fingerprint of the cohort's codebook (empty without one), and what is wrong with it."""
    if not folder.codebook.exists():
        return "", ""
    try:
        return load_codebook(folder.codebook).fingerprint, ""
    except CcrlError as error:
        return "", str(error)


def _check_against_state(
    folder: OutputFolder, state: SlideState, codebook: str, why: str
) -> list[str]:
    """``why`` says why there are no clusters; it is told once, not of every slide."""
    store = open_store(folder.store(state.slide_id))
    problems = []
    if store.n_cells != state.tally.n_cells:
        advice = ADVICE.format(store=store.path)
        problems.append(
            f"the store has {store.n_cells} cells, {state.tally.n_cells} were found. {advice}"
        )
    if not state.finish or not store.has_clusters:
        return problems if why else [*problems, "no clusters yet. Run the same command again."]
    if store.attrs["clusters"]["codebook"] != codebook:
        problems.append("its clusters are of another codebook. Run `ccrl-wsi cluster` again.")
    n_features = 0
    for name in state.overlays:
        path = folder.overlays / name
        try:
            with folder.fetched(path) as copy, gzip.open(copy, "rt", encoding="utf-8") as file:
                n_features += sum(line.count('"objectType"') for line in file)
        except (OSError, EOFError) as error:
            problems.append(f"overlay {path} cannot be read ({error}). Delete it and run again.")
    if not problems and n_features != store.n_cells:
        problems.append(
            f"the overlay has {n_features} objects for {store.n_cells} cells. Delete its files "
            f"({', '.join(state.overlays)}) in {folder.overlays} and run again."
        )
    return problems
