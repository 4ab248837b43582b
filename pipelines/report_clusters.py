"""The clusters' cards of a report, their neighbours, and how their number was chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.clusters.codebook import Codebook
from ccrl_wsi.clusters.descriptions import (
    ClusterDescription,
    describe_clusters,
    exemplar_rows,
    silhouettes,
)
from ccrl_wsi.clusters.neighbours import neighbour_enrichment
from ccrl_wsi.clusters.slide_bound import follow_slides
from ccrl_wsi.config import Settings
from ccrl_wsi.measurement_names import MEASUREMENTS as KNOWN
from ccrl_wsi.report_content import (
    ClusterCard,
    ClusterMap,
    Exemplar,
    KCurve,
    KPoint,
    LargestSlide,
    MeasurementSummary,
    Neighbourhoods,
)
from pipelines.report_cells import SampledCells
from pipelines.report_crops import crops_of
from pipelines.report_slides import OpenReportSlide

N_SHUFFLES = 100
"""Of the clusters among the cells, for the neighbours."""

STRONG_Z = 3.0
STRONG_RATIO = 1.25
"""Neighbours named on a card: by so much more, or less, often than by chance, and so surely."""

MOST_NAMED = 3

NO_CROPS = (
    "Crops cannot be shown: the run kept none (crops.keep) and the slides' files are not where "
    "they were, or have changed."
)


@dataclass(frozen=True, eq=False, slots=True)
class Sources:
    """What cards are made from."""

    slides: Sequence[OpenReportSlide]
    cells: SampledCells
    maps: dict[int, list[ClusterMap]]
    neighbours: Neighbourhoods | None


def cluster_cards(sources: Sources, codebook: Codebook, settings: Settings) -> list[ClusterCard]:
    """A card for every cluster of ``codebook``."""
    cells, k = sources.cells, codebook.k
    found = describe_clusters(
        cells.cluster, cells.distance, cells.measurements, cells.nucleus_type, cells.type_names, k
    )
    cohort = _quartiles(cells)
    n = settings.report.crops_per_cluster
    rows = exemplar_rows(
        cells.cluster, cells.distance, k, n_nearest=n, n_random=n, seed=settings.seed
    )
    exemplars = _exemplars(sources, rows, settings)
    sharpness = silhouettes(
        cells.embedding, cells.cluster[cells.with_embedding], codebook, settings.seed
    )
    with_counts = [s.entry for s in sources.slides if s.entry.counts]
    counts = np.array([entry.counts for entry in with_counts], np.int64)
    largest = _largest_slides([entry.slide_id for entry in with_counts], counts)
    more, less = named_neighbours(sources.neighbours, k)
    return [
        ClusterCard(
            number=j,
            n_cells=int(counts[:, j].sum()),
            fraction=float(counts[:, j].sum() / max(1, counts.sum())),
            n_slides=int(np.count_nonzero(counts[:, j])),
            measurements=_summaries(found[j], cohort),
            type_fractions=_types(found[j]),
            distance=found[j].distances,
            silhouette=None if math.isnan(sharpness[j]) else float(sharpness[j]),
            nearest=exemplars[j][0],
            random=exemplars[j][1],
            maps=tuple(sources.maps.get(j, ())),
            beside_more=more[j],
            beside_less=less[j],
            note=NO_CROPS if n and found[j].n_cells and not exemplars[j][0] else "",
            largest=largest[j],
        )
        for j in range(k)
    ]


def find_neighbourhoods(
    places: Sequence[tuple[FloatArray, IntArray]], k: int, seed: int
) -> Neighbourhoods | None:
    """Which of ``k`` clusters lie beside which; None where no two cells are neighbours.

    ``places`` are centroids (n, 2) in micrometres and clusters (n,) of each slide.
    """
    found = neighbour_enrichment(places, k, n_permutations=N_SHUFFLES, seed=seed)
    if not found.observed.sum():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2(found.observed / found.expected)
    how = (
        f"Neighbours are the five nearest cells within 50 µm, of {found.n_cells_used:,} cells on "
        f"{len(places)} slide{'' if len(places) == 1 else 's'}; clusters were shuffled within "
        f"each slide {found.n_permutations} times."
    )
    ratio = np.where(np.isnan(ratio), 0.0, ratio)
    return Neighbourhoods(ratio, found.z, found.n_cells_used, len(places), how)


def named_neighbours(
    found: Neighbourhoods | None, k: int
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Of each cluster, the others found beside it clearly more, and clearly less, often."""
    if found is None:
        return [()] * k, [()] * k
    ratio, z = found.log2_ratio.copy(), np.nan_to_num(found.z)
    np.fill_diagonal(ratio, 0)
    limit = math.log2(STRONG_RATIO)
    more = [_strongest(-ratio[j], (ratio[j] >= limit) & (z[j] >= STRONG_Z)) for j in range(k)]
    less = [_strongest(ratio[j], (ratio[j] <= -limit) & (z[j] <= -STRONG_Z)) for j in range(k)]
    return more, less


