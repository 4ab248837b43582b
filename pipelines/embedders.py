"""Encoders by the name an evaluation calls them, with the crops each of them wants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_wsi.config import EmbeddingSettings, is_path
from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.interfaces import Encoder

if TYPE_CHECKING:
    from ccrl_wsi.embeddings.checkpoint import CheckpointHeader
    from ccrl_wsi.evaluation.protocol import Embedder
    from ccrl_wsi.evaluation.settings import EvaluateSettings


@dataclass(frozen=True, slots=True)
class CutRule:
    """How crops are cut: the window's side over the nucleus' long side, and the crop's side.

    ``shapes``: boundaries are measured too.
    """

    scale: float
    size_px: int
    shapes: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """Something to be judged.

    Parameters
    ----------
    asked
        As the user named it.
    name
        As it is called in results.
    rule
        The crops it takes.
    make
        Gives the embedder; ``CropSet``: label-free crops to normalise by.
    mpp
        The pixel size it was trained at; None: any.
    training
        What its checkpoint records of the training.
    """

    asked: str
    name: str
    rule: CutRule
    make: Callable[[CropSet], Embedder]
    mpp: float | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def check_mpp(self, crops: CropSet) -> None:
        """Refuse crops of another pixel size than those of the training.

        Raises
        ------
        ConfigError
            If they differ by more than scanners do.
        """
        from ccrl_wsi.embeddings.checkpoint import MPP_TOLERANCE

        if self.mpp is not None and not math.isclose(crops.mpp, self.mpp, rel_tol=MPP_TOLERANCE):
            raise ConfigError(
                f"The encoder {self.name} was trained at {self.mpp:g} um per pixel; these images "
                f"have {crops.mpp:g}. Resample the images, or judge it on others."
            )


@dataclass(frozen=True, slots=True)
class Finished:
    """An encoder that was trained elsewhere, or needs no training."""

    encoder: Encoder

    def fit(self, crops: CropSet) -> Encoder:
        """The encoder; the crops are not looked at."""
        return self.encoder


def find_candidate(asked: str, settings: EvaluateSettings) -> Candidate:
    """The encoder that ``asked`` names; checkpoints are opened.

    Raises
    ------
    ConfigError, ModelError
        If there is no such encoder, or its checkpoint cannot be used.
    """
    rule = CutRule(settings.data.scale, settings.data.size_px)
    if asked in BASELINES:
        return Candidate(asked, asked, rule, partial(BASELINES[asked], settings))
    from ccrl_wsi.embeddings.encoders import (
        BUNDLED,
        ENCODERS,
        NEED_OUTLINES,
        PHOTOGRAPHS,
        make_encoder,
    )

    named = [*ENCODERS, *PHOTOGRAPHS, *BUNDLED]
    if asked not in named:
        _check_file(asked, [*BASELINES, *named])
    _check_points(asked, settings)
    wanted = EmbeddingSettings(
        encoder=asked, weights=settings.imagenet_weights, batch_size=settings.batch_size
    )
    encoder = make_encoder(wanted, settings.device)
    header: CheckpointHeader | None = getattr(encoder, "header", None)
    finished = Finished(encoder)
    if header is None:
        rule = replace(rule, shapes=asked in NEED_OUTLINES)
        return Candidate(asked, encoder.name, rule, lambda crops: finished)
    rule = CutRule(header.crop.scale, header.crop.size_px)
    mpp, training = header.crop.mpp, header.training
    return Candidate(asked, encoder.name, rule, lambda crops: finished, mpp, training)


def _check_points(asked: str, settings: EvaluateSettings) -> None:
    if settings.data.kind == "crc" and asked in ("morphology", "morphological"):
        raise ConfigError(
            f"{asked} measures outlines; CRCHistoPhenotypes tells nuclei by points. Judge it on "
            "another data set."
        )


def _check_file(asked: str, known: list[str]) -> None:
    if not is_path(asked):
        raise ConfigError(
            f"Unknown encoder {asked!r}. There are {', '.join(known)}, and the paths of CCRL "
            "checkpoints (.safetensors)."
        )
    path = Path(asked).expanduser()
    if not path.is_file():
        raise ConfigError(f"There is no checkpoint {path}. Give the path of a .safetensors file.")


def _pixels(settings: EvaluateSettings, crops: CropSet) -> Embedder:
    from ccrl_wsi.baselines.pixels import PixelBaseline

    return PixelBaseline(settings.pixel_components)


def _untrained(settings: EvaluateSettings, crops: CropSet) -> Embedder:
    from ccrl_wsi.baselines.untrained import Untrained, channel_scale
    from ccrl_wsi.devices import resolve_device
    from ccrl_wsi.embeddings.network import build_network

    arguments = {
        "n_channels": crops.n_channels,
        "widths": list(settings.untrained_widths),
        "stem_stride": settings.untrained_stem_stride,
    }
    build = partial(build_network, "preact_resnet18", arguments)
    device = resolve_device(settings.device)
    scale = channel_scale(crops)
    return Finished(Untrained(build, scale, settings.seed, device, settings.batch_size))


BASELINES: dict[str, Callable[[EvaluateSettings, CropSet], Embedder]] = {
    "pixels": _pixels,
    "untrained": _untrained,
}
"""What is there to compare with. Adding one is a file in ccrl_wsi/baselines and a line here."""
