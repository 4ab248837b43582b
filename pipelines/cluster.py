"""The cohort's clusters: fitted once over all slides of a folder, written into every store."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_wsi.arrays import FloatArray
from ccrl_wsi.clusters.codebook import Codebook, load_codebook, save_codebook
from ccrl_wsi.clusters.kmeans import fit_codebook, sample_rows, sample_sizes
from ccrl_wsi.config import Settings
from ccrl_wsi.errors import CcrlError, StoreError
from ccrl_wsi.outputs.geojson import is_overlay_of
from ccrl_wsi.store import codebook_of, open_store, telling_damage
from ccrl_wsi.wording import counted
from pipelines.embedding_rows import MeanJob, mean_of_slide
from pipelines.executors import Executor, each
from pipelines.failure_log import write_log
from pipelines.faults import Fault, fault_of
from pipelines.finish import FinishJob, finish_slide
from pipelines.jobs import Failure
from pipelines.output_folder import OutputFolder, read_json
from pipelines.state import SlideState, load_states, save_state, save_states

log = logging.getLogger("ccrl_wsi")

FINISH = "finish"
"""How failures call this stage."""


def cluster_cohort(
    folder: OutputFolder,
    settings: Settings,
    executor: Executor,
    still_ours: Callable[[], None] = lambda: None,
) -> tuple[Codebook | None, list[Failure]]:
    """Cluster all finished slides of ``folder`` and write stores and overlays that are out of date.

    ``still_ours`` is asked again and again; it raises what must end the run.

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
    codebook, failures = _codebook(folder, states, settings, executor)
    damaged = {failure.slide_id for failure in failures}
    overlays, logs = folder.names_in(folder.overlays), folder.names_in(folder.logs)
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
        if state.slide_id not in damaged
        and (
            state.finish != finish
            or not overlays.issuperset(state.overlays)
            or not _has_clusters_of(folder, state, codebook)
        )
    ]
    by_id = {state.slide_id: state for state in states}
    # Clusters of damaged stores are of an earlier codebook. Stopped from here on, others may hold
    # anything: what was finished no longer is.
    undone = sorted(damaged | {job.slide_id for job in jobs})
    save_states(folder, [by_id[name].finished_as("", ()) for name in undone])
    for outcome in each(executor, folder.work_on(finish_slide), jobs):
        still_ours()
        state = by_id[outcome.item.slide_id]
        if outcome.result is None:
            failures.append(_failure(folder, state, outcome.fault or Fault("There is no result.")))
            continue
        _drop_overlays(folder, overlays, state.slide_id, outcome.result)
        if f"{state.slide_id}.{FINISH}.log" in logs:
            folder.remove(folder.log(f"{state.slide_id}.{FINISH}"))
        save_state(folder, state.finished_as(finish, outcome.result))
    return codebook, failures


def _has_clusters_of(folder: OutputFolder, state: SlideState, codebook: Codebook | None) -> bool:
    """What the state says may be told of another store: one that a worker put there too late."""
    wanted = codebook.fingerprint if codebook else ""
    return codebook_of(folder.store(state.slide_id)) == wanted


def _codebook(
    folder: OutputFolder, states: Sequence[SlideState], settings: Settings, executor: Executor
) -> tuple[Codebook | None, list[Failure]]:
    """The given codebook, the one that is there already, or a new one; and unreadable slides."""
    models = read_json(folder.run_file)["models"]
    if settings.clusters.codebook is not None:
        given = load_codebook(settings.clusters.codebook)
        given.check_encoder(models["encoder_name"], models["encoder"])
        save_codebook(folder.codebook, given)
        folder.publish(folder.codebook)
        return given, []
    there = _load_if_sound(folder) if folder.codebook.exists() else None
    if there is not None and there.record.get("fit") == _fit_digest(states, settings):
        return there, []
    samples, failures = _sample(folder, states, settings, executor)
    if not samples:
        return None, failures
    damaged = {failure.slide_id for failure in failures}
    sound = [state for state in states if state.slide_id not in damaged]
    codebook = _fit(samples, settings, models, _fit_digest(sound, settings))
    save_codebook(folder.codebook, codebook)
    folder.publish(folder.codebook)
    return codebook, failures


def _fit_digest(states: Sequence[SlideState], settings: Settings) -> str:
    by_group = settings.clusters.balance_groups
    cohort = [(s.slide_id, s.cells, s.tally.n_cells, by_group and s.group) for s in states]
    return _digest([settings.clusters.model_dump(mode="json"), settings.seed, cohort])


