"""Encoders by name. Adding one is a file, a line here, and a passing contract suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ccrl_wsi.config import CropSettings, EmbeddingSettings, is_path
from ccrl_wsi.devices import resolve_device
from ccrl_wsi.embeddings.checkpoint import check_crop_rule, check_network, read_header
from ccrl_wsi.embeddings.manual import Manual
from ccrl_wsi.embeddings.morphological import Morphological
from ccrl_wsi.embeddings.morphology import Morphology
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.interfaces import Encoder

ENCODERS: dict[str, Callable[[], Encoder]] = {
    "morphology": Morphology,
    "morphological": Morphological,
    "manual": Manual,
}
"""The encoders that need no file."""

PHOTOGRAPHS = ("imagenet", "imagenet50")
"""The encoders whose weights are torchvision's."""

NEED_OUTLINES = ("morphological",)
"""The encoders that also ask for ``measurement_names.SHAPE_NAMES``."""

BUNDLED = {"ccrl": Path(__file__).parent / "bundled" / "ccrl.safetensors"}
"""The checkpoints that come with the package."""

SCALE, SIZE_PX = 2.0, 32
"""How crops are cut for encoders that do not ask: the paper's rule on CoNSeP."""

LIGHT = 60e6
"""Multiplications a crop: they take a CPU core about three times as long as finding the nucleus.

Up to here, a few cores do more than one worker that has the GPU but only one core.
"""


def make_encoder(settings: EmbeddingSettings, device: str) -> Encoder:
    """The encoder that ``settings.encoder`` names, ready on ``device`` (or ``auto``).

    Raises
    ------
    ConfigError
        If there is no such encoder.
    ModelError
        If it is a checkpoint that cannot be used.
    """
    if settings.encoder in PHOTOGRAPHS:
        from ccrl_wsi.embeddings.imagenet import ImageNet

        return ImageNet(settings, resolve_device(device))
    path = encoder_file(settings.encoder)
    if path is None:
        return ENCODERS[settings.encoder]()
    from ccrl_wsi.embeddings.ccrl_encoder import CcrlEncoder

    return CcrlEncoder(path, resolve_device(device), settings.batch_size, settings.precision)


def encoder_file(name: str) -> Path | None:
    """The checkpoint that ``embedding.encoder=name`` means; None where none is needed.

    Raises
    ------
    ConfigError
        If there is no such encoder.
    ModelError
        If it should have come with the package and did not.
    """
    if name in ENCODERS or name in PHOTOGRAPHS:
        return None
    if name in BUNDLED:
        if not BUNDLED[name].is_file():
            raise ModelError(
                f"This installation lacks the encoder {name}: there is no {BUNDLED[name]}. Install "
                "ccrl-wsi again, set embedding.encoder to a CCRL checkpoint (.safetensors), or "
                "use embedding.encoder=morphology, which needs none."
            )
        return BUNDLED[name]
    if not is_path(name):
        raise ConfigError(
            f"Unknown encoder {name!r}. Set embedding.encoder to "
            f"{', '.join([*ENCODERS, *PHOTOGRAPHS, *BUNDLED])} or to the path of a CCRL checkpoint "
            "(.safetensors)."
        )
    return Path(name).expanduser()


def check_encoder(settings: EmbeddingSettings, crops: CropSettings, mpp: float) -> None:
    """Find out, before any slide is opened and without torch, whether the encoder can be used.

    Raises
    ------
    ConfigError
        If there is no such encoder, or crops are cut in another way than it was trained for.
    ModelError
        If it is a checkpoint that is missing, damaged or foreign.
    """
    path = encoder_file(settings.encoder)
    if path is not None:
        check_crop_rule(read_header(path), crops, mpp)


def complete_crops(crops: CropSettings, settings: EmbeddingSettings) -> CropSettings:
    """``crops`` with what is left open filled in as the encoder asks; given values stay.

    Raises
    ------
    ConfigError, ModelError
        As :func:`check_encoder`, except that rules are not compared.
    """
    path = encoder_file(settings.encoder)
    scale, size_px = SCALE, SIZE_PX
    if path is not None:
        rule = read_header(path).crop
        scale, size_px = rule.scale, rule.size_px
    return crops.model_copy(
        update={
            "scale": scale if crops.scale is None else crops.scale,
            "size_px": size_px if crops.size_px is None else crops.size_px,
        }
    )


def is_light(settings: EmbeddingSettings) -> bool:
    """Whether CPU cores embed cells not much more slowly than they find them without a network.

    Raises
    ------
    ConfigError, ModelError
        As :func:`check_encoder`, except that rules are not compared.
    """
    path = encoder_file(settings.encoder)
    if path is None:
        return settings.encoder not in PHOTOGRAPHS
    from ccrl_wsi.embeddings.network import multiply_adds

    header = read_header(path)
    check_network(path, header)
    return multiply_adds(header.architecture, header.arguments, header.crop.size_px) <= LIGHT
