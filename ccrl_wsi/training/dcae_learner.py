"""Trains an auto-encoder with a clustering layer (Vununu et al. 2020), by the recipe of DCEC.

First reconstruction alone; then k-means (20 starts) places the centres, and the loss is the mean
squared error of normalised pixels plus a tenth of KL(p || q). Where the sources leave a choice, or
ours differs: training ends after ``schedule.epochs``, not when fewer than 0.1 % of the cells change
their cluster (``label_change`` is logged instead); the rate falls along a cosine, as in every
training here; Adam goes on with its moments when the second part begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.training.device_crops import DeviceCrops
from ccrl_wsi.training.distributed import copy_from_first
from ccrl_wsi.training.kept_tensors import named, under
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.losses.deep_clustering import (
    divergence,
    soft_assignment,
    target_distribution,
)
from ccrl_wsi.training.optimisation import Optimisation
from ccrl_wsi.training.settings import TrainSettings

K_MEANS_STARTS = 20
_MODEL, _OPTIMISER, _TARGET, _CHANGE = "model/", "optimiser/", "target", "label_change"


def make_decoder(n_channels: int, size_px: int, n_in: int, widths: Sequence[int]) -> nn.Module:
    """(b, n_in) vectors to images of ``size_px``: the encoder backwards, linear at its end."""
    first, second, third = widths
    side = size_px // 8
    return nn.Sequential(
        nn.Linear(n_in, third * side**2),
        nn.ReLU(),
        nn.Unflatten(1, (third, side, side)),
        nn.ConvTranspose2d(third, second, 3, 2, padding=1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(second, first, 5, 2, padding=2, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(first, n_channels, 5, 2, padding=2, output_padding=1),
    )


class AutoEncoder(nn.Module):
    """Encoder and decoder; ``encoder.centres`` are those of the clusters."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


class DcaeLearner:
    """The auto-encoder, its optimiser, the targets, and the crops as bytes on the device.

    Parameters
    ----------
    crops
        The training set; labels are not looked at.
    model
        As it starts; moved to ``device``.
    settings
        The whole tree.
    device
        ``cpu``, ``cuda`` or ``cuda:N``.
    world
        The processes that train together.

    Raises
    ------
    ConfigError
        If there are fewer crops than clusters.
    """

    def __init__(
        self,
        crops: CropSet,
        model: AutoEncoder,
        settings: TrainSettings,
        device: str,
        world: World,
    ) -> None:
        k = settings.dcae.n_clusters
        if k > len(crops):
            raise ConfigError(
                f"dcae.n_clusters={k} clusters cannot be made of {len(crops)} crops. "
                f"Set dcae.n_clusters={len(crops)} or less."
            )
        self._settings, self._device, self._world = settings, torch.device(device), world
        self._crops = DeviceCrops(crops, self._device)
        self.model = model.to(self._device).train()
        self._optimisation = Optimisation(
            model.named_parameters(), settings.schedule, settings.compute.precision
        )
        self._target = torch.zeros(len(crops), k, device=self._device)
        self._change = torch.zeros((), device=self._device)

    def step(self, rows: IntArray, moment: Moment) -> dict[str, Tensor]:
        """One step on the ``rows``; see :class:`ccrl_wsi.training.learner.Learner`."""
        n_joint = self._joint_steps(moment)
        if n_joint == 0:
            self._place_centres(moment)
        if n_joint >= 0 and n_joint % self._settings.dcae.update_every_steps == 0:
            self._renew_target()
        indices = self._crops.indices(rows[self._world.share(len(rows))])
        pixels = self._crops.normalised(self._crops.pixels(indices))
        with self._optimisation.autocast():
            vectors = self.model.encoder(pixels)
            error = mse_loss(self.model.decoder(vectors).float(), pixels)
        if n_joint < 0:
            self._optimisation.step(error, moment)
            return {"loss": error, "reconstruction": error}
        q = soft_assignment(vectors.float(), self._centres)
        apart = divergence(self._target[indices], q)
        loss = error + self._settings.dcae.clustering_weight * apart
        self._optimisation.step(loss, moment)
        parts = {"reconstruction": error, "clustering": apart, "label_change": self._change}
        return {"loss": loss, **parts}

    def state(self) -> dict[str, Tensor]:
        """Networks, centres, optimiser and targets."""
        return {
            **named(_MODEL, self.model.state_dict()),
            **named(_OPTIMISER, self._optimisation.state()),
            _TARGET: self._target,
            _CHANGE: self._change,
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self.model.load_state_dict(under(_MODEL, state))
        self._optimisation.load_state(under(_OPTIMISER, state))
        self._target.copy_(state[_TARGET])
        self._change = state[_CHANGE].to(self._device)

    @property
    def _centres(self) -> Tensor:
        centres = self.model.encoder.centres
        assert isinstance(centres, Tensor)
        return centres

    def _joint_steps(self, moment: Moment) -> int:
        """Steps done with the clusters; negative before they are placed."""
        first = math.ceil(self._settings.dcae.pretrain_epochs * moment.steps_per_epoch)
        return moment.step - first

    def _place_centres(self, moment: Moment) -> None:
        k, seed = self._settings.dcae.n_clusters, self._settings.seed
        vectors = self._embed().cpu().numpy().astype(np.float64)
        state = int(rng_for(seed, "dcae centres").integers(2**31))
        # Threads add up in the order they finish: a resumed training would be another one.
        with threadpool_limits(1):
            found = KMeans(k, n_init=K_MEANS_STARTS, random_state=state).fit(vectors)
        placed = torch.from_numpy(found.cluster_centers_.astype(np.float32)).to(self._device)
        with torch.no_grad():
            self._centres.copy_(copy_from_first(placed))

    def _renew_target(self) -> None:
        with torch.no_grad():
            q = soft_assignment(self._embed(), self._centres)
        renewed = copy_from_first(target_distribution(q))
        before, now = self._target.argmax(dim=1), renewed.argmax(dim=1)
        self._change = (before != now).float().mean()
        self._target.copy_(renewed)

    @torch.no_grad()
    def _embed(self) -> Tensor:
        """Vectors (n, d) float32 of all crops."""
        return torch.cat([self.model.encoder(part) for part in self._crops.portions()]).float()