def _drop_overlays(
    folder: OutputFolder, there: frozenset[str], slide_id: str, written: Sequence[Path]
) -> None:
    """Remove overlays of the slide that were there before and are not among those ``written``."""
    own = {name for name in there if is_overlay_of(name, slide_id)}
    for name in sorted(own - {path.name for path in written}):
        folder.remove(folder.overlays / name)


def _load_if_sound(folder: OutputFolder) -> Codebook | None:
    try:
        return load_codebook(folder.codebook)
    except CcrlError as error:
        log.warning("%s It is fitted anew.", error)
        return None


def _sample(
    folder: OutputFolder, states: Sequence[SlideState], settings: Settings, executor: Executor
) -> tuple[dict[str, FloatArray], list[Failure]]:
    """Embeddings of some cells of every slide that has cells; and slides that cannot be read."""
    with_cells = [state for state in states if state.tally.n_cells]
    limits = settings.clusters
    sizes = sample_sizes(
        [s.tally.n_cells for s in with_cells],
        limits.sample_per_slide,
        limits.sample_in_all,
        [s.group for s in with_cells] if limits.balance_groups else None,
    )
    means, faults = _means(folder, with_cells, executor) if limits.centre_slides else ({}, {})
    samples: dict[str, FloatArray] = {}
    failures = []
    for state, size in zip(with_cells, sizes, strict=True):
        if state.slide_id in faults:
            failures.append(_failure(folder, state, faults[state.slide_id]))
            continue
        rows = sample_rows(state.tally.n_cells, size, settings.seed, state.slide_id)
        path = folder.store(state.slide_id)
        try:
            with telling_damage(path):
                # Its clusters may be half written; its cells are whole.
                vectors = open_store(path, unfinished=True).embedding_rows(rows)
                if limits.centre_slides:
                    vectors = (vectors - means[state.slide_id]).astype(np.float32)
                samples[state.slide_id] = vectors
        except StoreError as error:
            failures.append(_failure(folder, state, fault_of(error)))
    return samples, failures


def _failure(folder: OutputFolder, state: SlideState, fault: Fault) -> Failure:
    """The record of a slide whose clusters could not be made; its cells have a log of their own."""
    said = folder.told(fault.message)
    log.error("%s failed. %s", state.slide_id, said)
    file = write_log(folder, f"{state.slide_id}.{FINISH}", fault)
    return Failure(state.slide_id, state.path, FINISH, fault.place, said, file)


def _means(
    folder: OutputFolder, states: Sequence[SlideState], executor: Executor
) -> tuple[dict[str, FloatArray], dict[str, Fault]]:
    """Mean embedding of each slide that can be read, and what is wrong with the others."""
    jobs = [MeanJob(state.slide_id, folder.store(state.slide_id)) for state in states]
    outcomes = list(each(executor, folder.work_on(mean_of_slide), jobs))
    means = {o.item.slide_id: o.result for o in outcomes if o.result is not None}
    return means, {o.item.slide_id: o.fault for o in outcomes if o.fault is not None}


def _fit(
    samples: dict[str, FloatArray], settings: Settings, models: dict[str, str], fit: str
) -> Codebook:
    limits, sizes = settings.clusters, {name: len(rows) for name, rows in samples.items()}
    asked = {"yes": True, "no": False}.get(limits.standardise)
    standardise = models["standardise"] == "yes" if asked is None else asked
    n_cells, n_slides = sum(sizes.values()), len(sizes)
    log.info(
        "k-means: %s clusters from %d cells of %s", limits.k, n_cells, counted(n_slides, "slide")
    )
    vectors = np.concatenate(list(samples.values()))
    samples.clear()  # The same cells again.
    codebook = fit_codebook(
        vectors,
        limits,
        seed=settings.seed,
        encoder=(models["encoder_name"], models["encoder"]),
        standardise=standardise,
        record={
            "fit": fit,
            "seed": settings.seed,
            "standardised": standardise,
            "slides": sizes,
            "settings": limits.model_dump(mode="json"),
        },
    )
    _say_choice(codebook)
    return codebook


def _say_choice(codebook: Codebook) -> None:
    choice: Any = codebook.record.get("choice_of_k")
    if choice is None:
        return
    log.info("k-means: %d clusters were chosen", codebook.k)
    if not choice["is_stable"]:
        log.warning(
            "No number of clusters is stable: fits on two halves of the cells disagree whatever "
            "it is. %d is the least unstable; take its clusters as a division, not as kinds.",
            codebook.k,
        )


def _digest(tree: object) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
