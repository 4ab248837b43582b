"""What a person sees while a cohort is worked on, and what another program can poll."""

from __future__ import annotations

import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ccrl_wsi.errors import RunStopped, StorageError, StoreError
from pipelines.bottleneck import find_bottleneck
from pipelines.jobs import NO_NUCLEI, SlidePlan, Tally
from pipelines.output_folder import OutputFolder, write_json
from pipelines.state import SlideState

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

log = logging.getLogger("ccrl_wsi")

LOG_EVERY_SECONDS = 30.0
FILE_EVERY_SECONDS = 2.0
OBJECT_EVERY_SECONDS = 15.0
"""The same in an object store, where every write is paid for."""

PROGRESS_FILE = "progress.json"


@dataclass(slots=True)
class Counts:
    """How many slides and partitions are where."""

    slides: int
    begun: int = 0
    kept: int = 0
    done: int = 0
    failed: int = 0
    unopened: int = 0
    partitions: int = 0
    partitions_there: int = 0
    partitions_done: int = 0

    @property
    def ended(self) -> int:
        """Slides that need no more work."""
        return self.kept + self.done + self.failed

    @property
    def partitions_expected(self) -> float:
        """Partitions of the cohort; slides that were not opened yet count like those that were."""
        opened = self.begun - self.kept
        still = self.slides - self.begun - self.unopened
        return self.partitions * (opened + still) / opened if opened > 0 else float(self.partitions)


