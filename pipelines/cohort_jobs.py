"""What a worker can be given while slides become cells: open one, do a partition, assemble one."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ccrl_wsi.config import Settings
from ccrl_wsi.errors import SlideError
from ccrl_wsi.records import SlideSource
from ccrl_wsi.store import StoreDescription, assemble_store
from pipelines.faults import telling
from pipelines.jobs import PartitionJob, SlidePlan, Tally
from pipelines.output_folder import OutputFolder
from pipelines.partitions import run_partition
from pipelines.plan import committed_tally, identify_slide, job_of, plan_slide, tolerates
from pipelines.state import SlideState, load_state


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A slide to be opened, planned, and compared with what an earlier run left.

    ``models``: fingerprints of segmenter and encoder.
    """

    source: SlideSource
    settings: Settings
    models: str
    folder: OutputFolder

    @property
    def slide_id(self) -> str:
        """The slide to open."""
        return self.source.slide_id

    @property
    def reads(self) -> tuple[Path, ...]:
        """Nothing: it takes what it needs from ``folder``."""
        return ()

    @property
    def writes(self) -> tuple[Path, ...]:
        """Nothing: it gives what it makes to ``folder``."""
        return ()

    @property
    def path(self) -> Path:
        """Its file."""
        return self.source.path


@dataclass(frozen=True, slots=True)
class OpenedJob:
    """A slide whose cells are there (``state``), or what is still to be done for it (``plan``).

    Parameters
    ----------
    done
        Numbers of the partitions that were committed before.
    tally
        What those came to.
    """

    source: SlideSource
    state: SlideState | None = None
    plan: SlidePlan | None = None
    done: frozenset[int] = frozenset()
    tally: Tally = Tally()


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
    def path(self) -> Path:
        """Its file."""
        return self.plan.info.path

    @property
    def reads(self) -> tuple[Path, ...]:
        """What must be there before."""
        return self.parts

    @property
    def writes(self) -> tuple[Path, ...]:
        """What is there afterwards."""
        return (self.store,)


Job = OpenJob | PartitionJob | AssembleJob

STAGES: dict[type, str] = {OpenJob: "open", PartitionJob: "cells", AssembleJob: "assemble"}
"""How failures call the kinds of jobs."""


def do_job(job: Job) -> OpenedJob | Tally | int:
    """The opened slide, a partition's tally, or the number of cells of an assembled slide."""
    if isinstance(job, OpenJob):
        return open_job(job)
    if isinstance(job, AssembleJob):
        _refuse_unseen(job)
        return assemble_store(job.store, job.parts, job.description)
    return run_partition(job)


def _refuse_unseen(job: AssembleJob) -> None:
    if 0 < job.tally.n_tiles == job.tally.n_skipped:
        with telling(stage="read"):
            raise SlideError(
                f"{job.path}: none of its {job.tally.n_tiles} tiles can be decoded, so nobody "
                "has seen the slide. Copy the file again, then run again."
            )


def open_job(job: OpenJob) -> OpenedJob:
    """Open the slide and see what is to be done.

    Raises
    ------
    SlideError
        If it cannot be opened or decoded, or has no usable pixel size.
    """
    opened = identify_slide(job.source, job.settings, job.models)
    with closing(opened.reader):
        job.folder.fetch_here(job.folder.state(job.slide_id))
        state = load_state(job.folder, job.slide_id)
        is_there = state is not None and state.cells == opened.fingerprint
        if state is not None and is_there and tolerates(state.tally, job.settings):
            return OpenedJob(job.source, state=state)
        plan = plan_slide(opened, job.settings, job.folder)
    job.folder.make(job.folder.part(job.slide_id, "any").parent)
    done, tally = set(), Tally()
    for partition in plan.partitions:
        wanted = job_of(plan, partition, job.settings, job.folder)
        found = committed_tally(wanted, job.folder.readable_part(wanted.target))
        if found is not None:
            done.add(partition.number)
            tally += found
    return OpenedJob(job.source, plan=plan, done=frozenset(done), tally=tally)
