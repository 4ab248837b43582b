"""The one training loop. It knows learners, moments, processes and row numbers, nothing else.

Numbers leave the device only at readings, every ``log_every_steps`` steps. There all processes
agree: on the means they log, on whether a loss is no longer a number, on whether it is time to save
and on whether somebody asked to stop. So no process waits for one that has left.

Ctrl-C (SIGINT) and SIGTERM: one process finishes its step; several go on to the next reading, where
they agree to stop. Then the first saves, and all raise ``KeyboardInterrupt`` or
``SystemExit(143)``. In one process a second signal stops at once, without saving. torchrun passes
the signal on to all processes and ends those that are still there after 30 seconds. An error that
only one process meets, such as a full disk, leaves the others waiting until torchrun ends them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.training.batches import Batches
from ccrl_wsi.training.distributed import sum_over_processes
from ccrl_wsi.training.learner import Learner, Moment, World
from ccrl_wsi.training.stop_signals import StopSignals

ALONE = World()


@dataclass(frozen=True, slots=True)
class Reading:
    """What was measured at a step.

    Parameters
    ----------
    moment
        The step.
    metrics
        What the learner returned at this step; means over the processes.
    crops_per_second
        Of all processes together, since the last reading, without the time it took to save.
    """

    moment: Moment
    metrics: dict[str, float]
    crops_per_second: float


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a training calls, in the first process only, and how often.

    Parameters
    ----------
    on_step
        After every step, with its moment; the device may be behind. Must be quick.
    on_reading
        At step 0, every ``log_every_steps`` steps, and at the last step.
    save
        With the number of steps done and the state; returns when it is written. Called at
        readings, at the end and when asked to stop.
    save_every_s
        Seconds between two calls of ``save``, at least.
    """

    on_step: Callable[[Moment], None] | None = None
    on_reading: Callable[[Reading], None] | None = None
    save: Callable[[int, dict[str, Tensor]], None] | None = None
    save_every_s: float = 300.0
    log_every_steps: int = 10


SILENT = Hooks()


def train(
    learner: Learner,
    batches: Batches,
    n_steps: int,
    *,
    start_step: int = 0,
    world: World = ALONE,
    hooks: Hooks = SILENT,
) -> None:
    """Train from ``start_step`` to ``n_steps`` steps done.

    A learner that has loaded the state saved after ``start_step`` steps goes on as if it had never
    stopped.

    Raises
    ------
    ConfigError
        If more steps are done than asked for, or processes cannot share a batch equally.
    ModelError
        If a loss or the state is no longer finite. Such a state is never given to ``save``.
    KeyboardInterrupt, SystemExit
        After saving, when asked to stop.
    """
    _check(batches, n_steps, start_step, world)
    run = _Run(learner, batches, world, hooks)
    with StopSignals(at_once_when_repeated=world.size == 1) as stop:
        for step in range(start_step, n_steps):
            moment = Moment(step, n_steps, batches.steps_per_epoch)
            run.learn(moment)
            is_last = step == n_steps - 1
            if is_last or step % hooks.log_every_steps == 0:
                shall_stop, shall_save = run.read(moment, stop.asked)
            else:
                shall_stop, shall_save = stop.asked and world.size == 1, False
            if is_last or shall_stop or shall_save:
                run.save(moment)
            if shall_stop:
                stop.follow()


class _Run:
    """One call of ``train``: clocks, and what has not left the device yet."""

    def __init__(self, learner: Learner, batches: Batches, world: World, hooks: Hooks) -> None:
        self._learner, self._batches, self._world, self._hooks = learner, batches, world, hooks
        self._unread: list[tuple[Moment, Tensor]] = []
        self._metrics: dict[str, Tensor] = {}
        self._read_at = self._saved_at = time.monotonic()

    def learn(self, moment: Moment) -> None:
        """Do one step; the device is not waited for."""
        metrics = self._learner.step(self._batches.rows(moment.step), moment)
        self._metrics = {name: value.detach() for name, value in metrics.items()}
        self._unread.append((moment, self._metrics["loss"]))
        if self._hooks.on_step and self._world.is_first:
            self._hooks.on_step(moment)

    def read(self, moment: Moment, is_asked_to_stop: bool) -> tuple[bool, bool]:
        """Fetch the numbers of all processes; whether all shall stop, and whether save."""
        is_time = time.monotonic() - self._saved_at >= self._hooks.save_every_s
        said = (float(is_asked_to_stop), float(is_time and self._world.is_first))
        values = self._fetch(list(self._metrics.values()), said)
        stop, save = values[-2:]
        now = time.monotonic()
        n_steps, self._unread = len(self._unread), []
        if self._hooks.on_reading and self._world.is_first:
            metrics = {k: v / self._world.size for k, v in zip(self._metrics, values, strict=False)}
            speed = n_steps * self._batches.batch_size / max(now - self._read_at, 1e-9)
            self._hooks.on_reading(Reading(moment, metrics, speed))
        self._read_at = now
        return stop > 0, save > 0

    def save(self, moment: Moment) -> None:
        """Give the state after the step to the hook, if all in it is finite."""
        started = time.monotonic()
        if self._unread:  # only when alone: several processes save just after a reading
            self._fetch([], ())
        state = self._learner.state()
        # The state is the same in all processes: they find the same and raise together.
        _check_state(state, moment)
        if self._hooks.save and self._world.is_first:
            self._hooks.save(moment.step + 1, state)
        self._saved_at = time.monotonic()
        self._read_at += self._saved_at - started

    def _fetch(self, scalars: list[Tensor], said: tuple[float, ...]) -> list[float]:
        """Sums over the processes of ``scalars`` and ``said``; all unread losses are looked at."""
        losses = [loss for _, loss in self._unread]
        device = losses[0].device
        numbers = torch.stack([t.to(device, torch.float32).reshape(()) for t in losses + scalars])
        joined = torch.cat([numbers, torch.tensor(said, dtype=torch.float32, device=device)])
        values = sum_over_processes(joined).tolist()
        for (moment, _), value in zip(self._unread, values, strict=False):
            if not math.isfinite(value):
                raise ModelError(f"The loss is {value} at {_place(moment)}. {_WHAT_TO_TRY}")
        return list(map(float, values[len(losses) :]))


_WHAT_TO_TRY = (
    "Lower schedule.learning_rate, raise schedule.warmup_epochs or set compute.precision=float32; "
    "the state that was saved last is as it was."
)


def _place(moment: Moment) -> str:
    return f"step {moment.step} (epoch {moment.epoch:.2f})"


def _check(batches: Batches, n_steps: int, start_step: int, world: World) -> None:
    if start_step > n_steps:
        raise ConfigError(
            f"{start_step} steps are done, more than the {n_steps} asked for. "
            "Raise schedule.epochs, or train into a new folder."
        )
    if batches.batch_size % world.size:
        raise ConfigError(
            f"schedule.batch_size={batches.batch_size} cannot be shared by {world.size} processes "
            f"equally. Set it to a multiple of {world.size}."
        )


def _check_state(state: dict[str, Tensor], moment: Moment) -> None:
    floats = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    if not floats:
        return
    finite = [torch.isfinite(tensor).all() for tensor in floats.values()]
    # Brought together on one device, so that it is waited for once.
    flags = torch.stack([flag.to(finite[-1].device) for flag in finite]).tolist()
    for name, is_finite in zip(floats, flags, strict=True):
        if not is_finite:
            raise ModelError(
                f"{name!r} of the state is no longer finite after {_place(moment)}. {_WHAT_TO_TRY}"
            )
