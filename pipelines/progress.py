"""What a person sees while a cohort is worked on."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from pipelines.jobs import SlidePlan, Tally
from pipelines.state import SlideState

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

log = logging.getLogger("ccrl_wsi")

LOG_EVERY_SECONDS = 30.0


class Progress:
    """A bar with rate and time left on a terminal, plain lines otherwise.

    The number of partitions is known for slides that were opened; the rest counts as if it were
    like those.
    """

    def __init__(self, n_slides: int) -> None:
        self.n_slides = n_slides
        self.n_begun = self.n_ended = 0
        self.n_partitions = self.n_partitions_done = 0
        self.tally = Tally()
        self.began = self.last_line = time.monotonic()
        self.bar: Bar | None = _make_bar() if sys.stderr.isatty() else None
        self.task: TaskID | None = None

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task("slides", total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, sentence: str) -> None:
        """A sentence that must not be missed."""
        log.warning("%s", sentence)

    def slide_is_there(self, state: SlideState) -> None:
        """The slide was finished by an earlier run."""
        self.n_begun += 1
        self.n_ended += 1
        log.info("%s: cells are up to date (%d)", state.slide_id, state.tally.n_cells)

    def slide_begins(self, plan: SlidePlan, n_done: int, tally: Tally) -> None:
        """A slide was cut into partitions, ``n_done`` of which an earlier run committed."""
        self.n_begun += 1
        n = len(plan.partitions)
        self.n_partitions += n
        self.n_partitions_done += n_done
        resumed = f", {n_done} there already ({tally.n_cells} cells)" if n_done else ""
        log.info(
            "%s: %.2f mm2 of tissue, %d partitions%s", plan.slide_id, plan.tissue_mm2, n, resumed
        )

    def partition_done(self, slide_id: str, tally: Tally) -> None:
        """A partition was committed."""
        self.n_partitions_done += 1
        self.tally += tally
        self._show(slide_id)

    def slide_done(self, slide_id: str, tally: Tally) -> None:
        """A slide's store is complete."""
        self.n_ended += 1
        log.info("%s: %d cells", slide_id, tally.n_cells)
        if tally.n_clipped:
            log.warning(
                "%s: %d nuclei were cut off by their tile; a larger tiles.halo_um keeps them whole",
                slide_id,
                tally.n_clipped,
            )

    def slide_failed(self, slide_id: str, message: str) -> None:
        """A slide has no result."""
        self.n_ended += 1
        log.error("%s failed. %s", slide_id, message)

    def expected_partitions(self) -> float:
        """Partitions of the cohort, guessed for slides that were not opened yet."""
        return self.n_partitions * self.n_slides / max(1, self.n_begun)

    def _show(self, slide_id: str) -> None:
        seconds = max(time.monotonic() - self.began, 1e-9)
        rate = (
            f"{self.tally.area_mm2 / seconds:.2f} mm2/s, {self.tally.n_cells / seconds:.0f} cells/s"
        )
        if self.bar is not None and self.task is not None:
            self.bar.update(
                self.task,
                total=self.expected_partitions(),
                completed=self.n_partitions_done,
                description=f"{slide_id} ({self.n_ended}/{self.n_slides} slides, {rate})",
            )
        elif time.monotonic() - self.last_line > LOG_EVERY_SECONDS:
            self.last_line = time.monotonic()
            log.info(
                "%d of about %.0f partitions, %d of %d slides, %s",
                self.n_partitions_done,
                self.expected_partitions(),
                self.n_ended,
                self.n_slides,
                rate,
            )


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
