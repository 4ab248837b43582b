"""Clusters, stores and overlays of very many cells: time, memory, bytes written.

    python benchmarks/million_cells.py                      # 10^5 and 10^6 cells: three minutes
    python benchmarks/million_cells.py --cells 10000000     # 30 GB of disk, 20 minutes

One slide of drawn cells with embeddings of 193 dimensions: its store is assembled, k-means is
fitted to the sample, clusters are assigned, the overlay is written; no report, no tables. Each step
has a process of its own, with one thread a library, and its own peak memory; importing libraries is
not timed. "written" is what the step hands to the system over the size of the files it made or
changed: 1 means that nothing is written twice. The finishing step writes what a run would: outlines
up to a million cells, points above. Each step is done once, or ``--rounds`` times: then medians are
told. ``geojson_speed.py`` has the overlay's bound.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_THREADS = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS OPENCV_FOR_THREADS_NUM"
for _name in _THREADS.split():
    os.environ.setdefault(_name, "1")

from drawn_cells import N_DIMENSIONS, assemble, draw_parts
from measured import Table, medians

from ccrl_wsi.clusters.codebook import load_codebook, save_codebook
from ccrl_wsi.clusters.kmeans import assign, fit_codebook, sample_rows, sample_sizes
from ccrl_wsi.config import load_settings
from ccrl_wsi.outputs.overlay import write_slide_overlay
from ccrl_wsi.store import open_store
from pipelines.embedding_rows import embedding_chunks
from pipelines.finish import FinishJob, finish_slide

SETTINGS = load_settings()


def assemble_parts(folder: Path) -> None:
    """Parts to a store."""
    assemble(folder, "S")


def fit(folder: Path) -> None:
    """k-means on the sample a run would take of one slide."""
    store, limits = open_store(folder / "S.zarr"), SETTINGS.clusters
    (size,) = sample_sizes([store.n_cells], limits.sample_per_slide, limits.sample_in_all)
    codebook = fit_codebook(
        store.embedding_rows(sample_rows(store.n_cells, size, 0, "S")), limits, seed=0,
        encoder=("drawn", "e"), standardise=False, record={},
    )  # fmt: skip
    save_codebook(folder / "codebook.safetensors", codebook)


def assign_all(folder: Path) -> None:
    """The nearest centre of every cell, read from the store and not written."""
    codebook = load_codebook(folder / "codebook.safetensors")
    for rows in embedding_chunks(open_store(folder / "S.zarr", unfinished=True)):
        assign(rows, codebook)


def overlay(folder: Path) -> None:
    """The overlay alone, of outlines however many there are."""
    settings = SETTINGS.overlay.model_copy(update={"points_above": 10**9})
    write_slide_overlay(open_store(folder / "S.zarr"), folder / "outlines", settings)


def finish(folder: Path) -> None:
    """Clusters into the store, overlay as a run writes it, seal."""
    codebook, overlays = folder / "codebook.safetensors", folder / "overlays"
    notes = {"patient": "S", "group": None}
    finish_slide(FinishJob("S", folder / "S.zarr", codebook, overlays, SETTINGS, notes))


STEPS: dict[str, Callable[[Path], None]] = {
    "assemble": assemble_parts,
    "fit k-means": fit,
    "finish: assign, store, overlay, seal": finish,
    "of that, reading and assigning": assign_all,
    "overlay of outlines": overlay,
}


def measured(work: Callable[..., None], *arguments: object) -> dict[str, float]:
    """Figures of ``work`` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, work, arguments))
    process.start()
    figures: dict[str, float] = receiver.recv()
    process.join()
    return figures


def _measure(sender: Any, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    _import_all()
    wall, core, written = time.perf_counter(), time.process_time(), _proc("io", "wchar:")
    work(*arguments)
    figures = {
        "wall": time.perf_counter() - wall,
        "core": time.process_time() - core,
        "written": _proc("io", "wchar:") - written,
        # Not getrusage: what it tells includes the parent's.
        "peak_mib": _proc("status", "VmHWM:") / 1024,
    }
    sender.send(figures)


def _import_all() -> None:
    """Imports are start-up, not what is measured here."""
    import imagecodecs
    import sklearn.cluster
    import zarr

    del imagecodecs, sklearn, zarr


def _proc(file: str, name: str) -> int:
    lines = Path(f"/proc/self/{file}").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _sizes(folder: Path) -> dict[tuple[Path, int], int]:
    """Size of each file, by its name and when it was changed."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {(path, path.stat().st_mtime_ns): path.stat().st_size for path in files}


def main() -> None:
    """Measure every step for every number of cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=1, help="runs; medians are told")
    parser.add_argument("--folder", type=Path, help="on a disk with room; a temporary one else")
    arguments = parser.parse_args()
    table = Table(
        f"One slide, {N_DIMENSIONS} dimensions, one thread, medians of {arguments.rounds}",
        (
            "step",
            "cells",
            "core-s",
            "wall s",
            "cells per core-s",
            "peak MiB",
            "written",
            "per cell",
        ),
    )
    for n in arguments.cells:
        rounds = []
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
                rounds.append(_measure_steps(Path(name), n))
        for step in STEPS:
            _add_row(table, step, n, medians([figures[step] for figures in rounds]))
    table.publish("million_cells")


def _measure_steps(folder: Path, n: int) -> dict[str, dict[str, float]]:
    """Figures of every step; ``new`` are the bytes of the files it made or changed."""
    measured(draw_parts, folder, "S", n)
    figures = {}
    for step, work in STEPS.items():
        before = _sizes(folder)
        found = measured(work, folder)
        new = sum(size for key, size in _sizes(folder).items() if key not in before)
        figures[step] = {**found, "new": new}
        print(json.dumps({"step": step, "cells": n, **figures[step]}), flush=True)
        if step == "assemble":
            for part in folder.glob("S-*.npz"):
                part.unlink()
    return figures


def _add_row(table: Table, step: str, n: int, found: dict[str, float]) -> None:
    new = found["new"]
    amplification = found["written"] / new if new else None
    per_cell = f"{new / n:.0f} B" if new else None
    rate = float(n / found["core"])
    figures = (found["core"], found["wall"], rate, found["peak_mib"], amplification, per_cell)
    table.row(step, f"{n:,}", *figures)


if __name__ == "__main__":
    main()
