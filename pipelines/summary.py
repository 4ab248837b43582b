"""Tables about the whole cohort, beside the stores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ccrl_wsi.clusters.codebook import Codebook
from ccrl_wsi.clusters.composition import (
    Composition,
    composition_long,
    composition_rows,
    count_clusters,
)
from ccrl_wsi.errors import StoreError
from ccrl_wsi.provenance import versions
from ccrl_wsi.store import open_store, telling_damage
from pipelines.bottleneck import find_bottleneck
from pipelines.cohort_warnings import cohort_warnings
from pipelines.failure_log import CLUSTER, read_failures
from pipelines.jobs import Failure, Tally
from pipelines.label_tables import write_label_tables
from pipelines.output_folder import OutputFolder, read_json, write_json
from pipelines.state import SlideState, known_slides, load_states
from pipelines.tables import write_table, write_tidy

log = logging.getLogger("ccrl_wsi")

COMPOSITION, TIDY = "composition.csv", "composition_long"


def write_summary(
    folder: OutputFolder, codebook: Codebook | None, failures: Sequence[Failure], seconds: float
) -> None:
    """Write slides.csv, composition.csv, composition_long, failures.csv and run_report.json."""
    states = load_states(folder)
    _write_slides(folder, states)
    _write_failures(folder, failures)
    failed = {failure.slide_id for failure in failures if failure.stage == "finish"}
    if codebook is not None:
        finished = [s for s in states if s.finish and s.slide_id not in failed]
        slides = [c for state in finished if (c := _composition(folder, state, codebook))]
        write_table(folder.table(COMPOSITION), *composition_rows(slides, codebook.names))
        write_tidy(folder.table(TIDY), composition_long(slides, codebook.names))
        write_label_tables(folder)
        counts = np.array([slide.counts for slide in slides], np.int64).reshape(-1, codebook.k)
        for sentence in cohort_warnings(folder, states, codebook, counts):
            log.warning("%s", sentence)
    elif not any(state.tally.n_cells for state in states):
        # An earlier run's, of slides that are there no more.
        for name in (COMPOSITION, f"{TIDY}.csv", f"{TIDY}.parquet"):
            folder.table(name).unlink(missing_ok=True)
    tally = sum((state.tally for state in states), Tally())
    total, shares = asdict(tally), tally.lane_shares()
    last = _last_report(folder)
    # What found no new cells, such as `cluster`, is not what these cells took.
    found_cells = last.get("cells_in_all") != total
    run_seconds = seconds if found_cells else last["seconds"]
    write_json(
        folder.table("run_report.json"),
        {
            "seconds": round(run_seconds, 3),
            "seconds_without_new_cells": None if found_cells else round(seconds, 3),
            "n_slides": len(states),
            "n_failed": len(failures),
            "cells_in_all": total,
            "throughput": _throughput(tally, run_seconds),
            "lanes_busy": {lane: round(share, 3) for lane, share in shares.items()},
            "versions": versions(),
        },
    )
    folder.publish_tables()


def results_there(folder: OutputFolder) -> list[str]:
    """The kinds of results that the folder holds now, as people look for them."""
    if not known_slides(folder):
        return []
    overlays = folder.names_in(folder.overlays)
    kinds = {
        "slides/*.zarr": True,
        "overlays/*.geojson.gz": any(name.endswith(".geojson.gz") for name in overlays),
        COMPOSITION: folder.table(COMPOSITION).is_file(),
    }
    return [kind for kind, is_there in kinds.items() if is_there]


def _throughput(tally: Tally, seconds: float) -> dict[str, Any]:
    """Of all cells, over the time of the run that found the last of them."""
    slowest = find_bottleneck(tally)
    whole = sum(tally.seconds.values()) or 1.0
    return {
        "mm2_per_second": round(tally.area_mm2 / max(seconds, 1e-9), 4),
        "cells_per_second": round(tally.n_cells / max(seconds, 1e-9), 1),
        "stage_shares": {n: round(s / whole, 3) for n, s in sorted(tally.seconds.items())},
        "slowest_stage": slowest.stage if slowest else None,
        "advice": slowest.advice if slowest else None,
    }


def _last_report(folder: OutputFolder) -> dict[str, Any]:
    path = folder.table("run_report.json")
    try:
        return read_json(path) if path.is_file() else {}
    except StoreError:
        return {}


def earlier_failures(folder: OutputFolder) -> list[Failure]:
    """Slides that the last run could not do and that still have no cells."""
    failures = read_failures(folder)
    if not failures:
        return []
    done = {state.slide_id for state in load_states(folder)}
    return [f for f in failures if f.stage not in ("finish", CLUSTER) and f.slide_id not in done]


def _write_slides(folder: OutputFolder, states: Sequence[SlideState]) -> None:
    header = [
        "slide_id", "path", "patient", "group", "mpp", "tissue_mm2", "n_cells", "cells_per_mm2",
        "n_clipped", "n_tiles_skipped", "warnings", "regions", "regions_sha256",
    ]  # fmt: skip
    rows = []
    for state in states:
        n, area = state.tally.n_cells, state.tissue_mm2
        density = round(n / area, 2) if area else ""
        used = state.regions
        rows.append(
            [
                state.slide_id, state.path, state.patient or "", state.group or "", state.mpp,
                round(area, 6), n, density, state.tally.n_clipped, state.tally.n_skipped,
                " ".join(state.warnings), used.path if used else "", used.sha256 if used else "",
            ]
        )  # fmt: skip
    write_table(folder.table("slides.csv"), header, rows)


def _write_failures(folder: OutputFolder, failures: Sequence[Failure]) -> None:
    path = folder.table("failures.csv")
    if not failures:
        path.unlink(missing_ok=True)
        return
    rows = [[folder.told(text) for text in asdict(failure).values()] for failure in failures]
    write_table(path, list(asdict(failures[0])), rows)


def _composition(folder: OutputFolder, state: SlideState, codebook: Codebook) -> Composition | None:
    path = folder.store(state.slide_id)
    try:
        with telling_damage(path):
            cluster = open_store(path).obs("cluster")
    except StoreError as error:
        log.error("%s", folder.told(str(error)))
        return None
    counts = count_clusters(cluster, codebook.k)
    return Composition(state.slide_id, state.patient, state.group, state.tissue_mm2, counts)
