"""Where everything of a training lies, and what it may be continued with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_wsi.arrays import AnyArray
from ccrl_wsi.config import Section
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.settings_tree import differences
from pipelines.output_folder import check_writable, read_json, write_json


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
        """What the training of an encoder is for."""
        return self.root / "encoder.safetensors"

    @property
    def segmenter(self) -> Path:
        """What the training of a segmenter is for."""
        return self.root / "segmenter.safetensors"

    @property
    def scores(self) -> Path:
        """How the finished segmenter does on the images held back."""
        return self.root / "scores.csv"


def claim_training(
    root: Path, deciding: Mapping[str, Any], fingerprint: str, learned_from: str
) -> TrainFolder:
    """Make the folder, or check that the training in it is the same one.

    Parameters
    ----------
    deciding
        The settings that decide what comes out: :func:`deciding_settings`.
    fingerprint
        Of the training set: :func:`fingerprint_of`.
    learned_from
        What the training set is made of: ``crops`` or ``fields``.

    Raises
    ------
    ConfigError
        If the folder cannot be written, or holds a training with other settings or another
        training set.
    """
    check_writable(root)
    folder = TrainFolder(root.resolve())
    if not folder.about.exists():
        write_json(folder.about, {"settings": deciding, learned_from: fingerprint})
        return folder
    found = read_json(folder.about)
    changed = differences(found.get("settings", {}), deciding)
    if found.get(learned_from) != fingerprint:
        changed.append(f"the {learned_from} are others")
    if changed:
        raise ConfigError(
            f"{root} holds a training with other settings ({'; '.join(changed)}). Train with the "
            "same settings to continue it, or give another folder with -o."
        )
    return folder


def fingerprint_of(arrays: Iterable[AnyArray]) -> str:
    """Sixteen hex digits that change with any value of the ``arrays`` of a training set."""
    digest = hashlib.sha256()
    for number, array in enumerate(arrays):
        if number == 0:
            digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def deciding_settings(
    settings: Section, free_to_change: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """``settings`` as plain JSON without those that decide nothing, by section."""
    tree: dict[str, Any] = settings.model_dump(mode="json")
    for section, names in free_to_change.items():
        for name in names:
            del tree[section][name]
    return tree
