"""What a report says of the run itself: facts, failures, times, settings and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from ccrl_wsi.cohort.slide_traits import Traits
from ccrl_wsi.errors import StoreError
from ccrl_wsi.outputs.report.words import count, number
from ccrl_wsi.provenance import versions
from ccrl_wsi.report_content import Overview, ReportFailure
from pipelines.jobs import Failure
from pipelines.output_folder import OutputFolder, read_json
from pipelines.report_names import ReportNames
from pipelines.state import SlideState

STAGES = {
    "load": "loading networks",
    "read": "reading pixels",
    "network": "the segmentation network",
    "segment": "finding nuclei",
    "outline": "tracing outlines",
    "measure": "measuring",
    "crop": "cutting crops",
    "embed": "embedding",
    "write": "writing parts",
}
"""Names for people, in the order of the work."""


OF_SEGMENTERS = {"watershed": "watershed", "compact": "compact", "boundary_scale": "hovernet"}
"""Settings of nuclei that one kind of segmenter alone follows, and how its names begin."""


def find_overview(
    folder: OutputFolder,
    states: Sequence[SlideState],
    traits: Mapping[str, Traits],
    failures: Sequence[Failure],
    k: int,
    names: ReportNames,
) -> Overview:
    """The run in short. ``k`` is the number of clusters, 0 where there are none."""
    run = read_json(folder.run_file)
    last = _if_there(folder.table("run_report.json"))
    seconds: dict[str, float] = {}
    for state in states:
        for stage, value in state.tally.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
    late = _if_there(folder.table("cluster_settings.json"))
    settings = names.cleaned_tree(
        {"cells": _in_use(run["cells"]), "models": run["models"], **_in_use(late)}
    )
    made_with: Mapping[str, str] = last.get("versions", versions())
    return Overview(
        facts=_facts(states, traits, failures, k),
        models=(str(run["models"]["segmenter"]), str(run["models"]["encoder_name"])),
        failures=tuple(
            ReportFailure(f.slide_id, _where(f), names.cleaned(f.message)) for f in failures
        ),
        stage_seconds=tuple((STAGES[s], seconds[s]) for s in STAGES if s in seconds),
        run_seconds=last.get("seconds"),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        settings=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        versions=tuple(sorted(made_with.items())),
        finish_seconds=last.get("seconds_without_new_cells"),
        regions=tuple(
            (s.slide_id, Path(s.regions.path).name, s.regions.sha256) for s in states if s.regions
        ),
    )


def _facts(
    states: Sequence[SlideState],
    traits: Mapping[str, Traits],
    failures: Sequence[Failure],
    k: int,
) -> tuple[tuple[str, str], ...]:
    area = sum(state.tissue_mm2 for state in states)
    n_cells = sum(state.tally.n_cells for state in states)
    patients = {p for state in states if (p := traits[state.slide_id].patient)}
    facts = [_fact(len(states), "slide")]
    facts += [_fact(len(patients), "patient")] if patients else []
    facts += [
        _fact(n_cells, "nucleus", "nuclei"),
        ("mm² of tissue", number(area)),
        ("nuclei per mm²", number(n_cells / area) if area > 0 else "–"),
    ]
    facts += [_fact(k, "cluster")] if k else []
    facts += [("failed", f"{len(failures):,}")] if failures else []
    warnings = sum(len(state.warnings) for state in states)
    facts += [_fact(warnings, "warning")] if warnings else []
    return tuple(facts)


def _fact(n: int, one: str, many: str = "") -> tuple[str, str]:
    value, _, name = count(n, one, many).partition(" ")
    return name, value


def _in_use(tree: Mapping[str, Any]) -> dict[str, Any]:
    """``tree`` without what another segmenter, or a chosen number of clusters, would have used."""
    left = dict(tree)
    if "nuclei" in left:
        segmenter = left["nuclei"]["segmenter"]
        unused = {name for name, kind in OF_SEGMENTERS.items() if not segmenter.startswith(kind)}
        left["nuclei"] = {n: value for n, value in left["nuclei"].items() if n not in unused}
    if "clusters" in left and left["clusters"]["k"] != "auto":
        left["clusters"] = {n: v for n, v in left["clusters"].items() if n != "auto"}
    return left


def _where(failure: Failure) -> str:
    return " ".join(part for part in (failure.stage, failure.where) if part)


def _if_there(path: Path) -> dict[str, Any]:
    try:
        return read_json(path) if path.is_file() else {}
    except StoreError:
        return {}
