"""A store's embeddings for clustering: some at a time, centred where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ccrl_wsi.arrays import FloatArray
from ccrl_wsi.clusters.centring import mean_embedding
from ccrl_wsi.store import SlideStore, open_store, telling_damage

ROWS = 16384
"""Cells in memory at once."""


@dataclass(frozen=True, slots=True)
class MeanJob:
    """A slide whose mean embedding is wanted."""

    slide_id: str
    store: Path

    @property
    def reads(self) -> tuple[Path, ...]:
        """What must be there before."""
        return (self.store,)

    @property
    def writes(self) -> tuple[Path, ...]:
        """Nothing."""
        return ()


def mean_of_slide(job: MeanJob) -> FloatArray:
    """Mean embedding (d,) float64 of all cells of the slide.

    Raises
    ------
    StoreError
        If the store is damaged.
    """
    with telling_damage(job.store):
        return store_mean(open_store(job.store, unfinished=True))


def store_mean(store: SlideStore) -> FloatArray:
    """Mean embedding (d,) float64 of all cells; the same wherever it is computed."""
    return mean_embedding(embedding_chunks(store), store.n_dimensions)


def embedding_chunks(store: SlideStore) -> Iterator[FloatArray]:
    """All embeddings in order, ``ROWS`` at a time; one empty chunk where there are no cells."""
    for start in range(0, max(store.n_cells, 1), ROWS):
        yield store.embedding(start, start + ROWS)
