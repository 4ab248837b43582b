"""What every training does: go on where it was, learn, write states and curves, show progress."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccrl_wsi.errors import StoreError
from ccrl_wsi.provenance import versions
from ccrl_wsi.training.batches import Batches
from ccrl_wsi.training.curves import draw_curves
from ccrl_wsi.training.distributed import gather_rows, join_world, leave_world
from ccrl_wsi.training.learner import Learner, Moment, World
from ccrl_wsi.training.loop import Hooks, Reading, train
from ccrl_wsi.training.metric_log import MetricLog, read_metrics
from ccrl_wsi.training.settings import TrainComputeSettings
from ccrl_wsi.training.state_file import load_state, save_state
from pipelines.folder_lock import exclusive
from pipelines.train_folder import TrainFolder, claim_training
from pipelines.train_progress import TrainProgress

log = logging.getLogger("ccrl_wsi")


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What is learned from, as a training's folder remembers it.

    Parameters
    ----------
    what
        ``crops`` or ``fields``.
    fingerprint
        Of their values.
    deciding
        The settings that decide what comes out.
    """

    what: str
    fingerprint: str
    deciding: Mapping[str, Any]


Rates = Callable[[Moment], dict[str, float]]


@dataclass(frozen=True, eq=False, slots=True)
class TrainingRun:
    """A learner, its batches and its files.

    Parameters
    ----------
    n_steps
        Of the whole training.
    device, world
        Where it runs, and with whom.
    rates
        What is logged of a moment besides the learner's metrics.
    unit
        What is learned from, for people.
    """

    learner: Learner
    batches: Batches
    folder: TrainFolder
    n_steps: int
    compute: TrainComputeSettings
    device: str
    world: World
    rates: Rates
    unit: str = "crops"

    def run(self) -> None:
        """Do the steps that are missing.

        Raises
        ------
        StoreError
            If processes that train together found different states.
        ModelError
            If the loss is no longer a number.
        """
        start_step = self._resume()
        if start_step >= self.n_steps:
            log.info("The training is finished: %d steps", start_step)
            return
        metric_log, progress = None, None
        if self.world.is_first:
            metric_log = MetricLog(self.folder.metrics, start_step, self.rates)
            progress = TrainProgress(self.n_steps, start_step, self.unit)
        with progress or nullcontext():
            train(
                self.learner,
                self.batches,
                self.n_steps,
                start_step=start_step,
                world=self.world,
                hooks=self._hooks(metric_log, progress),
            )

    def _resume(self) -> int:
        start_step = 0
        if self.folder.state.exists():
            saved = load_state(self.folder.state)
            self.learner.load_state(saved.tensors)
            start_step = saved.step
            log.info("Going on after step %d of %d", start_step, self.n_steps)
        if not all_have(start_step, self.device, self.world):
            raise StoreError(
                f"The processes that train together found different states in {self.folder.root}. "
                "Give all of them the same folder (-o), on a disk that all machines see."
            )
        return start_step

    def _hooks(self, metric_log: MetricLog | None, progress: TrainProgress | None) -> Hooks:
        if metric_log is None or progress is None:
            return Hooks(log_every_steps=self.compute.log_every_steps)

        def on_reading(reading: Reading) -> None:
            metric_log.append(reading)
            progress.read(reading)

        def save(step: int, state: dict[str, Any]) -> None:
            save_state(self.folder.state, step, state, {"versions": versions()})
            draw_curves(read_metrics(self.folder.metrics), self.folder.curves)

        return Hooks(
            on_step=progress.step_done,
            on_reading=on_reading,
            save=save,
            save_every_s=60 * self.compute.save_every_minutes,
            log_every_steps=self.compute.log_every_steps,
        )


@contextmanager
def together(device: str) -> Iterator[World]:
    """The processes that train, met and parted from; only the first speaks to people."""
    world = join_world(device)
    if not world.is_first:
        log.setLevel(logging.ERROR)
    try:
        yield world
    finally:
        leave_world()


@contextmanager
def claimed(
    out: Path, training_set: TrainingSet, device: str, world: World
) -> Iterator[TrainFolder]:
    """The folder of a training while nobody else works in it; the first process claims it.

    Raises
    ------
    ConfigError
        If it holds another training, or cannot be written; torchrun then ends the others.
    StoreError
        If the processes found different training sets.
    """
    what, fingerprint = training_set.what, training_set.fingerprint
    if world.size > 1 and not all_have(int(fingerprint[:15], 16), device, world):
        raise StoreError(
            f"The processes that train together found different {what}. Give all of them the same "
            "data and settings."
        )
    if not world.is_first:
        yield TrainFolder(out.resolve())
        return
    folder = claim_training(out, training_set.deciding, fingerprint, what)
    with exclusive(folder.root):
        yield folder


def all_have(number: int, device: str, world: World) -> bool:
    """Whether all processes call this with the same number."""
    import torch

    if world.size == 1:
        return True
    found = gather_rows(torch.tensor([number], device=device))
    return len(set(found.tolist())) == 1
