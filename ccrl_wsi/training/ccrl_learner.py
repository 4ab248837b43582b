"""Trains the CCRL model on a set of crops: one step after the other, as the loop asks."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import normalize

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.devices import move_to
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.training.ccrl_model import ContrastiveModel, Outcome
from ccrl_wsi.training.device_crops import DeviceCrops
from ccrl_wsi.training.diagnostics import effective_rank, spread, uniformity
from ccrl_wsi.training.distributed import copy_from_first
from ccrl_wsi.training.kept_tensors import named, under
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.optimisation import Optimisation
from ccrl_wsi.training.schedules import key_momentum
from ccrl_wsi.training.settings import TrainSettings
from ccrl_wsi.training.view_parameters import ViewParameters, check_views, draw_pair
from ccrl_wsi.training.views import apply_view

_MODEL, _OPTIMISER, _ASSIGNMENT = "model/", "optimiser/", "assignment"
_UNASSIGNED = -1


class CcrlLearner:
    """The model, its optimiser and the crops, which stay on the device as bytes.

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
        If the views make no sense for these crops, or there are fewer crops than prototypes.
    """

    def __init__(
        self,
        crops: CropSet,
        model: ContrastiveModel,
        settings: TrainSettings,
        device: str,
        world: World,
    ) -> None:
        check_views(settings.views, crops.n_channels)
        _check_prototypes(settings.loss.prototypes, len(crops))
        self._settings, self._device, self._world = settings, torch.device(device), world
        self._crops = DeviceCrops(crops, self._device)
        self.model = model.train()
        self._layout = move_to(model, self._device)
        if settings.compute.compile:
            for network in model.encoders():
                network.compile()
        self._optimisation = Optimisation(
            model.named_parameters(), settings.schedule, settings.compute.precision
        )
        n_assigned = len(crops) if settings.loss.prototypes else 0
        self._assignment = torch.full((n_assigned,), _UNASSIGNED, device=self._device)

    def step(self, rows: IntArray, moment: Moment) -> dict[str, Tensor]:
        """One step on the ``rows``; see :class:`ccrl_wsi.training.learner.Learner`."""
        if self._assigns_now(moment):
            self._assign(moment)
        rng = rng_for(self._settings.seed, "views", str(moment.step))
        local, whole = draw_pair(self._settings.views, len(rows), rng)
        mine = self._world.share(len(rows))
        indices = self._crops.indices(rows[mine])
        pixels = self._crops.pixels(indices)
        with self._optimisation.autocast():
            outcome: Outcome = self.model(
                self._view(pixels, whole.part(mine)),
                self._view(pixels, local.part(mine)),
                indices,
                self._assignment_of(indices, moment),
            )
        self._optimisation.step(outcome.loss, moment)
        self.model.enqueue(outcome.keys, outcome.rows)
        self.model.follow(key_momentum(moment, self._settings.schedule))
        return self._metrics(outcome, moment)

    def state(self) -> dict[str, Tensor]:
        """Networks, queue, optimiser and pseudo-classes."""
        return {
            **named(_MODEL, self.model.state_dict()),
            **named(_OPTIMISER, self._optimisation.state()),
            _ASSIGNMENT: self._assignment,
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self.model.load_state_dict(under(_MODEL, state))
        self._optimisation.load_state(under(_OPTIMISER, state))
        self._assignment.copy_(state[_ASSIGNMENT])

    def _view(self, pixels: Tensor, parameters: ViewParameters) -> Tensor:
        return self._crops.normalised(apply_view(pixels, parameters)).contiguous(
            memory_format=self._layout
        )

    def _metrics(self, outcome: Outcome, moment: Moment) -> dict[str, Tensor]:
        metrics = {"loss": outcome.loss.detach(), **outcome.parts}
        every = self._settings.compute.log_every_steps
        # The loop reads only these steps; the measures are not free.
        if moment.step % every == 0 or moment.step == moment.n_steps - 1:
            keys = outcome.keys
            metrics["uniformity"] = uniformity(keys)
            metrics["spread"] = spread(keys)
            metrics["effective_rank"] = effective_rank(keys - keys.mean(dim=0))
        return metrics

    def _assignment_of(self, indices: Tensor, moment: Moment) -> Tensor | None:
        loss = self._settings.loss
        if loss.prototypes is None or moment.epoch < loss.prototype_from_epoch:
            return None
        return self._assignment[indices]

    def _assigns_now(self, moment: Moment) -> bool:
        loss = self._settings.loss
        return (
            loss.prototypes is not None
            and moment.step % moment.steps_per_epoch == 0
            and moment.epoch >= loss.prototype_from_epoch
        )

    def _assign(self, moment: Moment) -> None:
        """Pseudo-classes for an epoch: k-means on what the key network sees (ProPos)."""
        loss, seed = self._settings.loss, self._settings.seed
        vectors = normalize(self._embed(), dim=1).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise ModelError(
                f"Embeddings are no longer finite at step {moment.step} (epoch {moment.epoch:.2f})."
                " Lower schedule.learning_rate or raise schedule.warmup_epochs; the state that was "
                "saved last is as it was."
            )
        rng = rng_for(seed, "prototypes", str(moment.step))
        kmeans = KMeans(loss.prototypes, n_init=1, random_state=int(rng.integers(2**31)))
        # Threads add up in the order they finish: a resumed training would be another one.
        with threadpool_limits(1):
            found = torch.from_numpy(kmeans.fit_predict(vectors).astype(np.int64))
        # Sums on a GPU may differ in their last bits: the first process decides for all.
        self._assignment = copy_from_first(found.to(self._device))

    @torch.no_grad()
    def _embed(self) -> Tensor:
        """Embeddings (n, d) float32 of all crops by the key encoder, nothing changed in it."""
        encoder = self.model.encoder("momentum").eval()
        parts = [
            encoder(part.contiguous(memory_format=self._layout)) for part in self._crops.portions()
        ]
        encoder.train()
        return torch.cat(parts).float()


def _check_prototypes(n_prototypes: int | None, n_crops: int) -> None:
    if n_prototypes is not None and n_prototypes > n_crops:
        raise ConfigError(
            f"loss.prototypes={n_prototypes} clusters cannot be made of {n_crops} crops. "
            f"Set loss.prototypes={n_crops} or less."
        )
