"""Cells that a report looks at closely: a sample of the cohort, slides alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ccrl_wsi.arrays import AnyArray, FloatArray, IntArray
from ccrl_wsi.clusters.kmeans import sample_sizes
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.store import SlideStore
from pipelines.report_slides import OpenReportSlide, reading

MEASUREMENTS = (
    "area_um2", "eccentricity", "solidity", "haematoxylin_mean", "haematoxylin_around",
    "eosin_around", "contrast",
)  # fmt: skip
"""What the clusters' cards tell."""

WITH_EMBEDDING = 10_000
"""Cells whose embeddings are read too."""


@dataclass(frozen=True, eq=False, slots=True)
class SampledCells:
    """n cells of several slides.

    Parameters
    ----------
    slide, row
        (n,) index into the slides that were sampled, and row of the cell in its store.
    measurements
        (n,) each, by name.
    nucleus_type
        (n,) index into ``type_names``; None where there are none.
    with_embedding, embedding
        (m,) ascending places among the n, and their (m, d) vectors as the codebook compares them.
    """

    slide: IntArray
    row: IntArray
    cluster: IntArray
    distance: FloatArray
    measurements: dict[str, FloatArray]
    nucleus_type: IntArray | None
    type_names: tuple[str, ...]
    with_embedding: IntArray
    embedding: FloatArray


def sample_cells(slides: Sequence[OpenReportSlide], n_in_all: int, seed: int) -> SampledCells:
    """Cells of ``slides``: of each as many, or all it has.

    Raises
    ------
    UnreadableSlideError
        If a store is damaged.
    """
    n_cells = [slide.store.n_cells for slide in slides]
    sizes = sample_sizes(n_cells, n_in_all, n_in_all)
    vectors = sample_sizes(sizes, WITH_EMBEDDING, WITH_EMBEDDING)
    stores = [slide.store for slide in slides]
    rows = [_rows(store, n, seed) for store, n in zip(stores, sizes, strict=True)]
    first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    spread = [
        np.linspace(0, n - 1, m).astype(np.int64) for n, m in zip(sizes, vectors, strict=True)
    ]
    embedding = [
        _vectors(store, own[chosen])
        for store, own, chosen in zip(stores, rows, spread, strict=True)
    ]
    type_names = tuple(stores[0].attrs["type_names"]) if stores else ()
    return SampledCells(
        slide=np.repeat(np.arange(len(slides)), sizes),
        row=np.concatenate(rows),
        cluster=_column("cluster", stores, rows),
        distance=_column("cluster_distance", stores, rows),
        measurements={name: _column(name, stores, rows) for name in MEASUREMENTS},
        nucleus_type=_column("nucleus_type", stores, rows) if type_names else None,
        type_names=type_names,
        with_embedding=np.concatenate([f + s for f, s in zip(first[:-1], spread, strict=True)]),
        embedding=np.concatenate(embedding),
    )


def _rows(store: SlideStore, n: int, seed: int) -> IntArray:
    if n == store.n_cells:
        return np.arange(n)
    rng = rng_for(seed, "report sample", store.slide_id)
    return np.sort(rng.choice(store.n_cells, n, replace=False))


def _vectors(store: SlideStore, rows: IntArray) -> FloatArray:
    """Embeddings as the codebook compares them: less the slide's mean where it centres slides."""
    with reading(store):
        vectors = store.embedding_rows(rows)
        mean = store.attrs["clusters"].get("slide_mean")
    return vectors if mean is None else vectors - np.asarray(mean, np.float32)


def _column(name: str, stores: Sequence[SlideStore], rows: Sequence[IntArray]) -> AnyArray:
    found = []
    for store, own in zip(stores, rows, strict=True):
        with reading(store):
            found.append(store.obs(name)[own])
    return np.concatenate(found)
