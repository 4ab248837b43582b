"""Trains a segmenter on fields: one step after the other, as the loop asks.

Several processes see the views that one would; but each weighs the pixels of its own share, so that
they train nearly, not exactly, as one would.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.devices import move_to
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.training.field_set import FieldSet
from ccrl_wsi.training.field_views import draw_places, gather, read_views, view_share
from ccrl_wsi.training.kept_tensors import named, under
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.momentum import follow
from ccrl_wsi.training.optimisation import Optimisation
from ccrl_wsi.training.segment_losses import hard_dice, probability_losses, separation_loss
from ccrl_wsi.training.segment_settings import FieldViewSettings, SegmentTrainSettings
from ccrl_wsi.training.settings import ViewSettings
from ccrl_wsi.training.view_change import make_changes
from ccrl_wsi.training.view_parameters import draw_views
from ccrl_wsi.training.views import COLOUR_CHANGES

_MODEL, _AVERAGE, _OPTIMISER = "model/", "average/", "optimiser/"
EARLY_STEPS = 10
"""The running mean of weights forgets its beginning within about so many steps."""


class SegmentLearner:
    """The network, the running mean of its weights, its optimiser and the fields.

    Parameters
    ----------
    fields
        The training set; kept on the device as bytes.
    network
        Takes (n, 3, h, w) in 0..255, gives (n, 4, h, w): the logit of being nucleus, depth,
        offset x and y; moved to ``device``.
    settings
        The whole tree.
    device
        ``cpu``, ``cuda`` or ``cuda:N``.
    world
        The processes that train together.
    """

    def __init__(
        self,
        fields: FieldSet,
        network: nn.Module,
        settings: SegmentTrainSettings,
        device: str,
        world: World,
    ) -> None:
        self._settings, self._device, self._world = settings, torch.device(device), world
        self._rgb, self._targets = (
            torch.from_numpy(array).permute(0, 3, 1, 2).contiguous().to(self._device)
            for array in (fields.rgb, fields.targets)
        )
        self._scale = settings.network.mpp / fields.mpp
        self._colours = _colour_settings(settings.views)
        self.network = network.train()
        self._layout = move_to(network, self._device)
        self.average = copy.deepcopy(network).eval()
        if settings.compute.compile:
            network.compile()
        self._optimisation = Optimisation(
            network.named_parameters(), settings.schedule, settings.compute.precision
        )

    def step(self, rows: IntArray, moment: Moment) -> dict[str, Tensor]:
        """One step on the fields ``rows``; see :class:`ccrl_wsi.training.learner.Learner`."""
        pixels, drawn, weight = self._views(rows, moment)
        inside = drawn[:, 0]
        loss = self._settings.loss
        with self._optimisation.autocast():
            found = self.network((pixels * 255).contiguous(memory_format=self._layout))
        entropy, dice = probability_losses(found[:, 0], inside, weight)
        depth = separation_loss(found[:, 1:2], drawn[:, 1:2], inside, weight)
        offset = separation_loss(found[:, 2:], drawn[:, 2:], inside, weight)
        total = entropy + loss.dice_weight * dice
        total = total + loss.depth_weight * depth + loss.offset_weight * offset
        self._optimisation.step(total, moment)
        self._follow(moment)
        return {
            "loss": total.detach(),
            "entropy": entropy.detach(),
            "depth": depth.detach(),
            "offset": offset.detach(),
            "dice": hard_dice(found[:, 0], inside, weight).float(),
        }

    def state(self) -> dict[str, Tensor]:
        """Network, running mean and optimiser."""
        return {
            **named(_MODEL, self.network.state_dict()),
            **named(_AVERAGE, self.average.state_dict()),
            **named(_OPTIMISER, self._optimisation.state()),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self.network.load_state_dict(under(_MODEL, state))
        self.average.load_state_dict(under(_AVERAGE, state))
        self._optimisation.load_state(under(_OPTIMISER, state))

    @torch.no_grad()
    def _views(self, rows: IntArray, moment: Moment) -> tuple[Tensor, Tensor, Tensor]:
        """Own share of the step's views: pixels in 0..1, maps and weights."""
        views, seed = self._settings.views, self._settings.seed
        mine = self._world.share(len(rows))
        share = view_share(views.side_px, self._scale[rows], self._rgb.shape[-1])
        places = draw_places(
            views, self._scale[rows], share, rng_for(seed, "places", str(moment.step))
        )
        colours = draw_views(
            self._colours, len(rows), rng_for(seed, "colours", str(moment.step)), cropped=False
        )
        noise = draw_noise(views, len(rows), rng_for(seed, "noise", str(moment.step)))
        numbers = range(len(rows))[mine]
        own = rows[mine]
        pixels, maps, weight = read_views(
            gather(self._rgb, own), gather(self._targets, own), places.part(mine), views.side_px
        )
        part = colours.part(mine)
        pixels = make_changes(pixels, [change(part) for change in COLOUR_CHANGES])
        for view, number, sigma in zip(pixels, numbers, noise[mine], strict=True):
            if sigma > 0:
                view += sigma * self._grain(moment, number, view)
        return pixels.clamp_(0, 1), maps, weight

    def _grain(self, moment: Moment, number: int, view: Tensor) -> Tensor:
        """Noise of unit variance that belongs to a view, whichever process and device makes it."""
        rng = rng_for(self._settings.seed, "grain", str(moment.step), str(number))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        grain = torch.randn(view.shape, generator=generator)
        grain = grain.pin_memory() if view.is_cuda else grain
        return grain.to(view.device, non_blocking=True)

    def _follow(self, moment: Moment) -> None:
        memory = min(self._settings.export.average, (1 + moment.step) / (EARLY_STEPS + moment.step))
        follow(self.average, self.network, memory)
        # The running mean never sees a batch: what is known of its statistics is the network's.
        buffers = dict(self.network.named_buffers())
        for name, buffer in self.average.named_buffers():
            buffer.copy_(buffers[name])


def draw_noise(settings: FieldViewSettings, n: int, rng: np.random.Generator) -> np.ndarray:
    """Standard deviations (n,) of the noise of views; 0: none."""
    u = rng.random((n, 2))
    return np.where(u[:, 0] < settings.p_noise, u[:, 1] * settings.noise, 0.0)


def _colour_settings(views: FieldViewSettings) -> ViewSettings:
    """The colour changes as those of an encoder's views; nothing is moved by them."""
    shared = set(ViewSettings.model_fields) & set(FieldViewSettings.model_fields)
    chosen = {name: getattr(views, name) for name in shared}
    return ViewSettings(cropped="none", p_flip=0, p_rotate=0, **chosen)
