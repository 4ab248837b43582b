"""Where everything of a training lies, and what it may be continued with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_wsi.arrays import AnyArray
from ccrl_wsi.config import differences
from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.training.settings import TrainSettings
from pipelines.output_folder import check_writable, read_json, write_json

FREE_TO_CHANGE = {"data": ("path", "cache"), "compute": ("save_every_minutes",)}
"""What a continued training may be given anew: it decides neither weights nor what is logged."""


@dataclass(frozen=True, slots=True)
class TrainFolder:
    """Paths inside the folder given with ``-o``."""

    root: Path

    @property
    def about(self) -> Path:
        """Settings and training set the folder was begun with."""
        return self.root / "training.json"

    @property
    def state(self) -> Path:
        """What is needed to go on."""
        return self.root / "state.safetensors"

    @property
    def metrics(self) -> Path:
        """A row a reading."""
        return self.root / "metrics.csv"

    @property
    def curves(self) -> Path:
        """The metrics as a picture."""
        return self.root / "curves.png"

    @property
    def encoder(self) -> Path:
        """What the training is for."""
        return self.root / "encoder.safetensors"


def claim_training(root: Path, settings: TrainSettings, crops: CropSet) -> TrainFolder:
    """Make the folder, or check that the training in it is the same one.

    Raises
    ------
    ConfigError
        If the folder cannot be written, or holds a training with other settings or other crops.
    """
    check_writable(root)
    folder = TrainFolder(root.resolve())
    deciding, fingerprint = _deciding(settings), fingerprint_of(crops)
    if not folder.about.exists():
        write_json(folder.about, {"settings": deciding, "crops": fingerprint})
        return folder
    found = read_json(folder.about)
    changed = differences(found.get("settings", {}), deciding)
    if found.get("crops") != fingerprint:
        changed.append("the crops are others")
    if changed:
        raise ConfigError(
            f"{root} holds a training with other settings ({'; '.join(changed)}). Train with the "
            "same settings to continue it, or give another folder with -o."
        )
    return folder


def fingerprint_of(crops: CropSet) -> str:
    """Sixteen hex digits that change with any crop, their order or their slides."""
    digest = hashlib.sha256(str(crops.crops.shape).encode())
    arrays: tuple[AnyArray, ...] = (crops.crops, crops.source, crops.measurements)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _deciding(settings: TrainSettings) -> Mapping[str, Any]:
    tree: dict[str, Any] = settings.model_dump(mode="json")
    for section, names in FREE_TO_CHANGE.items():
        for name in names:
            del tree[section][name]
    return tree