def curve_of(codebook: Codebook, counts: IntArray) -> KCurve | None:
    """How the number of clusters was chosen; None where it was given.

    ``counts`` (n slides, k) are the cells there are.
    """
    choice: Any = codebook.record.get("choice_of_k")
    if not choice:
        return None
    points = tuple(KPoint(**candidate) for candidate in choice["candidates"])
    return KCurve(points, codebook.k, bool(choice["is_stable"]), follow_slides(counts))


def _largest_slides(titles: Sequence[str], counts: IntArray) -> list[LargestSlide | None]:
    """Of each cluster the slide with most of its cells; None where there is nothing to compare."""
    of_cluster, of_slide = counts.sum(axis=0), counts.sum(axis=1)
    if np.count_nonzero(of_slide) < 2:
        return [None] * counts.shape[1]
    first = counts.argmax(axis=0)
    return [
        LargestSlide(titles[i], float(counts[i, j] / n), float(of_slide[i] / of_slide.sum()))
        if (n := of_cluster[j])
        else None
        for j, i in enumerate(first.tolist())
    ]


def _strongest(key: FloatArray, is_strong: IntArray) -> tuple[int, ...]:
    order = np.argsort(key, kind="stable")
    return tuple(int(j) for j in order if is_strong[j])[:MOST_NAMED]


def _quartiles(cells: SampledCells) -> dict[str, tuple[float, float, float]]:
    found = {}
    for name, values in cells.measurements.items():
        finite = values[np.isfinite(values)]
        low, middle, high = np.percentile(finite, [25, 50, 75]) if len(finite) else [math.nan] * 3
        found[name] = (float(low), float(middle), float(high))
    return found


def _summaries(
    found: ClusterDescription, cohort: dict[str, tuple[float, float, float]]
) -> tuple[MeasurementSummary, ...]:
    units = {measurement.name: measurement.unit for measurement in KNOWN}
    return tuple(
        MeasurementSummary(name, units.get(name, ""), *quartiles, cohort[name])
        for name, quartiles in found.medians.items()
    )


def _types(found: ClusterDescription) -> tuple[tuple[str, float], ...]:
    shares = [(name, share) for name, share in found.type_fractions.items() if share >= 0.005]
    return tuple(sorted(shares, key=lambda pair: (-pair[1], pair[0])))


def _exemplars(
    sources: Sources, rows: Sequence[tuple[IntArray, IntArray]], settings: Settings
) -> list[tuple[tuple[Exemplar, ...], tuple[Exemplar, ...]]]:
    """Of each cluster, the nearest cells and the random ones."""
    cells = sources.cells
    wanted = np.concatenate([part for pair in rows for part in pair])
    crops = crops_of(sources.slides, cells.slide[wanted], cells.row[wanted], settings.slides)

    def shown(some: IntArray) -> tuple[Exemplar, ...]:
        found = []
        for i in some.tolist():
            crop = crops.get((int(cells.slide[i]), int(cells.row[i])))
            if crop is not None:
                title = sources.slides[int(cells.slide[i])].entry.slide_id
                found.append(Exemplar(crop, title, float(cells.distance[i])))
        return tuple(found)

    return [(shown(nearest), shown(random)) for nearest, random in rows]
