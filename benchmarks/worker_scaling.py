"""One worker and two, on one slide: speed-up, and a worker's memory under a limit of 2 GB.

    python benchmarks/worker_scaling.py                        # a drawn slide, about five minutes
    python benchmarks/worker_scaling.py --slide biopsy.tif     # a slide of yours

Segmented by `watershed`, embedded by `morphology`. Workers have one thread, their libraries too
(by themselves they would share all cores, so that one worker had two), and may take 2 GB each:
Dask stops giving work to one above 1.6 GB and kills it above 1.9. Wall time of one slide,
from opening it to its store, on workers that have done another one before; two rounds in turns,
the better one counts. On two cores the driver shares them with the workers.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from measured import Table
from whole_job import draw

from ccrl_wsi.config import load_settings
from ccrl_wsi.records import SlideSource
from pipelines import dask_clusters
from pipelines.executors import open_executor
from pipelines.infer import CohortRun
from pipelines.machines import LocalMachine
from pipelines.models import find_models
from pipelines.output_folder import claim
from pipelines.progress import Progress
from pipelines.resolved_settings import resolved

LIMIT = "2 GB"
SETTINGS = (
    "nuclei.segmenter=watershed",
    "embedding.encoder=morphology",
    "tiles.core_px=1024",
    "report.make=false",
)
"""Smaller tiles than the default: enough partitions for both workers to end together."""


class Peak:
    """The most memory that any child process was seen to have."""

    def __init__(self) -> None:
        self.mib = 0.0
        self._processes: list[psutil.Process] = []
        self._n_looks = 0

    def look(self) -> None:
        """Ask the system; for new processes seldom, because that would take a core's time."""
        if self._n_looks % 20 == 0:
            self._processes = psutil.Process().children(recursive=True)
        self._n_looks += 1
        for process in self._processes:
            try:
                self.mib = max(self.mib, process.memory_info().rss / 2**20)
            except psutil.Error:
                continue


@contextmanager
def watched() -> Iterator[Peak]:
    """Looks at the children's memory again and again."""
    peak, ended = Peak(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def run(slide: Path, warm_up: Path, workers: int) -> tuple[float, float, Progress]:
    """Seconds of the cells, peak memory of a worker, and what was counted."""
    settings = resolved(load_settings(overrides=SETTINGS))
    models = find_models(settings)
    machine = LocalMachine(workers=workers, memory_limit=LIMIT)
    with (
        tempfile.TemporaryDirectory() as name,
        open_executor(machine, retries=0) as executor,
        watched() as peak,
    ):
        folder = claim(Path(name), settings, models.recorded())
        executor.client.wait_for_workers(workers)  # type: ignore[attr-defined]
        with Progress(1, folder) as progress:  # Imports are not what is measured.
            source = SlideSource(warm_up, "warm_up")
            CohortRun(folder, settings, models).run([source], executor, progress)
        with Progress(1, folder) as progress:
            began = time.perf_counter()
            source = SlideSource(slide, slide.stem)
            failures = CohortRun(folder, settings, models).run([source], executor, progress)
            seconds = time.perf_counter() - began
    assert not failures, failures
    return seconds, peak.mib, progress


def main() -> None:
    """Run with one and with two workers and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path, help="instead of a drawn one")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    dask_clusters.library_threads = lambda _: {
        **dask_clusters.ONE_THREAD,
        **dask_clusters.ONE_ARENA,
        "CCRL_WSI_CORES": "1",
    }
    columns = ("workers", "s", "speed-up", "mm2", "cells", "a worker's peak, MiB")
    table = Table(f"workers of one thread and {LIMIT}", columns)
    best: dict[int, float] = {}
    peaks: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        slide = arguments.slide or draw((16, 16), Path(name))
        warm_up = draw((4, 4), Path(name))
        for _ in range(arguments.rounds):
            for workers in (1, 2):
                seconds, peak, progress = run(slide, warm_up, workers)
                best[workers] = min(seconds, best.get(workers, seconds))
                peaks[workers] = max(peak, peaks.get(workers, 0.0))
        tally = progress.tally
    for workers, seconds in best.items():
        speed_up = best[1] / seconds
        table.row(workers, seconds, speed_up, tally.area_mm2, tally.n_cells, peaks[workers])
    table.publish("worker_scaling")


if __name__ == "__main__":
    main()
