"""What a training step costs beside its bare networks: crops per second, and the network's share.

    python benchmarks/training_step.py [-c train/ccrl_consep] [--set KEY=VALUE ...]

The bare step is what no training can do without: forward and backward of the query network and
forward of the key network, in the same precision, on normalised tensors that lie on the device.
The whole step draws and makes the views, computes the loss against the queue, and lets the
optimiser, the key network and the queue follow. Crops are noise. Medians of the rounds, taken in
turns; ratios are of one run on one machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from ccrl_wsi.config_files import find_config
from ccrl_wsi.crop_set import UNLABELLED, CropSet
from ccrl_wsi.devices import resolve_device
from ccrl_wsi.measurement_names import NAMES
from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.training.ccrl_learner import CcrlLearner
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.optimisation import Optimisation
from ccrl_wsi.training.settings import TrainSettings
from pipelines.train_methods import make_model

WARM_UP = 3


def noise_crops(n: int, size_px: int) -> CropSet:
    """``n`` crops of noise; only their number matters."""
    rng = np.random.default_rng(0)
    return CropSet(
        crops=rng.integers(0, 256, (n, size_px, size_px, 3), np.uint8),
        measurements=np.ones((n, len(NAMES)), np.float32),
        source=np.zeros(n, np.int32),
        label=np.full(n, UNLABELLED, np.int32),
        source_names=("noise",),
        class_names=(),
        scale=2.0,
        mpp=0.25,
    )


def bare_step(learner: CcrlLearner, settings: TrainSettings) -> Callable[[], None]:
    """Forward and backward of the networks alone."""
    model, n = learner.model, settings.schedule.batch_size
    parameter = next(model.parameters())
    optimisation = Optimisation(
        model.named_parameters(), settings.schedule, settings.compute.precision
    )
    side = settings.data.size_px
    views = torch.randn(n, 3, side, side, device=parameter.device)
    views = views.contiguous(memory_format=torch.channels_last)
    ways = 2 if settings.loss.symmetric else 1

    def step() -> None:
        for _ in range(ways):
            with optimisation.autocast():
                with torch.no_grad():
                    model.key_encoder(views)
                out: Tensor = model.query_encoder(views)
                loss = out.float().square().mean()
            loss.backward()

    return step


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall seconds until the device has done ``work``."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    """Print both speeds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-c", "--config", type=Path, action="append", default=[])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    files = [find_config(file) for file in asked.config]
    settings = load_tree(TrainSettings, files, asked.overrides)
    device = torch.device(resolve_device(settings.compute.device))
    n = settings.schedule.batch_size
    crops = noise_crops(4 * n, settings.data.size_px)
    model = make_model(settings, 3, device.type)
    learner = CcrlLearner(crops, model, settings, str(device), World())
    bare = bare_step(learner, settings)
    rng = np.random.default_rng(1)

    def whole() -> None:
        learner.step(rng.permutation(len(crops))[:n], Moment(1, 10_000, 100))

    for _ in range(WARM_UP):
        seconds(whole, device), seconds(bare, device)
    rounds = [(seconds(whole, device), seconds(bare, device)) for _ in range(asked.rounds)]
    step_s, bare_s = (median(column) for column in zip(*rounds, strict=True))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, {torch.get_num_threads()} threads, batch {n}, widths {settings.network.widths}")
    print(f"whole step {n / step_s:8.0f} crops/s")
    print(f"bare       {n / bare_s:8.0f} crops/s")
    print(f"the networks are {bare_s / step_s:.2f} of the step")


if __name__ == "__main__":
    main()
