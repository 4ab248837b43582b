"""Encoders by name. Adding one is a file, a line here, and a passing contract suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ccrl_wsi.config import CropSettings, EmbeddingSettings
from ccrl_wsi.devices import resolve_device
from ccrl_wsi.embeddings.checkpoint import check_crop_rule, read_header
from ccrl_wsi.embeddings.morphology import Morphology
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.interfaces import Encoder

ENCODERS: dict[str, Callable[[], Encoder]] = {"morphology": Morphology}
"""The encoders that need no file."""


def make_encoder(settings: EmbeddingSettings, device: str) -> Encoder:
    """The encoder that ``settings.encoder`` names, ready on ``device`` (or ``auto``).

    Raises
    ------
    ConfigError
        If there is no such encoder.
    ModelError
        If it is a checkpoint that cannot be used.
    """
    if settings.encoder in ENCODERS:
        return ENCODERS[settings.encoder]()
    path = _checkpoint_path(settings.encoder)
    from ccrl_wsi.embeddings.ccrl_encoder import CcrlEncoder

    return CcrlEncoder(path, resolve_device(device), settings.batch_size)


def check_encoder(settings: EmbeddingSettings, crops: CropSettings, mpp: float) -> None:
    """Find out, before any slide is opened and without torch, whether the encoder can be used.

    Raises
    ------
    ConfigError
        If there is no such encoder, or crops are cut in another way than it was trained for.
    ModelError
        If it is a checkpoint that is missing, damaged or foreign.
    """
    if settings.encoder not in ENCODERS:
        check_crop_rule(read_header(_checkpoint_path(settings.encoder)), crops, mpp)


def _checkpoint_path(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.suffix and len(path.parts) < 2:
        raise ConfigError(
            f"Unknown encoder {name!r}. Set embedding.encoder to {', '.join(ENCODERS)} or to the "
            "path of a CCRL checkpoint (.safetensors)."
        )
    return path
