"""The cohort's clusters: fitted once over all slides of a folder, written into every store."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence

import numpy as np

from ccrl_wsi.clusters.codebook import Codebook, load_codebook, save_codebook
from ccrl_wsi.clusters.kmeans import fit_codebook, sample_rows, sample_sizes
from ccrl_wsi.config import Settings
from ccrl_wsi.errors import CcrlError
from ccrl_wsi.store import open_store
from pipelines.executors import Executor
from pipelines.finish import FinishJob, finish_slide
from pipelines.jobs import Failure
from pipelines.output_folder import OutputFolder, read_json
from pipelines.state import SlideState, load_states, save_state

log = logging.getLogger("ccrl_wsi")


def cluster_cohort(
    folder: OutputFolder, settings: Settings, executor: Executor
) -> tuple[Codebook | None, list[Failure]]:
    """Cluster all finished slides of ``folder`` and write stores and overlays that are out of date.

    Returns
    -------
    codebook, failures
        None where the cohort has no cells. Slides whose store could not be read or written.

    Raises
    ------
    ClusterError
        If the cells cannot make that many clusters, or a given codebook does not fit them.
    """
    states = load_states(folder)
    codebook = _codebook(folder, states, settings)
    overlay = settings.model_dump(mode="json")["overlay"]
    finish = _digest([codebook.fingerprint if codebook else "no cells", overlay])
    jobs = [
        FinishJob(
            slide_id=state.slide_id,
            store=folder.store(state.slide_id),
            codebook=folder.codebook if codebook else None,
            overlays=folder.overlays,
            settings=settings,
            notes={"patient": state.patient, "group": state.group},
        )
        for state in states
        if state.finish != finish or not _has_overlays(folder, state)
    ]
    by_id = {state.slide_id: state for state in states}
    for job in jobs:
        # Stopped from here on, a store may hold anything: what was finished no longer is.
        save_state(folder, by_id[job.slide_id].finished_as("", ()))
    failures = []
    for outcome in executor.map(finish_slide, jobs):
        state = by_id[outcome.item.slide_id]
        if outcome.result is None:
            log.error("%s failed. %s", state.slide_id, outcome.error)
            failures.append(Failure(state.slide_id, state.path, "finish", "", outcome.error))
            continue
        save_state(folder, state.finished_as(finish, outcome.result))
    return codebook, failures


def _codebook(
    folder: OutputFolder, states: Sequence[SlideState], settings: Settings
) -> Codebook | None:
    """The given codebook, the one that is there already, or a new one."""
    models = read_json(folder.run_file)["models"]
    if settings.clusters.codebook is not None:
        given = load_codebook(settings.clusters.codebook)
        given.check_encoder(models["encoder_name"], models["encoder"])
        save_codebook(folder.codebook, given)
        return given
    cohort = [(s.slide_id, s.cells, s.tally.n_cells) for s in states]
    fit = _digest([settings.clusters.model_dump(mode="json"), settings.seed, cohort])
    if folder.codebook.exists():
        there = _load_if_sound(folder)
        if there is not None and there.record.get("fit") == fit:
            return there
    if sum(n for _, _, n in cohort) == 0:
        return None
    codebook = _fit(folder, states, settings, models, fit)
    save_codebook(folder.codebook, codebook)
    return codebook


def _has_overlays(folder: OutputFolder, state: SlideState) -> bool:
    return all((folder.overlays / name).is_file() for name in state.overlays)


def _load_if_sound(folder: OutputFolder) -> Codebook | None:
    try:
        return load_codebook(folder.codebook)
    except CcrlError as error:
        log.warning("%s It is fitted anew.", error)
        return None


def _fit(
    folder: OutputFolder,
    states: Sequence[SlideState],
    settings: Settings,
    models: dict[str, str],
    fit: str,
) -> Codebook:
    with_cells = [state for state in states if state.tally.n_cells]
    limits = settings.clusters
    sizes = sample_sizes(
        [s.tally.n_cells for s in with_cells], limits.sample_per_slide, limits.sample_in_all
    )
    samples = []
    for state, size in zip(with_cells, sizes, strict=True):
        rows = sample_rows(state.tally.n_cells, size, settings.seed, state.slide_id)
        # Its clusters may be half written; its cells are whole.
        store = open_store(folder.store(state.slide_id), unfinished=True)
        samples.append(store.embedding_rows(rows))
    asked = {"yes": True, "no": False}.get(limits.standardise)
    standardise = models["standardise"] == "yes" if asked is None else asked
    log.info("k-means: %d clusters from %d cells of %d slides", limits.k, sum(sizes), len(sizes))
    return fit_codebook(
        np.concatenate(samples),
        limits,
        seed=settings.seed,
        encoder=(models["encoder_name"], models["encoder"]),
        standardise=standardise,
        record={
            "fit": fit,
            "seed": settings.seed,
            "standardised": standardise,
            "slides": {s.slide_id: size for s, size in zip(with_cells, sizes, strict=True)},
            "settings": limits.model_dump(mode="json"),
        },
    )


def _digest(tree: object) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