class Progress:
    """A bar with rate and time left on a terminal, plain lines otherwise, and ``progress.json``.

    The file is written again and again by a thread, also while nothing ends: who polls it can tell
    a run that waits from a dead one. ``still_ours`` raises where another run has the folder.
    """

    def __init__(
        self, n_slides: int, folder: OutputFolder, still_ours: Callable[[], None] = lambda: None
    ) -> None:
        self.folder, self.still_ours = folder, still_ours
        self.counts = Counts(n_slides)
        self.tally = Tally()
        self.working: dict[str, tuple[int, int]] = {}
        self.began_at = _now()
        self.began = self.last_line = time.monotonic()
        self.bar: Bar | None = _make_bar() if sys.stderr.isatty() else None
        self.task: TaskID | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, daemon=True, name="progress")

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task("slides", total=None)
        self._write("running")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        self._ended.set()
        self._thread.join()
        self._write("done" if kind is None else "stopped")

    def say(self, sentence: str) -> None:
        """A sentence that must not be missed."""
        log.warning("%s", sentence)

    def slide_is_there(self, state: SlideState) -> None:
        """The slide was finished by an earlier run."""
        self.counts.begun += 1
        self.counts.kept += 1
        log.info("%s: cells are up to date (%d)", state.slide_id, state.tally.n_cells)
        self._show(state.slide_id)

    def slide_begins(self, plan: SlidePlan, n_done: int, tally: Tally) -> None:
        """A slide was cut into partitions, ``n_done`` of which an earlier run committed."""
        n = len(plan.partitions)
        self.counts.begun += 1
        self.counts.partitions += n
        self.counts.partitions_there += n_done
        self.working[plan.slide_id] = (n_done, n)
        resumed = f", {n_done} there already ({tally.n_cells} cells)" if n_done else ""
        log.info(
            "%s: %.2f mm2 of tissue, %d partitions%s", plan.slide_id, plan.tissue_mm2, n, resumed
        )
        self._show(plan.slide_id)

    def partition_done(self, slide_id: str, tally: Tally) -> None:
        """A partition was committed."""
        self.counts.partitions_done += 1
        self.tally += tally
        done, n = self.working[slide_id]
        self.working[slide_id] = (done + 1, n)
        self._show(slide_id)

    def slide_done(self, slide_id: str, tally: Tally) -> None:
        """A slide's store is complete."""
        self.counts.done += 1
        self.working.pop(slide_id, None)
        log.info("%s: %d cells", slide_id, tally.n_cells)
        if tally.found_nothing:
            log.warning("%s: %s", slide_id, NO_NUCLEI)
        if tally.n_skipped:
            log.warning(
                "%s: %d of %d tiles cannot be decoded and were left out",
                slide_id,
                tally.n_skipped,
                tally.n_tiles,
            )
        if tally.n_clipped:
            log.warning(
                "%s: %d nuclei were cut off by their tile; a larger tiles.halo_um keeps them whole",
                slide_id,
                tally.n_clipped,
            )
        self._show(slide_id)

    def slide_failed(self, slide_id: str, message: str) -> None:
        """A slide has no result."""
        self.counts.failed += 1
        self.counts.unopened += slide_id not in self.working
        done, n = self.working.pop(slide_id, (0, 0))
        self.counts.partitions -= n - done  # Nobody will do them now.
        log.error("%s failed. %s", slide_id, message)
        self._show(slide_id)

    def snapshot(self, state: str) -> dict[str, Any]:
        """What ``progress.json`` says now; ``state`` is running, done or stopped."""
        counts, tally, seconds = self.counts, self.tally, time.monotonic() - self.began
        slowest = find_bottleneck(tally)
        return {
            "state": state,
            "host": platform.node(),
            "process": os.getpid(),
            "began": self.began_at,
            "updated": _now(),
            "seconds": round(seconds, 1),
            "seconds_left": self.seconds_left() if state == "running" else 0,
            "slides": {
                "all": counts.slides,
                "there_already": counts.kept,
                "done": counts.done,
                "failed": counts.failed,
                "working": {
                    name: {"partitions_done": done, "partitions": n}
                    # A copy: slides come and go while the thread looks.
                    for name, (done, n) in self.working.copy().items()
                },
            },
            "partitions": {
                "done": counts.partitions_there + counts.partitions_done,
                "expected": round(counts.partitions_expected),
            },
            "mm2": round(tally.area_mm2, 4),
            "cells": tally.n_cells,
            "mm2_per_second": round(tally.area_mm2 / max(seconds, 1e-9), 4),
            "cells_per_second": round(tally.n_cells / max(seconds, 1e-9), 1),
            "stage_seconds": {name: round(value, 2) for name, value in tally.seconds.items()},
            "slowest_stage": slowest.stage if slowest else None,
            "slowest_stage_share": slowest.share if slowest else None,
            "advice": slowest.advice if slowest else None,
        }

    def seconds_left(self) -> int | None:
        """Guessed from the partitions done so far; None before the first."""
        counts = self.counts
        if not counts.partitions_done:
            return None
        left = counts.partitions_expected - counts.partitions_there - counts.partitions_done
        return round((time.monotonic() - self.began) * left / counts.partitions_done)

    def _show(self, slide_id: str) -> None:
        now = time.monotonic()
        if self.bar is not None and self.task is not None:
            self.bar.update(
                self.task,
                total=self.counts.partitions_expected,
                completed=self.counts.partitions_there + self.counts.partitions_done,
                description=f"{slide_id} ({self._line()})",
            )
        elif now - self.last_line > LOG_EVERY_SECONDS:
            self.last_line = now
            log.info("%s", self._line())

    def _line(self) -> str:
        counts, tally = self.counts, self.tally
        seconds = max(time.monotonic() - self.began, 1e-9)
        left, slowest = self.seconds_left(), find_bottleneck(tally)
        parts = [
            f"{counts.ended}/{counts.slides} slides",
            f"{counts.partitions_there + counts.partitions_done} of about "
            f"{counts.partitions_expected:.0f} partitions",
            f"{tally.area_mm2:.1f} mm2",
            f"{tally.n_cells} cells",
            f"{tally.area_mm2 / seconds:.2f} mm2/s",
        ]
        if left is not None:
            parts.append(f"{left // 60} min {left % 60} s left")
        if slowest is not None:
            parts.append(f"slowest: {slowest.stage} {slowest.share:.0%}")
        return ", ".join(parts)

    def _keep_writing(self) -> None:
        is_remote = self.folder.remote is not None
        while not self._ended.wait(OBJECT_EVERY_SECONDS if is_remote else FILE_EVERY_SECONDS):
            self._write("running")

    def _write(self, state: str) -> None:
        """A run does not end because its progress cannot be told."""
        if not self.folder.root.is_dir():
            return  # Gone; what is written now would lie in another folder of that name.
        path = self.folder.table(PROGRESS_FILE)
        with suppress(StoreError, StorageError, RunStopped):
            self.still_ours()
            write_json(path, self.snapshot(state))
            self.folder.publish(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _make_bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
