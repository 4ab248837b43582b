"""Trains the GAN of Hu et al. (2018): WGAN-GP with a category the critic's trunk must tell.

A step is one of the critic; at every ``critic_steps``-th one the generator learns too, and then
generator, trunk and code layer together learn to tell the category (the bound on the mutual
information of InfoGAN, Chen et al. 2016). Where ours differs from the original, or it leaves a
choice: crops are flipped at random instead of kept in four copies, so four of our epochs are one
of theirs; batches are larger than 10; the rate falls along a cosine, as in every training here;
weights start as PyTorch draws them; arithmetic is 32-bit throughout, for the penalty's second
derivative.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.training.device_crops import DeviceCrops
from ccrl_wsi.training.kept_tensors import named, under
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.losses.wasserstein import gradient_penalty
from ccrl_wsi.training.optimisation import Optimisation
from ccrl_wsi.training.settings import TrainSettings

SIZE_PX = 32
"""What the generator draws: 4 px, doubled three times."""
_MODEL = "model/"
P_FLIP = 0.5


class _UpBlock(nn.Module):
    """Doubles height and width: normalisation, ReLU, convolution, twice; added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, width, h, w) to (b, width, 2 h, 2 w)."""
        out = self.conv1(functional.relu(self.norm1(x)))
        out = functional.interpolate(functional.relu(self.norm2(out)), scale_factor=2)
        kept = functional.interpolate(self.shortcut(x), scale_factor=2)
        doubled: Tensor = self.conv2(out) + kept
        return doubled


class Generator(nn.Module):
    """(b, n_codes + noise) to images (b, n_channels, 32, 32) of -1..1."""

    def __init__(self, n_in: int, n_channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_in, width * 16),
            nn.Unflatten(1, (width, 4, 4)),
            *(_UpBlock(width) for _ in range(3)),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, n_channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Drawn cells."""
        images: Tensor = self.layers(latent)
        return images


class Gan(nn.Module):
    """Generator, critic trunk with its code layer, and the critic's score."""

    def __init__(self, critic: nn.Module, generator: nn.Module, n_dimensions: int) -> None:
        super().__init__()
        self.critic, self.generator = critic, generator
        self.score_layer = nn.Linear(n_dimensions, 1)

    def score(self, images: Tensor) -> Tensor:
        """(n,): high for what looks real."""
        scores: Tensor = self.score_layer(self.critic(images))
        return scores[:, 0]

    def code(self, images: Tensor) -> Tensor:
        """(n, n_codes) scores of the categories."""
        layer = self.critic.code
        assert isinstance(layer, nn.Module)
        scores: Tensor = layer(self.critic(images))
        return scores


class InfoganLearner:
    """The networks, their three optimisers and the crops, which stay on the device as bytes.

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
        If crops have another size than the generator draws.
    """

    def __init__(
        self, crops: CropSet, model: Gan, settings: TrainSettings, device: str, world: World
    ) -> None:
        if crops.size_px != SIZE_PX:
            raise ConfigError(
                f"method=infogan draws cells of {SIZE_PX} px; these crops have {crops.size_px}. "
                f"Set data.size_px={SIZE_PX}."
            )
        self._settings, self._device, self._world = settings, torch.device(device), world
        self._crops = DeviceCrops(crops, self._device)
        self.model = model.to(self._device).train()
        named = list(model.named_parameters())
        self._optimisers = {
            part: Optimisation(
                [(n, p) for n, p in named if n.startswith(starts)], settings.schedule, "float32"
            )
            for part, starts in _LEARNS.items()
        }

    def step(self, rows: IntArray, moment: Moment) -> dict[str, Tensor]:
        """One step on the ``rows``; see :class:`ccrl_wsi.training.learner.Learner`."""
        rng = rng_for(self._settings.seed, "infogan", str(moment.step))
        real = self._flipped(rows, rng)
        metrics = self._teach_critic(real, len(rows), rng, moment)
        if moment.step % self._settings.infogan.critic_steps == 0:
            metrics |= self._teach_generator(len(rows), rng, moment)
        return metrics

    def state(self) -> dict[str, Tensor]:
        """Networks and optimisers."""
        kept = named(_MODEL, self.model.state_dict())
        for part, optimiser in self._optimisers.items():
            kept |= named(f"{part}/", optimiser.state())
        return kept

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self.model.load_state_dict(under(_MODEL, state))
        for part, optimiser in self._optimisers.items():
            optimiser.load_state(under(f"{part}/", state))

    def _teach_critic(
        self, real: Tensor, n: int, rng: np.random.Generator, moment: Moment
    ) -> dict[str, Tensor]:
        latent, _ = self._latent(n, rng)
        share = self._mine(rng.uniform(size=n))
        with torch.no_grad():
            fake = self.model.generator(latent)
        apart = self.model.score(real).mean() - self.model.score(fake).mean()
        penalty = gradient_penalty(self.model.score, real, fake, share)
        loss = self._settings.infogan.penalty * penalty - apart
        self._optimisers["critic"].step(loss, moment)
        return {"loss": loss, "wasserstein": apart, "penalty": penalty}

    def _teach_generator(
        self, n: int, rng: np.random.Generator, moment: Moment
    ) -> dict[str, Tensor]:
        latent, _ = self._latent(n, rng)
        fooled = self.model.score(self.model.generator(latent)).mean()
        self._optimisers["generator"].step(-fooled, moment)
        latent, code = self._latent(n, rng)
        found = self.model.code(self.model.generator(latent))
        told = functional.cross_entropy(found, code)
        self._optimisers["code"].step(self._settings.infogan.code_weight * told, moment)
        return {"generator": -fooled, "code": told}

    def _latent(self, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Latent vectors (n, n_codes + noise) of this process' share, and their categories."""
        wanted = self._settings.infogan
        code = rng.integers(wanted.n_codes, size=n)
        both = np.hstack([np.eye(wanted.n_codes)[code], rng.normal(size=(n, wanted.noise))])
        return self._mine(both), self._mine(code).long()

    def _flipped(self, rows: IntArray, rng: np.random.Generator) -> Tensor:
        """Share of the crops of this process, -1..1, each mirrored left to right, up to down."""
        chosen = self._crops.indices(rows[self._world.share(len(rows))])
        images = self._crops.pixels(chosen) * 2 - 1
        for axis in (2, 3):
            is_flipped = self._mine(rng.uniform(size=len(rows)) < P_FLIP).bool()
            images = torch.where(is_flipped.view(-1, 1, 1, 1), images.flip(axis), images)
        return images

    def _mine(self, drawn: np.ndarray) -> Tensor:
        share = drawn[self._world.share(len(drawn))].astype(np.float32)
        return torch.from_numpy(share).to(self._device)


_LEARNS = {
    "critic": ("critic.trunk.", "score_layer."),
    "generator": ("generator.",),
    "code": ("generator.", "critic."),
}
"""Which parameters each of the three steps changes, by the start of their names."""
