"""`ccrl-wsi train`: crops in, encoder out. The order of work; no formula.

Under torchrun every process runs this file; the first writes and speaks.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.devices import resolve_device
from ccrl_wsi.provenance import versions
from ccrl_wsi.training.batches import Batches
from ccrl_wsi.training.curves import draw_curves
from ccrl_wsi.training.learner import World
from ccrl_wsi.training.metric_log import read_metrics
from ccrl_wsi.training.settings import ExportSettings, TrainSettings
from pipelines.crop_sets import gather_crops
from pipelines.encoder_file import write_encoder
from pipelines.train_folder import (
    TrainFolder,
    deciding_settings,
    fingerprint_of,
)
from pipelines.train_methods import make_method, rates
from pipelines.training_run import TrainingRun, TrainingSet, claimed, together

log = logging.getLogger("ccrl_wsi")

FREE_TO_CHANGE = {"data": ("path", "cache", "shapes"), "compute": ("save_every_minutes",)}
"""What a continued training may be given anew: it decides neither weights nor what is logged."""

NOT_IN_ENCODERS: dict[str, bool | set[str]] = {"compute": True, "data": {"path", "cache", "shapes"}}
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
    with together(device) as world:
        crops = gather_crops(settings.data, settings.seed)
        log.info("%d crops of %d images or slides", len(crops), len(crops.source_names))
        began = time.monotonic()
        known = TrainingSet("crops", fingerprint_of_crops(crops), what_decides(settings))
        with claimed(out, known, device, world) as folder:
            training = _Training(settings, folder, crops, device, world)
            training.run()
            if world.is_first:
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
        self._run: TrainingRun | None = None
        self._method = make_method(settings, crops, device, world)
        learner = self._method.learner
        if learner is None:
            self.n_steps = 0
            return
        self._run = TrainingRun(
            learner,
            batches,
            folder,
            self.n_steps,
            settings.compute,
            device,
            world,
            rates(settings),
        )

    def run(self) -> None:
        """Do the steps that are missing."""
        if self._run is not None:
            self._run.run()

    def write_results(self) -> None:
        """The curves and the encoder."""
        if self._run is not None:
            draw_curves(read_metrics(self._folder.metrics), self._folder.curves)
        export = named_after_method(self._settings)
        record = {
            "data": self._settings.data.kind,
            "licence": export.licence,
            "n_crops": len(self._crops),
            "crops": fingerprint_of_crops(self._crops),
            "n_steps": self.n_steps,
            "settings": self._settings.model_dump(mode="json", exclude=NOT_IN_ENCODERS),
            "versions": {name: versions()[name] for name in ("ccrl-wsi", "torch", "numpy")},
        }
        encoder, plan = self._method.encoder(), self._method.plan
        write_encoder(self._folder.encoder, encoder, plan, self._crops, export, record)


def named_after_method(settings: TrainSettings) -> ExportSettings:
    """What is told of the encoder; without a name of its own it is called after its method."""
    export = settings.export
    if "name" in export.model_fields_set:
        return export
    return export.model_copy(update={"name": settings.method})


def what_decides(settings: TrainSettings) -> dict[str, Any]:
    """The settings that decide what comes out; of the methods, only those of the one in use."""
    tree = deciding_settings(settings, FREE_TO_CHANGE)
    unused = {"dcae", "infogan", "pixels"} - {settings.method}
    if settings.method == "ccrl":
        unused.add("method")  # as folders were begun before there were others
    return {name: value for name, value in tree.items() if name not in unused}


def fingerprint_of_crops(crops: CropSet) -> str:
    """Sixteen hex digits that change with any crop, their order or their slides."""
    return fingerprint_of((crops.crops, crops.source, crops.measurements))
