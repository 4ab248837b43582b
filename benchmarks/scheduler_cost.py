"""What 100,000 partitions cost the driver and the scheduler when the work itself costs nothing.

    python benchmarks/scheduler_cost.py            # about five minutes
    python benchmarks/scheduler_cost.py --slides 10

A hundred slides of 1024 partitions go through the real driver and two Dask workers, whose jobs
return at once. Messages are those of a run: boxes, paths and settings out, a tally back. The bound
is the same number of bare `client.submit` of an empty function with as much in flight. The
driver's memory is read as each slide ends: it must not grow with the cohort. What grew were Dask's
logs of messages, which hold whole jobs and are full after 2000 partitions, a line for each task
in its spans, and the names of the last 100,000 tasks. All are held short (`pipelines.executors`,
`pipelines.dask_clusters`).
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
import time
from pathlib import Path

import psutil
from measured import Table

from ccrl_wsi.config import load_settings
from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.records import SlideInfo, SlideSource
from ccrl_wsi.tiles.grid import cut_tiles, group_tiles
from pipelines import infer
from pipelines.cohort_jobs import AssembleJob, Job, OpenedJob, OpenJob
from pipelines.executors import Dask, each, open_executor
from pipelines.infer import CohortRun
from pipelines.jobs import SlidePlan, Tally
from pipelines.machines import LocalMachine
from pipelines.models import Models
from pipelines.output_folder import claim
from pipelines.plan import job_of
from pipelines.progress import Progress
from pipelines.resolved_settings import resolved

SIDE = 32
"""Partitions along one side of a slide; each is two tiles squared."""

CORE_PX, HALO_PX = 2048, 128
N_SIDE_PX = SIDE * 2 * CORE_PX
TALLY = Tally(1000, 3, 20, 4, 1.0, dict.fromkeys(["load", "read", "segment", "crop", "embed"], 0.1))


def plan_of(source: SlideSource) -> SlidePlan:
    """A slide full of tissue that nobody opened."""
    whole = Box(0, 0, N_SIDE_PX, N_SIDE_PX)
    info = SlideInfo(
        path=source.path,
        slide_id=source.slide_id,
        mpp=0.25,
        width_px=N_SIDE_PX,
        height_px=N_SIDE_PX,
        bounds_px=whole,
        level_downsamples=(1.0, 4.0, 16.0),
        vendor="aperio",
        content_key="0" * 64,
    )
    grid = PixelGrid(0.25, 1.0, (0, 0), N_SIDE_PX, N_SIDE_PX)
    tiles = cut_tiles(grid.extent, CORE_PX, HALO_PX)
    partitions = tuple(group_tiles(tiles, 2, lambda core: True))
    return SlidePlan(source, info, grid, 2048, 1000.0, partitions, "f" * 16, ())


def do_nothing(job: Job) -> OpenedJob | Tally | int:
    """What a worker gives back, without the work."""
    if isinstance(job, OpenJob):
        return OpenedJob(job.source, plan=plan_of(job.source))
    return 0 if isinstance(job, AssembleJob) else TALLY


def nothing(number: int) -> int:
    """The bare task."""
    return number


class MeasuredProgress(Progress):
    """Also remembers the driver's memory as each slide ends."""

    def __init__(self, n_slides: int, folder: object) -> None:
        super().__init__(n_slides, folder)  # type: ignore[arg-type]
        self.resident_mib: list[float] = []

    def slide_done(self, slide_id: str, tally: Tally) -> None:
        """Count, and look."""
        super().slide_done(slide_id, tally)
        self.resident_mib.append(psutil.Process().memory_info().rss / 2**20)


def main() -> None:
    """Run the cohort of nothing and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=100)
    n_slides = parser.parse_args().slides
    infer.do_job = do_nothing
    settings = resolved(load_settings(overrides=["nuclei.segmenter=watershed"]))
    models = Models("stub", "0", (), "stub", "0", standardise=False)
    with (
        tempfile.TemporaryDirectory() as name,
        open_executor(LocalMachine(workers=2)) as executor,
    ):
        assert isinstance(executor, Dask)
        folder = claim(Path(name), settings, models.recorded())
        sources = [SlideSource(Path(f"s{i}.svs"), f"s{i}") for i in range(n_slides)]
        n = n_slides * SIDE * SIDE
        with MeasuredProgress(n_slides, folder) as progress:
            began, cpu = time.perf_counter(), time.process_time()
            failures = CohortRun(folder, settings, models).run(sources, executor, progress)
            seconds, core_seconds = time.perf_counter() - began, time.process_time() - cpu
        assert not failures
        assert progress.tally.n_cells == n * TALLY.n_cells
        n_bare = min(n, 5000)
        began = time.perf_counter()
        assert sum(o.result or 0 for o in each(executor, nothing, range(n_bare))) > 0
        bare = (time.perf_counter() - began) / n_bare
        plan = plan_of(sources[0])
        message = len(pickle.dumps(job_of(plan, plan.partitions[0], settings, folder)))
    table = Table(
        f"{n} partitions of {n_slides} slides that cost nothing", ("what", "figure", "bound")
    )
    table.row("ms a partition, wall", 1e3 * seconds / n, 1e3 * bare)
    table.row("ms a partition, driver and scheduler (one process)", 1e3 * core_seconds / n, None)
    table.row("bytes of a partition's job", message, None)
    table.row("bytes of its result", len(pickle.dumps((TALLY, None))), None)
    resident = progress.resident_mib
    first = resident[max(1, n_slides // 10) - 1]
    table.row("driver's memory after a tenth of the slides, MiB", first, None)
    table.row("after half of them, MiB", resident[(n_slides - 1) // 2], first)
    table.row("at the end, MiB", resident[-1], first)
    table.publish("scheduler_cost")


if __name__ == "__main__":
    main()
