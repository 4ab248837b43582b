"""How clusters agree with the labels that people gave: tables beside the composition."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.clusters.codebook import load_codebook
from ccrl_wsi.errors import StoreError
from ccrl_wsi.evaluation.clustering_scores import cells_of_table, confusion_table, score_clusters
from ccrl_wsi.store import SlideStore, codebook_of, open_store, telling_damage
from pipelines.output_folder import OutputFolder
from pipelines.state import load_states
from pipelines.tables import write_table

log = logging.getLogger("ccrl_wsi")

COUNTS, SCORES = "labels.csv", "label_scores.csv"


@dataclass(frozen=True, eq=False, slots=True)
class _Labelled:
    """How often each cluster of a slide has each label: (k, n_labels) of cells with both."""

    slide_id: str
    table: IntArray
    clusters: tuple[str, ...]


def write_label_tables(folder: OutputFolder) -> str:
    """Write labels.csv and label_scores.csv, or take them away; returns them as text.

    labels.csv has the cells of each slide, cluster and label; label_scores.csv the AMI, ARI and
    purity of clusters against labels, for each slide and for the cohort, as fractions, and the
    floor of the purity: the share of the most frequent label, which one cluster of all cells has.
    """
    slides, names = _read(folder)
    if not slides:
        for table in (COUNTS, SCORES):
            folder.table(table).unlink(missing_ok=True)
        return "No cell has both a cluster and a label."
    counts = [
        [slide.slide_id, slide.clusters[i], names[j], int(n)]
        for slide in slides
        for (i, j), n in np.ndenumerate(slide.table)
    ]
    write_table(folder.table(COUNTS), ["slide_id", "cluster", "label", "cells"], counts)
    whole: IntArray = np.sum([slide.table for slide in slides], axis=0)
    scores = [_scores(slide.slide_id, slide.table) for slide in slides]
    scores.append(_scores("(cohort)", whole))
    header = ["slide_id", "cells", "ami", "ari", "purity", "purity_floor"]
    write_table(folder.table(SCORES), header, scores)
    crossed = [[c, *row.tolist()] for c, row in zip(slides[0].clusters, whole, strict=True)]
    return "\n".join(["", _text(["", *names], crossed), "", _text(header, scores)])


def _read(folder: OutputFolder) -> tuple[list[_Labelled], list[str]]:
    """Slides that have cells with both, and the names of all labels."""
    if not folder.codebook.is_file():
        return [], []
    codebook = load_codebook(folder.codebook).fingerprint
    stores = []
    for state in load_states(folder):
        if state.finish and codebook_of(folder.store(state.slide_id)) == codebook:
            store = open_store(folder.store(state.slide_id))
            stores += [store] if store.has_labels else []
    names = sorted({name for store in stores for name in store.categories("label")})
    slides = [slide for store in stores if (slide := _labelled(store, names)) is not None]
    return slides, names


def _labelled(store: SlideStore, names: Sequence[str]) -> _Labelled | None:
    try:
        with telling_damage(store.path):
            cluster, code = store.obs("cluster"), store.obs("label")
    except StoreError as error:
        log.error("%s", error)
        return None
    both = (cluster >= 0) & (code >= 0)
    if not both.any():
        return None
    number = np.array([names.index(name) for name in store.categories("label")])
    clusters = tuple(store.categories("cluster"))
    table = confusion_table(cluster[both], number[code[both]], len(clusters), len(names))
    return _Labelled(store.slide_id, table, clusters)


def _scores(slide_id: str, table: IntArray) -> list[object]:
    # Without labels the slide has not: a class must have cells. The scores depend on counts alone.
    cluster, label = cells_of_table(table[:, table.any(axis=0)])
    scores = score_clusters(cluster, label)
    floor = float(table.sum(axis=0).max() / table.sum())
    rounded = [round(value, 4) for value in (scores.ami, scores.ari, scores.purity, floor)]
    return [slide_id, len(label), *rounded]


def _text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns side by side, the first to the left and numbers to the right."""
    cells = [[str(value) for value in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            value.ljust(width) if i == 0 else value.rjust(width)
            for i, (value, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
