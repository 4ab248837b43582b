"""A cohort of slides to cells: one stream of partitions over all slides, nothing done twice."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ccrl_wsi.config import Settings
from ccrl_wsi.errors import CcrlError, StoreError
from ccrl_wsi.parts import read_part
from ccrl_wsi.records import SlideSource
from ccrl_wsi.store import StoreDescription, assemble_store
from pipelines.executors import Executor, Outcome
from pipelines.jobs import Failure, PartitionJob, SlidePlan, Tally
from pipelines.models import Models
from pipelines.output_folder import OutputFolder
from pipelines.partitions import run_partition
from pipelines.plan import committed_tally, identify_slide, job_of, plan_slide
from pipelines.progress import Progress
from pipelines.state import SlideState, known_slides, load_state, save_state

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AssembleJob:
    """A slide whose partitions are all committed."""

    plan: SlidePlan
    parts: tuple[Path, ...]
    store: Path
    description: StoreDescription
    tally: Tally

    @property
    def slide_id(self) -> str:
        """The slide to assemble."""
        return self.plan.slide_id

    @property
    def where(self) -> str:
        """The whole slide, for messages."""
        return "whole slide"

    @property
    def reads(self) -> tuple[Path, ...]:
        """What must be there before."""
        return self.parts

    @property
    def writes(self) -> tuple[Path, ...]:
        """What is there afterwards."""
        return (self.store,)


Job = PartitionJob | AssembleJob


@dataclass(slots=True)
class _Open:
    """A slide in work: what is still out, and what came back."""

    plan: SlidePlan
    missing: set[int]
    tally: Tally = field(default_factory=Tally)


class CohortRun:
    """Takes slides to stores. Keeps what is in flight; the work itself is elsewhere."""

    def __init__(self, folder: OutputFolder, settings: Settings, models: Models) -> None:
        self.folder, self.settings, self.models = folder, settings, models
        self.open: dict[str, _Open] = {}
        self.ready: deque[AssembleJob] = deque()
        self.failures: dict[str, Failure] = {}

    def run(
        self, sources: Sequence[SlideSource], executor: Executor, progress: Progress
    ) -> list[Failure]:
        """Do all slides; those that cannot be done are returned, the rest is finished."""
        work = self.folder.work_on(do_job)
        self.folder.look_up(known_slides(self.folder))
        for outcome in executor.map(work, self._jobs(sources, progress)):
            self._take(outcome, progress)
        last: list[Job] = list(self.ready)
        for outcome in executor.map(work, last):
            self._take(outcome, progress)
        with suppress(OSError):  # Parts of failed slides stay, for the next run.
            (self.folder.root / "work").rmdir()
        return list(self.failures.values())

    def _jobs(self, sources: Sequence[SlideSource], progress: Progress) -> Iterator[Job]:
        """Partitions slide by slide; a slide is assembled as soon as its last one is in."""
        for source in sources:
            for job in self._open_slide(source, progress):
                yield from self._take_ready()
                if job.slide_id not in self.failures:
                    yield job
        yield from self._take_ready()

    def _take_ready(self) -> Iterator[AssembleJob]:
        while self.ready:
            yield self.ready.popleft()

    def _open_slide(self, source: SlideSource, progress: Progress) -> list[PartitionJob]:
        try:
            opened = identify_slide(source, self.settings, self.models.fingerprints)
            with closing(opened.reader):
                state = load_state(self.folder, source.slide_id)
                if state is not None and state.cells == opened.fingerprint:
                    self._keep(state, source, progress)
                    return []
                plan = plan_slide(opened, self.settings, self.folder)
        except CcrlError as error:
            self._fail(source.slide_id, source.path, "open", "", str(error), progress)
            return []
        for warning in plan.warnings:
            progress.say(warning)
        return self._missing_jobs(plan, progress)

    def _keep(self, state: SlideState, source: SlideSource, progress: Progress) -> None:
        """The slide's cells are there; what the user says of it may be new."""
        self.folder.clear_work(state.slide_id)
        said = {n: getattr(source, n) for n in ("patient", "group", "site", "scanner")}
        changed = replace(state, **said)
        if (state.patient, state.group) != (source.patient, source.group):
            changed = replace(changed, finish="")  # The store says so too.
        if changed != state:
            save_state(self.folder, changed)
        progress.slide_is_there(state)

    def _missing_jobs(self, plan: SlidePlan, progress: Progress) -> list[PartitionJob]:
        self.folder.part(plan.slide_id, "any").parent.mkdir(parents=True, exist_ok=True)
        slide = self.open[plan.slide_id] = _Open(plan, set())
        jobs = [job_of(plan, p, self.settings, self.folder) for p in plan.partitions]
        missing = []
        for job in jobs:
            tally = committed_tally(job, self.folder.readable_part(job.target))
            if tally is None:
                slide.missing.add(job.partition.number)
                missing.append(job)
            else:
                slide.tally += tally
        progress.slide_begins(plan, len(jobs) - len(missing), slide.tally)
        self._close_if_complete(slide)
        return missing

    def _take(self, outcome: Outcome[Job, Tally | int], progress: Progress) -> None:
        job = outcome.item
        if outcome.failed:
            stage = "assemble" if isinstance(job, AssembleJob) else "cells"
            if isinstance(job, AssembleJob):
                remove_damaged(self.folder, job.parts)
            self._fail(job.slide_id, _path(job), stage, job.where, outcome.error, progress)
        elif isinstance(job, AssembleJob):
            self._finish(job, progress)
        elif isinstance(outcome.result, Tally):
            slide = self.open[job.slide_id]
            slide.missing.discard(job.partition.number)
            slide.tally += outcome.result
            progress.partition_done(job.slide_id, outcome.result)
            self._close_if_complete(slide)

    def _close_if_complete(self, slide: _Open) -> None:
        plan = slide.plan
        if slide.missing or plan.slide_id in self.failures:
            return
        self.ready.append(
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
                tissue_mm2=job.plan.tissue_mm2,
                tally=job.tally,
                warnings=job.plan.warnings,
            ),
        )
        self.folder.clear_work(job.slide_id)
        self.open.pop(job.slide_id, None)
        progress.slide_done(job.slide_id, job.tally)

    def _fail(
        self, slide_id: str, path: Path, stage: str, where: str, message: str, progress: Progress
    ) -> None:
        if slide_id in self.failures:
            return
        self.failures[slide_id] = Failure(slide_id, str(path), stage, where, message)
        progress.slide_failed(slide_id, message)


def remove_damaged(folder: OutputFolder, parts: Sequence[Path]) -> None:
    """Remove parts that cannot be read, so that the next run makes them again."""
    for part in parts:
        try:
            with folder.fetched(part) as file:
                read_part(file)
        except StoreError:
            folder.remove(part)


def do_job(job: Job) -> Tally | int:
    """A partition's tally, or the number of cells of an assembled slide."""
    if isinstance(job, AssembleJob):
        return assemble_store(job.store, job.parts, job.description)
    return run_partition(job)


def _path(job: Job) -> Path:
    return job.plan.info.path if isinstance(job, AssembleJob) else job.info.path
