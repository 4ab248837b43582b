"""The stream of jobs over a cohort, with a worker that does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ccrl_wsi.slides.slide_list import list_slides
from pipelines.cohort_jobs import AssembleJob, OpenJob
from pipelines.executors import Outcome, Serial
from pipelines.faults import Fault
from pipelines.infer import CohortRun
from pipelines.jobs import PartitionJob
from pipelines.models import find_models
from pipelines.output_folder import claim
from pipelines.progress import Progress


class Scripted(Serial):
    """Many slots; the first partition of a slide called ``bad`` fails, the others come in after."""

    keeps_order = False
    n_slots = 4

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[object] = []

    def run(self, work: Callable[[object], object], take: Callable[[], object]) -> Iterator:
        while True:
            flying = []
            while len(flying) < 2 * self.n_slots and (job := take()) is not None:
                flying.append(job)
            if not flying:
                return
            self.taken += flying
            for job in flying:
                is_bad = isinstance(job, PartitionJob) and job.slide_id == "bad"
                if is_bad and job.partition.number == 0:
                    yield Outcome(job, None, Fault("it is bad", "read", "tile in row 0, column 0"))
                else:
                    yield Outcome(job, work(job))


def cohort(slide_file: Path, smoke, folder: Path, executor, names):
    sources = []
    for name in names:
        path = folder / f"{name}.tif"
        path.write_bytes(slide_file.read_bytes())
        sources += list_slides([str(path)])
    models = find_models(smoke)
    output = claim(folder / "out", smoke, models.recorded())
    with Progress(len(sources), output) as progress:
        failures = CohortRun(output, smoke, models).run(sources, executor, progress)
    return failures, output, progress


def test_partitions_that_come_in_after_their_slide_failed_change_nothing(
    slide_file, smoke, tmp_path
):
    executor = Scripted()
    failures, output, progress = cohort(slide_file, smoke, tmp_path, executor, ["bad", "good"])
    assert [(f.slide_id, f.stage, f.message) for f in failures] == [("bad", "read", "it is bad")]
    assert [path.stem for path in output.slides.glob("*.zarr")] == ["good"]
    assert progress.snapshot("running")["slides"]["failed"] == 1
    later = [j for j in executor.taken if isinstance(j, PartitionJob) and j.slide_id == "bad"]
    assert 1 < len(later) < 12  # What waited was not sent out any more.


def test_slides_are_opened_only_as_workers_need_them(slide_file, smoke, tmp_path):
    executor = Scripted()
    names = [f"s{number}" for number in range(6)]
    failures, output, _ = cohort(slide_file, smoke, tmp_path, executor, names)
    assert failures == []
    kinds = [type(job) for job in executor.taken]
    assert kinds.index(AssembleJob) < len(kinds) - 1 - kinds[::-1].index(OpenJob)
    assert len(list(output.slides.glob("*.zarr"))) == 6


def test_the_largest_slides_come_first_and_serially_the_users_order_holds(
    slide_file, smoke, tmp_path
):
    large = tmp_path / "b_large.tif"
    large.write_bytes(slide_file.read_bytes() + bytes(1000))
    small = tmp_path / "a_small.tif"
    small.write_bytes(slide_file.read_bytes())
    models = find_models(smoke)
    orders = []
    for executor in (Scripted(), Serial()):
        output = claim(tmp_path / type(executor).__name__, smoke, models.recorded())
        run = CohortRun(output, smoke, models)
        opened: list[str] = []
        progress = Progress(2, output)
        progress.slide_begins = lambda plan, n, tally, to=opened: to.append(plan.slide_id)
        progress.partition_done = progress.slide_done = lambda *_: None
        run.run(list_slides([str(small), str(large)]), executor, progress)
        orders.append(opened)
    assert orders == [["b_large", "a_small"], ["a_small", "b_large"]]
