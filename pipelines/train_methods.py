"""What `ccrl-wsi train` can train, by the name in ``method``: networks, learner, what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.embeddings.imagenet_weights import imagenet_weights, load_imagenet_weights
from ccrl_wsi.embeddings.network import build_network, n_dimensions
from ccrl_wsi.embeddings.resnet import PLAIN_RESNETS
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.training.batch_normalisation import over_all_processes
from ccrl_wsi.training.ccrl_learner import CcrlLearner
from ccrl_wsi.training.ccrl_model import CcrlModel, ContrastiveModel
from ccrl_wsi.training.distributed import gather_rows, gather_with_gradient
from ccrl_wsi.training.learner import Learner, Moment, World
from ccrl_wsi.training.schedules import key_momentum, learning_rate
from ccrl_wsi.training.settings import NetworkSettings, TrainSettings
from ccrl_wsi.training.simclr_model import SimclrModel
from pipelines.encoder_file import EncoderPlan

BACKBONES = ("preact_resnet18", *PLAIN_RESNETS)
"""What contrastive learning trains; the other networks belong to their methods."""

ZERO_TO_ONE, MINUS_TO_ONE = (0.0, 1.0), (0.5, 0.5)
"""Mean and deviation that leave pixels in 0..1, and that bring them to -1..1."""


@dataclass(frozen=True, eq=False, slots=True)
class Method:
    """One way to an encoder.

    Parameters
    ----------
    learner
        None where nothing is trained.
    encoder
        The network to be written, once the learner is done.
    plan
        How that network was built.
    """

    learner: Learner | None
    encoder: Callable[[], nn.Module]
    plan: EncoderPlan


def make_method(settings: TrainSettings, crops: CropSet, device: str, world: World) -> Method:
    """What ``settings.method`` names, ready to learn from ``crops``.

    Raises
    ------
    ConfigError
        If settings and crops do not fit.
    """
    return _METHODS[settings.method](settings, crops, device, world)


def rates(settings: TrainSettings) -> Callable[[Moment], dict[str, float]]:
    """What is logged of a moment besides the learner's metrics."""
    schedule = settings.schedule

    def of_moment(moment: Moment) -> dict[str, float]:
        found = {"learning_rate": learning_rate(moment, schedule)}
        if settings.method == "ccrl":
            found["momentum"] = key_momentum(moment, schedule)
        return found

    return of_moment


def make_model(settings: TrainSettings, n_channels: int, device: str) -> ContrastiveModel:
    """The model of ``settings`` for crops of ``n_channels``, with its first weights.

    Raises
    ------
    ConfigError
        If there is no such network, or its weights do not fit the crops.
    ModelError
        If ImageNet weights are asked for and cannot be had.
    """
    network = settings.network
    _check_network(settings, n_channels)
    arguments = _arguments(network, n_channels)

    def backbone() -> nn.Module:
        built = build_network(network.architecture, arguments)
        if network.pretrained:
            given = imagenet_weights(network.architecture, None, "set network.pretrained=false.")
            load_imagenet_weights(built, given, network.architecture)
        return built

    n_out = n_dimensions(network.architecture, arguments)
    given = (backbone, n_out, network, settings.loss, settings.seed)
    model: ContrastiveModel
    if settings.loss.kind == "nt_xent":
        model = SimclrModel(*given, gather_with_gradient)
    else:
        model = CcrlModel(*given, gather_rows)
    over_all_processes(model, device)
    return model


def _check_network(settings: TrainSettings, n_channels: int) -> None:
    network = settings.network
    if network.architecture not in BACKBONES:
        raise ConfigError(
            f"network.architecture={network.architecture}: there is {', '.join(BACKBONES)}."
        )
    if not network.pretrained:
        return
    if network.architecture not in PLAIN_RESNETS or n_channels != 3:
        raise ConfigError(
            f"network.pretrained: there are ImageNet weights of {', '.join(PLAIN_RESNETS)} for "
            f"three channels, not of {network.architecture} for {n_channels}. Set it to false."
        )
    if settings.loss.kind != "nt_xent":
        raise ConfigError(
            "network.pretrained is for loss.kind=nt_xent; the CCRL model starts from random "
            "weights. Set it to false."
        )


