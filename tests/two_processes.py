"""What each of several training processes does in ``test_distributed.py``; run as a script.

Results go to ``FOLDER/<rank>-<name>.pt``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ccrl_wsi.errors import ModelError
from ccrl_wsi.training.batch_normalisation import over_all_processes
from ccrl_wsi.training.batches import Batches
from ccrl_wsi.training.distributed import gather_rows, join_world, leave_world, sum_over_processes
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.loop import Hooks, train
from tests.tiny_learner import BATCH, N_IMAGES, TinyLearner

N_STEPS, LOG_EVERY = 12, 4


def normalised(world: World, momentum: float | None) -> dict[str, Tensor]:
    """Outputs, gradients and running statistics of a net with both normalisations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Far from 0, where single-pass variances lose their digits.
        images, slopes = torch.randn(8, 3, 4, 4) * 2 + 50, torch.randn(8, 5)
        net = nn.Sequential(
            nn.BatchNorm2d(3, momentum=momentum),
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten()),
            nn.Linear(16, 5),
            nn.BatchNorm1d(5, momentum=momentum),
            nn.BatchNorm1d(5, track_running_stats=False),
        )
    net = over_all_processes(net, "cpu")
    own = world.share(len(images))
    x = images[own].clone().requires_grad_()
    with torch.no_grad():
        net(x - 1)
    y = net(x)
    # Each loss is a mean over the share; their mean is that of the whole batch.
    (y * slopes[own]).mean().backward()
    grads = {
        f"grad {n}": sum_over_processes(p.grad) / world.size for n, p in net.named_parameters()
    }
    stats = {f"state {n}": t.clone() for n, t in net.state_dict().items()}
    with torch.no_grad():
        evaluated = net.eval()[:4](images[own])
    return {"y": gather_rows(y), "evaluated": gather_rows(evaluated), **grads, **stats} | {
        "grad x": gather_rows(x.grad) / world.size
    }


def trained(world: World) -> dict[str, Tensor]:
    learner, losses = TinyLearner(world), []
    hooks = Hooks(on_reading=lambda r: losses.append(list(r.metrics.values())), log_every_steps=4)
    train(learner, a_batch_source(), N_STEPS, world=world, hooks=hooks)
    return learner.state() | {"losses": torch.tensor(losses)}


def interrupted(world: World) -> dict[str, Tensor]:
    """Only the last process is asked to stop, in step 5, when the next reading is at step 8."""
    saved: list[int] = []
    learner = _Disturbed(world, lambda: os.kill(os.getpid(), signal.SIGINT))
    hooks = Hooks(save=lambda step, _: saved.append(step), log_every_steps=LOG_EVERY)
    try:
        train(learner, a_batch_source(), N_STEPS, world=world, hooks=hooks)
    except KeyboardInterrupt:
        return {"saved": torch.tensor(saved), "done": torch.tensor(learner.done)}
    return {}


def broken(world: World) -> dict[str, Tensor]:
    """Only the last process computes a loss that is no number, in step 5."""
    saved: list[int] = []
    learner = _Disturbed(world, lambda: torch.tensor(float("nan")))
    hooks = Hooks(
        save=lambda step, _: saved.append(step), save_every_s=0.0, log_every_steps=LOG_EVERY
    )
    try:
        train(learner, a_batch_source(), N_STEPS, world=world, hooks=hooks)
    except ModelError as error:
        in_step_5 = "at step 5 " in str(error)
        return {"saved": torch.tensor(saved), "in step 5": torch.tensor(in_step_5)}
    return {}


def gathered(world: World) -> dict[str, Tensor]:
    rows = torch.arange(6.0).reshape(2, 3) + 10 * world.rank
    return {
        "floats": gather_rows(rows.requires_grad_()),
        "turned": gather_rows(rows.T),
        "integers": gather_rows(torch.tensor([world.rank, 7])),
    }


class _Disturbed:
    """Nothing but a step that all processes take together, and trouble for the last of them."""

    def __init__(self, world, trouble):
        self.world, self.trouble, self.done = world, trouble, 0

    def step(self, rows, moment: Moment):
        loss = sum_over_processes(torch.ones(()))
        if moment.step == 5 and self.world.rank == self.world.size - 1:
            loss = self.trouble() or loss
        self.done = moment.step + 1
        return {"loss": loss}

    def state(self):
        return {"weights": torch.zeros(1)}

    def load_state(self, state):
        raise NotImplementedError


def a_batch_source() -> Batches:
    return Batches(np.zeros(N_IMAGES, int), BATCH, seed=7)


def everything(world: World) -> dict[str, dict[str, Tensor]]:
    return {
        "normalised": normalised(world, 0.1),
        "cumulated": normalised(world, None),
        "trained": trained(world),
        "gathered": gathered(world),
    }


if __name__ == "__main__":
    world = join_world("cpu")
    results = everything(world) | {"interrupted": interrupted(world), "broken": broken(world)}
    for name, tensors in results.items():
        torch.save(tensors, Path(sys.argv[1]) / f"{world.rank}-{name}.pt")
    leave_world()
