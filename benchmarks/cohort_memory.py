"""Memory that clusters, overlays and exports take, for a cohort and for one four times as large.

Run as ``python benchmarks/cohort_memory.py [N_CELLS]``: slides of N_CELLS cells (250,000) with
embeddings of 193 dimensions, one of them and then four. One core, and 2 GB of disk.
Linux.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from drawn_cells import N_DIMENSIONS, assemble, draw_parts
from measured import Table

from ccrl_wsi.clusters.codebook import save_codebook
from ccrl_wsi.clusters.kmeans import fit_codebook, sample_rows
from ccrl_wsi.config import load_settings
from ccrl_wsi.outputs.anndata_file import export_anndata
from ccrl_wsi.outputs.geoparquet_file import export_cohort_geoparquet
from ccrl_wsi.store import open_store
from pipelines.finish import FinishJob, finish_slide

SETTINGS = load_settings(overrides=["clusters.n_init=1"])


def make_store(folder: Path, name: str, n: int) -> Path:
    """A slide's store."""
    parts = draw_parts(folder, name, n)
    store = assemble(folder, name)
    for part in parts:
        part.unlink()
    return store


def fit(stores: list[Path], target: Path) -> None:
    """k-means on the sample a run would take."""
    opened = [open_store(path) for path in stores]
    samples = [
        s.embedding_rows(sample_rows(s.n_cells, min(20000, s.n_cells), 0, s.slide_id))
        for s in opened
    ]
    codebook = fit_codebook(
        np.concatenate(samples), SETTINGS.clusters, seed=0, encoder=("drawn", "e"),
        standardise=False, record={},
    )  # fmt: skip
    save_codebook(target, codebook)


def finish(stores: list[Path], codebook: Path) -> None:
    """Clusters and overlays of all slides, one after the other."""
    for store in stores:
        overlays = codebook.parent / "overlays"
        notes = {"patient": store.stem, "group": None}
        finish_slide(FinishJob(store.stem, store, codebook, overlays, SETTINGS, notes))


def peak_gb(work: Callable[..., None], *arguments: object) -> tuple[float, float]:
    """Seconds, and the most memory a process of its own had, in GB."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, work, arguments))
    process.start()
    seconds, gigabytes = receiver.recv()
    process.join()
    return seconds, gigabytes


def _measured(sender, work, arguments) -> None:  # noqa: ANN001 (multiprocessing's own types)
    begin = time.perf_counter()
    work(*arguments)
    seconds = time.perf_counter() - begin
    # Not getrusage: what it tells includes the parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (peak_kb,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    sender.send((seconds, int(peak_kb) / 1e6))


def main(n: int) -> None:
    """Print seconds and peak memory of each step, for one slide and for four."""
    table = Table(
        f"Cohorts of slides of {n:,} cells and {N_DIMENSIONS} dimensions",
        ("step", "1 slide, s", "GB", "4 slides, s", "GB ", "times the memory"),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stores = [make_store(folder, f"S{i}", n) for i in range(4)]
        codebook = folder / "codebook.safetensors"
        steps = {
            "fit": (fit, codebook),
            "assign, store, overlay": (finish, codebook),
            "AnnData (.h5ad)": (export_anndata, folder / "cohort.h5ad"),
            "AnnData (.zarr)": (export_anndata, folder / "cohort.zarr"),
            "GeoParquet of the cohort": (export_cohort_geoparquet, folder / "cohort.parquet"),
        }
        # All slides must have clusters of the same codebook before they are exported.
        fit(stores, codebook)
        for label, (work, target) in steps.items():
            found = [peak_gb(work, stores[:1], target), peak_gb(work, stores, target)]
            (one_s, one_gb), (four_s, four_gb) = found
            table.row(label, one_s, one_gb, four_s, four_gb, four_gb / one_gb)
    table.publish("cohort_memory")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250_000)