def _ccrl(settings: TrainSettings, crops: CropSet, device: str, world: World) -> Method:
    model = make_model(settings, crops.n_channels, device)
    learner = CcrlLearner(crops, model, settings, device, world)
    arguments = _arguments(settings.network, crops.n_channels)
    plan = EncoderPlan(settings.network.architecture, arguments)
    return Method(learner, lambda: learner.model.encoder(settings.export.network), plan)


def _dcae(settings: TrainSettings, crops: CropSet, device: str, world: World) -> Method:
    from ccrl_wsi.training.dcae_learner import AutoEncoder, DcaeLearner, make_decoder

    wanted = settings.dcae
    arguments = {
        "n_channels": crops.n_channels,
        "size_px": crops.size_px,
        "n_dimensions": wanted.n_dimensions,
        "n_clusters": wanted.n_clusters,
        "widths": list(wanted.widths),
    }
    plan = EncoderPlan("dcae_encoder", arguments)

    def build() -> nn.Module:
        decoder = make_decoder(crops.n_channels, crops.size_px, wanted.n_dimensions, wanted.widths)
        return AutoEncoder(_built(plan), decoder)

    model = _seeded(build, settings.seed, "dcae weights")
    assert isinstance(model, AutoEncoder)
    return Method(DcaeLearner(crops, model, settings, device, world), lambda: model.encoder, plan)


def _infogan(settings: TrainSettings, crops: CropSet, device: str, world: World) -> Method:
    from ccrl_wsi.training.infogan_learner import Gan, Generator, InfoganLearner

    wanted, n_channels = settings.infogan, crops.n_channels
    arguments = {"n_channels": n_channels, "width": wanted.width, "n_codes": wanted.n_codes}
    plan = EncoderPlan("infogan_critic", arguments, MINUS_TO_ONE)

    def build() -> nn.Module:
        generator = Generator(wanted.n_codes + wanted.noise, n_channels, wanted.width)
        return Gan(_built(plan), generator, wanted.width)

    model = over_all_processes(_seeded(build, settings.seed, "infogan weights"), device)
    assert isinstance(model, Gan)
    learner = InfoganLearner(crops, model, settings, device, world)
    return Method(learner, lambda: model.critic, plan)


def _pixels(settings: TrainSettings, crops: CropSet, device: str, world: World) -> Method:
    from ccrl_wsi.baselines.pixels import PixelBaseline

    mean, components = PixelBaseline(settings.pixels.n_components).fit(crops).directions
    arguments = {
        "n_channels": crops.n_channels,
        "size_px": crops.size_px,
        "n_components": len(components),
    }
    plan = EncoderPlan("pixel_projection", arguments, ZERO_TO_ONE)
    network = _built(plan)
    found = {"mean": torch.from_numpy(mean), "components": torch.from_numpy(components)}
    network.load_state_dict(found)
    return Method(None, lambda: network, plan)


def _untrained(settings: TrainSettings, crops: CropSet, device: str, world: World) -> Method:
    from ccrl_wsi.baselines.untrained import random_network

    arguments = _arguments(settings.network, crops.n_channels)
    plan = EncoderPlan(settings.network.architecture, arguments)
    network = random_network(partial(_built, plan), settings.seed)
    return Method(None, lambda: network, plan)


def _built(plan: EncoderPlan) -> nn.Module:
    try:
        return build_network(plan.architecture, plan.arguments)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"The network {plan.architecture} cannot be built: {error}.") from None


def _seeded(build: Callable[[], nn.Module], seed: int, what: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng_for(seed, what).integers(2**63)))
        return build()


def _arguments(network: NetworkSettings, n_channels: int) -> dict[str, Any]:
    if network.architecture in PLAIN_RESNETS:
        return {"n_channels": n_channels}
    return {
        "n_channels": n_channels,
        "widths": list(network.widths),
        "stem_stride": network.stem_stride,
    }


_METHODS: dict[str, Callable[[TrainSettings, CropSet, str, World], Method]] = {
    "ccrl": _ccrl,
    "dcae": _dcae,
    "infogan": _infogan,
    "pixels": _pixels,
    "untrained": _untrained,
}
