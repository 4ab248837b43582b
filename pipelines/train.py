"""`ccrl-wsi train`: crops in, encoder out. The order of work; no formula.

Under torchrun every process runs this file; the first writes and speaks.
"""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.devices import resolve_device
from ccrl_wsi.embeddings.network import ARCHITECTURES, build_network, n_dimensions
from ccrl_wsi.embeddings.resnet import PLAIN_RESNETS, imagenet_weights
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.provenance import versions
from ccrl_wsi.training.batch_normalisation import over_all_processes
from ccrl_wsi.training.batches import Batches
from ccrl_wsi.training.ccrl_learner import CcrlLearner
from ccrl_wsi.training.ccrl_model import CcrlModel, ContrastiveModel
from ccrl_wsi.training.curves import draw_curves
from ccrl_wsi.training.distributed import gather_rows, gather_with_gradient, join_world, leave_world
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.metric_log import read_metrics
from ccrl_wsi.training.schedules import key_momentum, learning_rate
from ccrl_wsi.training.settings import NetworkSettings, TrainSettings
from ccrl_wsi.training.simclr_model import SimclrModel
from pipelines.crop_sets import gather_crops
from pipelines.encoder_file import EncoderPlan, write_encoder
from pipelines.folder_lock import exclusive
from pipelines.train_folder import (
    TrainFolder,
    claim_training,
    deciding_settings,
    fingerprint_of,
)
from pipelines.training_run import TrainingRun, check_same_data

log = logging.getLogger("ccrl_wsi")

FREE_TO_CHANGE = {"data": ("path", "cache"), "compute": ("save_every_minutes",)}
"""What a continued training may be given anew: it decides neither weights nor what is logged."""

NOT_IN_ENCODERS: dict[str, bool | set[str]] = {"compute": True, "data": {"path", "cache"}}
"""Settings an encoder does not tell: the machine, and where on it files lie."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to."""

    encoder: Path
    n_crops: int
    n_steps: int
    seconds: float


def train_encoder(settings: TrainSettings, out: Path) -> Trained:
    """Train as ``settings`` say into the folder ``out``, or go on with what is there.

    Raises
    ------
    ConfigError
        If the settings fit neither the data nor what is in the folder.
    StoreError
        If the data are damaged.
    ModelError
        If the loss is no longer a number.
    """
    device = resolve_device(settings.compute.device)
    world = join_world(device)
    if not world.is_first:
        log.setLevel(logging.WARNING)
    try:
        crops = gather_crops(settings.data, settings.seed)
        log.info("%d crops of %d images or slides", len(crops), len(crops.source_names))
        return _train_together(settings, out, crops, device, world)
    finally:
        leave_world()


def _train_together(
    settings: TrainSettings, out: Path, crops: CropSet, device: str, world: World
) -> Trained:
    began = time.monotonic()
    fingerprint = fingerprint_of_crops(crops)
    check_same_data(fingerprint, "crops", device, world)
    # If the first is refused the folder, torchrun ends the others.
    is_first = world.is_first
    deciding = deciding_settings(settings, FREE_TO_CHANGE)
    folder = (
        claim_training(out, deciding, fingerprint, "crops")
        if is_first
        else TrainFolder(out.resolve())
    )
    with exclusive(folder.root) if is_first else nullcontext():
        training = _Training(settings, folder, crops, device, world)
        training.run()
        if is_first:
            training.write_results()
    return Trained(folder.encoder, len(crops), training.n_steps, time.monotonic() - began)


class _Training:
    """One call of ``train``: the learner, its batches and its files."""

    def __init__(
        self,
        settings: TrainSettings,
        folder: TrainFolder,
        crops: CropSet,
        device: str,
        world: World,
    ) -> None:
        self._settings, self._folder, self._crops = settings, folder, crops
        schedule = settings.schedule
        batches = Batches(crops.source, schedule.batch_size, settings.seed, schedule.balance)
        self.n_steps = batches.n_steps(schedule.epochs)
        self._learner = CcrlLearner(
            crops, make_model(settings, crops.n_channels, device), settings, device, world
        )
        self._run = TrainingRun(
            self._learner,
            batches,
            folder,
            self.n_steps,
            settings.compute,
            device,
            world,
            self._rates,
        )

    def run(self) -> None:
        """Do the steps that are missing."""
        self._run.run()

    def write_results(self) -> None:
        """The curves and the encoder."""
        draw_curves(read_metrics(self._folder.metrics), self._folder.curves)
        export, network = self._settings.export, self._settings.network
        plan = EncoderPlan(network.architecture, _arguments(network, self._crops.n_channels))
        record = {
            "data": self._settings.data.kind,
            "licence": export.licence,
            "n_crops": len(self._crops),
            "crops": fingerprint_of_crops(self._crops),
            "n_steps": self.n_steps,
            "settings": self._settings.model_dump(mode="json", exclude=NOT_IN_ENCODERS),
            "versions": {name: versions()[name] for name in ("ccrl-wsi", "torch", "numpy")},
        }
        encoder = self._learner.model.encoder(export.network)
        write_encoder(self._folder.encoder, encoder, plan, self._crops, export, record)

    def _rates(self, moment: Moment) -> dict[str, float]:
        schedule = self._settings.schedule
        return {
            "learning_rate": learning_rate(moment, schedule),
            "momentum": key_momentum(moment, schedule),
        }


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
            built.load_state_dict(imagenet_weights(network.architecture))
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
    if network.architecture not in ARCHITECTURES:
        raise ConfigError(
            f"network.architecture={network.architecture}: there is {', '.join(ARCHITECTURES)}."
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


def _arguments(network: NetworkSettings, n_channels: int) -> dict[str, Any]:
    if network.architecture in PLAIN_RESNETS:
        return {"n_channels": n_channels}
    return {
        "n_channels": n_channels,
        "widths": list(network.widths),
        "stem_stride": network.stem_stride,
    }


def fingerprint_of_crops(crops: CropSet) -> str:
    """Sixteen hex digits that change with any crop, their order or their slides."""
    return fingerprint_of((crops.crops, crops.source, crops.measurements))
