"""The cohort report: gathered from the stores of a finished run, written as one HTML file."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_wsi.cell_identity import late_settings
from ccrl_wsi.clusters.codebook import Codebook, load_codebook
from ccrl_wsi.cohort.slide_traits import Traits, read_traits, traits_of
from ccrl_wsi.config import Settings
from ccrl_wsi.errors import CcrlError, ClusterError, ConfigError
from ccrl_wsi.outputs.report.page import render_report
from ccrl_wsi.outputs.report.words import count
from ccrl_wsi.report_content import Compositions, ReportContent
from ccrl_wsi.settings_tree import differences
from pipelines.cohort_warnings import cohort_warnings
from pipelines.failure_log import read_failures
from pipelines.output_folder import OutputFolder, open_output, read_json, write_text
from pipelines.output_lock import held
from pipelines.report_cells import sample_cells
from pipelines.report_clusters import Sources, cluster_cards, curve_of, find_neighbourhoods
from pipelines.report_cohort import (
    compare_all_groups,
    compare_labels,
    counts_of,
    find_batch_effects,
    find_compositions,
    mean_embeddings,
)
from pipelines.report_names import ReportNames
from pipelines.report_overview import find_overview
from pipelines.report_slides import (
    OpenReportSlide,
    UnreadableSlideError,
    Views,
    look_at,
    open_slides,
)
from pipelines.state import SlideState, load_states

log = logging.getLogger("ccrl_wsi")

REPORT = "report.html"
GROUPS = "groups.csv"
"""In the output folder: the table last given with --groups, so that later reports keep it."""


def report_again(out: Path | str, settings: Settings, groups: Path | None) -> Path | str:
    """Write the report of a finished run; ``groups`` is a table of groups and patients.

    Raises
    ------
    ConfigError
        If ``out`` is not the output of a run, the table cannot be understood, or ``settings`` ask
        for other clusters than there are.
    """
    folder = open_output(out)
    _refuse_other_clusters(folder, settings)
    with held(folder):
        if groups is not None:
            read_traits(groups)  # A table that is refused does not replace a good one.
            if not _is_same(groups, folder.table(GROUPS)):
                _keep_table(groups, folder.table(GROUPS))
        return folder.place_of(make_report(folder, settings))


def report_safely(folder: OutputFolder, settings: Settings) -> Path | None:
    """Write the report; if that goes wrong, the run is finished all the same."""
    try:
        return make_report(folder, settings)
    except Exception as error:  # noqa: BLE001 (results are complete; only the report is missing)
        reason = str(error) if isinstance(error, CcrlError) else f"{type(error).__name__}: {error}"
        log.error(
            "The report could not be written (%s). The results are complete: `ccrl-wsi report %s` "
            "tries again.",
            folder.told(reason),
            folder.name,
        )
        log.debug("", exc_info=error)
        return None


def make_report(folder: OutputFolder, settings: Settings) -> Path:
    """Gather everything, draw it, and write report.html whole or not at all.

    Raises
    ------
    ConfigError
        If the table of groups in the folder cannot be understood.
    """
    path = folder.table(REPORT)
    write_text(path, render_report(gather(folder, settings)))
    folder.publish_tables()
    return path


def gather(folder: OutputFolder, settings: Settings) -> ReportContent:
    """What the report shows: of all slides that can be read to the end."""
    unreadable: dict[str, str] = {}
    while True:
        try:
            return _gather(folder, settings, unreadable)
        except UnreadableSlideError as error:
            if error.slide_id in unreadable:
                raise
            # Samples depend on which slides there are, so everything is looked at anew.
            unreadable[error.slide_id] = said = folder.told(str(error))
            log.error("%s is left out of the report. %s", error.slide_id, said)


def _gather(
    folder: OutputFolder, settings: Settings, unreadable: Mapping[str, str]
) -> ReportContent:
    states = load_states(folder)
    codebook = _codebook(folder, states)
    k = codebook.k if codebook else 0
    failures = read_failures(folder)
    paths = {failure.slide_id: failure.path for failure in failures}
    paths |= {state.slide_id: state.path for state in states}
    names = ReportNames(paths, folder.root)
    traits, sentences = _traits(folder, states)
    readable = [state for state in states if state.slide_id not in unreadable]
    slides, problems = open_slides(folder, readable, names, traits, codebook)
    problems += [f"{name} is left out: {why}" for name, why in unreadable.items()]
    compositions = find_compositions([slide.entry for slide in slides])
    shown = _shown(slides, compositions, settings.report.slides_shown)
    colors = codebook.colors if codebook else ()
    views = look_at(slides, shown, colors, settings.report, settings.slides)
    parts: dict[str, Any] = {}
    if codebook is not None and compositions is not None:
        clustered = [slide for slide in slides if slide.entry.counts and slide.store.n_cells]
        parts = _about_clusters(clustered, views, codebook, settings)
        centred = codebook.centres_slides
        parts |= _about_cohort(clustered, compositions, traits, settings, centres_slides=centred)
    counts = counts_of(compositions.slides) if compositions else None
    sentences += cohort_warnings(folder, states, codebook, counts)
    if not states:
        sentences.append("No slide has cells.")
    elif compositions is None:
        sentences.append("There are no clusters, so the report shows slides only.")
    return ReportContent(
        title=f"Cell clusters of {count(len(states), 'slide')}",
        overview=find_overview(folder, states, traits, failures, k, names),
        slides=tuple(slide.entry for slide in slides),
        names=codebook.names if codebook else (),
        colors=colors,
        sentences=tuple(map(names.cleaned, sentences + problems)),
        compositions=compositions,
        pictures=views.pictures,
        **parts,
    )


def _about_clusters(
    slides: Sequence[OpenReportSlide], views: Views, codebook: Codebook, settings: Settings
) -> dict[str, Any]:
    cells = sample_cells(slides, settings.report.cells_looked_at, settings.seed)
    neighbours = find_neighbourhoods(views.places, codebook.k, settings.seed)
    sources = Sources(slides, cells, views.maps, neighbours)
    return {
        "cards": tuple(cluster_cards(sources, codebook, settings)),
        "neighbourhoods": neighbours,
        "curve": curve_of(codebook, counts_of([slide.entry for slide in slides])),
        "labels": compare_labels(slides, codebook.k),
    }


def _about_cohort(
    slides: Sequence[OpenReportSlide],
    compositions: Compositions,
    traits: Mapping[str, Traits],
    settings: Settings,
    *,
    centres_slides: bool,
) -> dict[str, Any]:
    vendors = {s.entry.slide_id: str(s.store.attrs["slide"]["vendor"]) for s in slides}
    seed = settings.seed
    means = None if centres_slides else mean_embeddings(compositions, slides, seed)
    return {
        "groups": compare_all_groups(compositions, settings),
        "batch": find_batch_effects(compositions, traits, vendors, means, seed),
    }


def _refuse_other_clusters(folder: OutputFolder, settings: Settings) -> None:
    last = folder.table("cluster_settings.json")
    if not last.is_file():
        return
    changed = differences(read_json(last), late_settings(settings))
    # Whether a codebook was given does not matter any more.
    names = [sentence.partition(":")[0] for sentence in changed]
    asked = [name for name in names if name != "clusters.codebook"]
    if asked:
        raise ConfigError(
            f"`report` shows the clusters that are there, so it cannot follow {', '.join(asked)}. "
            "Give these to `ccrl-wsi cluster`, which writes the report too."
        )


def _codebook(folder: OutputFolder, states: Sequence[SlideState]) -> Codebook | None:
    """The codebook that the slides are clustered with; None if none of them is."""
    if not folder.codebook.is_file() or not any(state.finish for state in states):
        return None
    try:
        return load_codebook(folder.codebook)
    except ClusterError as error:
        log.warning("%s", error)
        return None


def _traits(
    folder: OutputFolder, states: Sequence[SlideState]
) -> tuple[dict[str, Traits], list[str]]:
    """What is known of the slides, and what of the table of groups found none."""
    table = folder.table(GROUPS)
    names = {Path(s.path).name: s.slide_id for s in states}
    names |= {Path(s.path).stem: s.slide_id for s in states}
    told = {
        state.slide_id: Traits(state.patient, state.group, state.site, state.scanner)
        for state in states
    }
    return traits_of(told, names, read_traits(table) if table.is_file() else None)


def _shown(slides: Sequence[OpenReportSlide], found: Compositions | None, n: int) -> set[str]:
    """At most ``n`` slides (ids): of more, ones from all over the tree of likeness."""
    if len(slides) <= n:
        return {slide.entry.slide_id for slide in slides}
    order = [found.slides[i].slide_id for i in found.slide_tree.order] if found else []
    order += [s.entry.slide_id for s in slides if s.entry.slide_id not in set(order)]
    return {order[round(place)] for place in np.linspace(0, len(order) - 1, n).tolist()}


def _keep_table(groups: Path, kept: Path) -> None:
    """Copy whole or not at all: a full disk leaves the table that was there."""
    temporary = kept.with_name(kept.name + ".tmp")
    try:
        shutil.copyfile(groups, temporary)
        temporary.replace(kept)
    finally:
        temporary.unlink(missing_ok=True)


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)
