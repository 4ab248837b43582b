"""The last step of a slide: clusters into its store, and its overlay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.cell_identity import late_settings
from ccrl_wsi.clusters.codebook import Codebook, load_codebook
from ccrl_wsi.clusters.kmeans import assign
from ccrl_wsi.config import Settings
from ccrl_wsi.outputs.overlay import write_slide_overlay
from ccrl_wsi.store import (
    SlideStore,
    add_files,
    open_store,
    telling_damage,
    update_description,
    write_clusters,
)
from pipelines.embedding_rows import embedding_chunks, store_mean


@dataclass(frozen=True, slots=True)
class FinishJob:
    """A slide whose clusters or overlay are out of date.

    Parameters
    ----------
    codebook
        The cohort's codebook; None where the cohort has no cells.
    overlays
        Folder for the overlay, beside the copy in the store.
    notes
        What the user says of the slide now: patient and group.
    """

    slide_id: str
    store: Path
    codebook: Path | None
    overlays: Path
    settings: Settings
    notes: dict[str, Any]

    @property
    def reads(self) -> tuple[Path, ...]:
        """What must be there before."""
        return (self.store, self.codebook) if self.codebook else (self.store,)

    @property
    def writes(self) -> tuple[Path, ...]:
        """What is there afterwards."""
        return (self.overlays, self.store)


def finish_slide(job: FinishJob) -> tuple[Path, ...]:
    """Write clusters and overlay; returns the overlay's files.

    Raises
    ------
    StoreError
        If the store is damaged or cannot be written.
    ClusterError
        If the codebook is damaged or does not fit the cells.
    """
    codebook = load_codebook(job.codebook) if job.codebook else None
    with telling_damage(job.store):
        return tuple(_finish(job, codebook))


def _finish(job: FinishJob, codebook: Codebook | None) -> list[Path]:
    names, colors = (codebook.names, codebook.colors) if codebook else ((), ())
    store = open_store(job.store, unfinished=True)
    mean = store_mean(store) if codebook and codebook.centres_slides else None
    cluster, distance = _assign_all(store, codebook, mean)
    fingerprint = codebook.fingerprint if codebook else ""
    said: dict[str, dict[str, Any]] = {"notes": job.notes, "settings": late_settings(job.settings)}
    if mean is not None:
        said["clusters"] = {"slide_mean": mean.tolist()}
    write_clusters(job.store, cluster, distance, names, colors, fingerprint)
    update_description(job.store, said)
    files = write_slide_overlay(open_store(job.store), job.overlays, job.settings.overlay)
    add_files(job.store, "overlays", files)
    return files


def _assign_all(
    store: SlideStore, codebook: Codebook | None, mean: FloatArray | None
) -> tuple[IntArray, FloatArray]:
    if codebook is None:
        return np.full(store.n_cells, -1, np.int16), np.full(store.n_cells, np.nan, np.float32)
    encoder = store.attrs["encoder"]
    codebook.check_encoder(encoder["name"], encoder["fingerprint"])
    chunks = embedding_chunks(store)
    parts = [assign(rows if mean is None else rows - mean, codebook) for rows in chunks]
    return np.concatenate([c for c, _ in parts]), np.concatenate([d for _, d in parts])
