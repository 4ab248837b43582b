"""What a person sees while an encoder is trained."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from ccrl_wsi.training.learner import Moment
from ccrl_wsi.training.loop import Reading

log = logging.getLogger("ccrl_wsi")

LOG_EVERY_SECONDS = 30.0


class TrainProgress:
    """A bar with ``unit`` per second and time left on a terminal, plain lines otherwise."""

    def __init__(self, n_steps: int, start_step: int, unit: str = "crops") -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("training", total=n_steps, completed=start_step)
        self._last_line = time.monotonic()
        self._unit = unit

    def __enter__(self) -> TrainProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def step_done(self, moment: Moment) -> None:
        """A step is over."""
        self._bar.update(self._task, completed=moment.step + 1)

    def read(self, reading: Reading) -> None:
        """Numbers have come from the device."""
        text = (
            f"epoch {reading.moment.epoch:.1f}/{reading.moment.n_epochs:g}, "
            f"loss {reading.metrics['loss']:.3f}, {reading.crops_per_second:.0f} {self._unit}/s"
        )
        self._bar.update(self._task, description=text)
        is_time = time.monotonic() - self._last_line > LOG_EVERY_SECONDS
        if self._bar.disable and is_time:
            self._last_line = time.monotonic()
            log.info("%s", text)
