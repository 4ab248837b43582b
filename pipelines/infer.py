"""A cohort of slides to cells: one stream of jobs over all slides, nothing done twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ccrl_wsi.config import Settings
from ccrl_wsi.errors import StorageError, StoreError
from ccrl_wsi.parts import read_part
from ccrl_wsi.records import SlideSource
from pipelines.cohort_jobs import STAGES, AssembleJob, Job, OpenedJob, OpenJob, do_job
from pipelines.executors import Executor, Outcome
from pipelines.failure_log import write_log
from pipelines.faults import Fault, fault_of
from pipelines.jobs import NO_NUCLEI, Failure, PartitionJob, SlidePlan, Tally, tissue_seen_mm2
from pipelines.models import Models
from pipelines.output_folder import OutputFolder, read_json
from pipelines.plan import job_of, largest_first
from pipelines.progress import Progress
from pipelines.state import SlideState, save_state

AHEAD = 2
"""Partitions kept ready for each slot, so that opening the next slide leaves no worker idle."""


@dataclass(slots=True)
class _Open:
    """A slide in work: what is still out, and what came back."""

    plan: SlidePlan
    missing: set[int]
    tally: Tally = field(default_factory=Tally)


class CohortRun:
    """Takes slides to stores. Keeps what is in flight; the work itself is elsewhere.

    Of the cohort only names are held: as many slides are open as keep the workers busy.
    """

    def __init__(
        self,
        folder: OutputFolder,
        settings: Settings,
        models: Models,
        *,
        still_ours: Callable[[], None] = lambda: None,
    ) -> None:
        """``still_ours`` is asked again and again; it raises what must end the run."""
        self.folder, self.settings, self.models = folder, settings, models
        self.still_ours = still_ours
        self.waiting: deque[SlideSource] = deque()
        self.n_opening = 0
        self.open: dict[str, _Open] = {}
        self.partitions: deque[PartitionJob] = deque()
        self.complete: deque[AssembleJob] = deque()
        self.failures: dict[str, Failure] = {}

    def run(
        self, sources: Sequence[SlideSource], executor: Executor, progress: Progress
    ) -> list[Failure]:
        """Do all slides; those that cannot be done are returned, the rest is finished."""
        # With several workers the largest must not come last, when all others have nothing to do.
        in_order = sources if executor.keeps_order else largest_first(sources)
        self.waiting.extend(in_order)

        def take() -> Job | None:
            return self._next_job(executor.n_slots)

        work = self.folder.work_on(do_job)
        outcomes: Iterator[Outcome[Job, OpenedJob | Tally | int]] = executor.run(work, take)
        for outcome in outcomes:
            self.still_ours()
            self._take(outcome, progress)
        with suppress(OSError):  # Parts of failed slides stay, for the next run.
            (self.folder.root / "work").rmdir()
        return list(self.failures.values())

    def _next_job(self, n_slots: int) -> Job | None:
        """Assembling first, for it frees space; slides are opened while there is little to do."""
        if self.complete:
            return self.complete.popleft()
        while self.partitions and self.partitions[0].slide_id in self.failures:
            self.partitions.popleft()
        ahead = AHEAD * n_slots if n_slots > 1 else 1
        if self.waiting and len(self.partitions) < ahead and self.n_opening < n_slots:
            self.n_opening += 1
            source = self.waiting.popleft()
            return OpenJob(source, self.settings, self.models.fingerprints, self.folder)
        return self.partitions.popleft() if self.partitions else None

    def _take(self, outcome: Outcome[Job, OpenedJob | Tally | int], progress: Progress) -> None:
        job, result = outcome.item, outcome.result
        self.n_opening -= isinstance(job, OpenJob)
        if outcome.fault is not None:
            if isinstance(job, AssembleJob):
                with suppress(StorageError):  # Then the next run finds them damaged again.
                    remove_damaged(self.folder, job.parts)
            self._fail(job, outcome.fault, progress)
            return
        try:
            if isinstance(result, OpenedJob):
                self._begin(result, progress)
            elif isinstance(result, Tally) and isinstance(job, PartitionJob):
                self._count(job, result, progress)
            elif isinstance(job, AssembleJob):
                self._finish(job, progress)
        except (StoreError, StorageError) as error:  # The slide's record cannot be written.
            self._fail(job, fault_of(error), progress)

    def _begin(self, opened: OpenedJob, progress: Progress) -> None:
        plan, state = opened.plan, opened.state
        if state is not None:
            self._keep(state, opened.source)
            progress.slide_is_there(state)
        if plan is None:
            return
        self.folder.forget(plan.slide_id)
        if self.folder.state(plan.slide_id).exists():
            # What an earlier run found no longer holds, and counts for nothing until it is redone.
            if said := self._why_anew(plan):
                progress.say(said)
            self.folder.remove(self.folder.state(plan.slide_id))
        for warning in plan.warnings:
            progress.say(warning)
        missing = [p for p in plan.partitions if p.number not in opened.done]
        slide = _Open(plan, {p.number for p in missing}, opened.tally)
        self.open[plan.slide_id] = slide
        self.partitions.extend(job_of(plan, p, self.settings, self.folder) for p in missing)
        progress.slide_begins(plan, len(opened.done), opened.tally)
        self._close_if_complete(slide)

    def _why_anew(self, plan: SlidePlan) -> str:
        """What a user must know whose slide has cells of other pixels or regions; else empty."""
        try:
            before = read_json(self.folder.state(plan.slide_id))
        except StoreError:
            return ""
        if before.get("cells") == plan.fingerprint:
            return ""  # Its store is damaged, or tiles are tried again.
        used = plan.regions.record() if plan.regions else None
        are_others = "regions" in before and before["regions"] != used
        what = "regions" if are_others else "pixels, regions or tiles"
        return f"{plan.slide_id}: its {what} are others than before, so its cells are found anew."

    def _keep(self, state: SlideState, source: SlideSource) -> None:
        """The slide's cells are there; what the user says of it may be new."""
        self.folder.clear_work(state.slide_id, is_likely=False)
        said = {n: getattr(source, n) for n in ("patient", "group", "site", "scanner")}
        changed = replace(state, **said)
        if (state.patient, state.group) != (source.patient, source.group):
            changed = replace(changed, finish="")  # The store says so too.
        if changed != state:
            save_state(self.folder, changed)

    def _count(self, job: PartitionJob, tally: Tally, progress: Progress) -> None:
        slide = self.open.get(job.slide_id)
        if slide is None:
            return  # The slide failed while this partition was under way; its part stays.
        slide.missing.discard(job.partition.number)
        slide.tally += tally
        progress.partition_done(job.slide_id, tally)
        self._close_if_complete(slide)

    def _close_if_complete(self, slide: _Open) -> None:
        plan = slide.plan
        if slide.missing or plan.slide_id in self.failures:
            return
        self.complete.append(
            AssembleJob(
                plan=plan,
                parts=tuple(self.folder.part(plan.slide_id, p.name) for p in plan.partitions),
                store=self.folder.store(plan.slide_id),
                description=self.models.describe(plan, self.settings, slide.tally),
                tally=slide.tally,
            )
        )

    def _finish(self, job: AssembleJob, progress: Progress) -> None:
        source, info = job.plan.source, job.plan.info
        save_state(
            self.folder,
            SlideState(
                slide_id=job.slide_id,
                path=str(info.path),
                patient=source.patient,
                group=source.group,
                site=source.site,
                scanner=source.scanner,
                mpp=info.mpp,
                cells=job.plan.fingerprint,
                tissue_mm2=tissue_seen_mm2(job.plan, job.tally),
                tally=job.tally,
                warnings=(*job.plan.warnings, *_lacks(job)),
                regions=job.plan.regions,
            ),
        )
        self.folder.clear_work(job.slide_id)
        self.open.pop(job.slide_id, None)
        self.folder.remove(self.folder.log(job.slide_id))
        progress.slide_done(job.slide_id, job.tally)

    def _fail(self, job: Job, fault: Fault, progress: Progress) -> None:
        if job.slide_id in self.failures:
            return
        self.open.pop(job.slide_id, None)
        stage = fault.stage or STAGES[type(job)]
        where = fault.place or getattr(job, "where", "")
        said = self.folder.told(fault.message)
        log = write_log(self.folder, job.slide_id, fault)
        self.failures[job.slide_id] = Failure(job.slide_id, str(job.path), stage, where, said, log)
        progress.slide_failed(job.slide_id, said)


def _lacks(job: AssembleJob) -> list[str]:
    tally, found = job.tally, []
    if tally.n_skipped:
        found.append(
            f"{tally.n_skipped} of {tally.n_tiles} tiles cannot be decoded and were left out."
        )
    if tally.found_nothing:
        found.append(f"{NO_NUCLEI}.")
    return [f"{job.path.name}: {sentence}" for sentence in found]


def remove_damaged(folder: OutputFolder, parts: Sequence[Path]) -> None:
    """Remove parts that cannot be read, so that the next run makes them again."""
    for part in parts:
        try:
            with folder.fetched(part) as file:
                read_part(file)
        except StoreError:
            folder.remove(part)
