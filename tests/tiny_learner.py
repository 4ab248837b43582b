"""A learner with all that can go wrong: normalisation, a queue, noise, Adam. Quick on one core."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.training.batch_normalisation import over_all_processes
from ccrl_wsi.training.distributed import gather_rows
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.optimisation import Optimisation
from ccrl_wsi.training.settings import ScheduleSettings

SCHEDULE = ScheduleSettings(learning_rate=0.01, warmup_epochs=0.5, weight_decay=0.01)
N_IMAGES, BATCH = 40, 8


class TinyLearner:
    """A momentum-free MoCo on 8 x 8 images of noise."""

    def __init__(self, world: World | None = None, device: str = "cpu") -> None:
        self.world, self.device = world or World(), device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.images = torch.randn(N_IMAGES, 3, 8, 8).to(device)
            net = nn.Sequential(
                nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
                nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                nn.Linear(24, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4),
            )  # fmt: skip
            self.queue = normalize(torch.randn(20, 4)).to(device)
        self.net = over_all_processes(net.to(device), device)
        self.optimisation = Optimisation(self.net.named_parameters(), SCHEDULE, "float32")

    def step(self, rows: IntArray, moment: Moment) -> dict[str, Tensor]:
        own = self.world.share(len(rows))
        noise = rng_for(5, "noise", f"step {moment.step}").normal(size=(len(rows), 3, 8, 8))
        images = self.images[torch.from_numpy(rows[own])]
        changed = images + torch.from_numpy(noise[own].astype(np.float32)).to(self.device)
        with torch.no_grad():
            keys = normalize(self.net(images))
        queries = normalize(self.net(changed))
        logits = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ self.queue.T], 1) / 0.2
        loss = cross_entropy(logits, torch.zeros(len(keys), dtype=torch.long, device=self.device))
        self.optimisation.step(loss, moment)
        place = (moment.step * len(rows) + np.arange(len(rows))) % len(self.queue)
        self.queue[torch.from_numpy(place)] = gather_rows(keys)
        return {"loss": loss, "alignment": (queries * keys).sum(1).mean()}

    def state(self) -> dict[str, Tensor]:
        net = {f"net/{name}": tensor.clone() for name, tensor in self.net.state_dict().items()}
        adam = {f"adam/{name}": tensor for name, tensor in self.optimisation.state().items()}
        return {**net, **adam, "queue": self.queue.clone()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict(part(state, "net/"))
        self.optimisation.load_state(part(state, "adam/"))
        self.queue = state["queue"].clone().to(self.device)


def part(state: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {k.removeprefix(start): t for k, t in state.items() if k.startswith(start)}
