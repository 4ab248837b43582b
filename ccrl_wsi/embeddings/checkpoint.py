"""The checkpoint of a trained encoder: one ``.safetensors`` file that says all about itself.

The tensors are the encoder's (no projector, no optimiser), in 32 or, for half the file, 16 bits;
whoever loads them gets 32. The form of the file: :mod:`ccrl_wsi.tensor_file`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open

from ccrl_wsi.config import CropSettings, Positive, Section
from ccrl_wsi.embeddings.size_feature import SizeFeature
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.tensor_file import SUFFIX, TensorFileFormat, first_line, in_32_bits

if TYPE_CHECKING:
    from torch import Tensor

LATER_FIELDS = ("size", "unit_length")
"""Of the header, what the first files had no word of."""
MPP_TOLERANCE = 0.1
"""Relative difference of pixel size up to which an encoder fits: scanners differ by as much."""


class CropRule(Section):
    """How the crops that the encoder was trained on had been cut."""

    scale: Positive
    size_px: int = Field(ge=8)
    mpp: Positive


class CheckpointHeader(Section):
    """What must be known to use the tensors.

    Parameters
    ----------
    name
        As the encoder is called in results.
    architecture, arguments
        Key of ``network.ARCHITECTURES`` and what it is built with.
    mean, std
        Of the channels, on a scale of 0..1; inputs are normalised with them.
    unit_length
        Whether what the network gives is divided by its length: k-means then compares directions.
    n_dimensions
        Length of an embedding, its size included.
    size
        The last dimension, if it is the nucleus' size; None: the network's output is all.
    training
        Free record: data, licence, settings, versions, losses.
    """

    name: str = Field(min_length=1)
    architecture: str
    arguments: dict[str, Any] = {}
    mean: tuple[float, ...]
    std: tuple[Positive, ...]
    crop: CropRule
    unit_length: bool = False
    n_dimensions: int = Field(ge=1)
    size: SizeFeature | None = None
    training: dict[str, Any] = {}

    @model_validator(mode="after")
    def _mean_and_std_go_together(self) -> CheckpointHeader:
        if len(self.mean) != len(self.std):
            raise ValueError("mean and std must have one value a channel")
        return self


ENCODER_FILE = TensorFileFormat(
    entry="ccrl-wsi encoder",
    version=1,
    header=CheckpointHeader,
    noun="checkpoint",
    what_to_give="not an encoder of ccrl-wsi. Give a CCRL checkpoint.",
)


def save_checkpoint(
    path: Path, state: Mapping[str, Tensor], header: CheckpointHeader, *, half: bool = False
) -> None:
    """Write the encoder's tensors ``state`` and ``header``; finished or absent, never half.

    Parameters
    ----------
    half
        Round floating-point tensors to 16 bits (float16); whole numbers stay as they are.

    Raises
    ------
    ModelError
        If ``path`` does not end in .safetensors, the tensors are not the architecture's, or
        values do not fit into 16 bits.
    """
    _check_tensors(path, header, {name: tuple(t.shape) for name, t in state.items()})
    # What is not used is not spoken of: older versions read what they know.
    left_out = frozenset(name for name in LATER_FIELDS if not getattr(header, name))
    ENCODER_FILE.write(path, state, header, half=half, left_out=left_out)


def read_header(path: Path) -> CheckpointHeader:
    """The header of the checkpoint ``path``; neither loads tensors nor imports torch.

    Raises
    ------
    ModelError
        If the file is missing, damaged, foreign or of another version.
    """
    with _opened(path, "numpy") as file:
        return ENCODER_FILE.header_of(path, file.metadata())


def load_checkpoint(path: Path) -> tuple[CheckpointHeader, dict[str, Tensor]]:
    """Header and tensors of the checkpoint ``path``, on the CPU, floating-point ones in 32 bits.

    Raises
    ------
    ModelError
        As :func:`read_header`; also if tensors are missing, left over or of wrong shape.
    """
    with _opened(path, "pt") as file:
        header = ENCODER_FILE.header_of(path, file.metadata())
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        _check_tensors(path, header, shapes)
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in shapes}
        return header, in_32_bits(tensors)


def check_crop_rule(header: CheckpointHeader, crops: CropSettings, mpp: float) -> None:
    """Refuse to embed crops that are cut in another way than those of the training.

    What ``crops`` leaves open is as the encoder asks.

    Raises
    ------
    ConfigError
        With the settings that the encoder needs.
    """
    rule = header.crop
    wanted = []
    if crops.scale is not None and not math.isclose(crops.scale, rule.scale, rel_tol=1e-6):
        wanted.append(f"crops.scale={rule.scale:g} (now {crops.scale:g})")
    if crops.size_px not in (None, rule.size_px):
        wanted.append(f"crops.size_px={rule.size_px} (now {crops.size_px})")
    if not math.isclose(mpp, rule.mpp, rel_tol=MPP_TOLERANCE):
        wanted.append(f"tiles.mpp={rule.mpp:g} (now {mpp:g})")
    if wanted:
        raise ConfigError(
            f"The encoder {header.name} was trained on other crops. Set {', '.join(wanted)}."
        )


def _opened(path: Path, framework: str) -> Any:
    if not path.is_file():
        raise ModelError(
            f"There is no checkpoint {path}. Give the path of a {SUFFIX} file, such as `ccrl-wsi "
            "train` leaves. `run` needs none with --set embedding.encoder=morphology."
        )
    try:
        return safe_open(path, framework=framework)
    except OSError as error:
        raise ModelError(f"The checkpoint {path} cannot be read: {error}.") from None
    except SafetensorError:
        raise ModelError(_what_it_is(path)) from None


def _what_it_is(path: Path) -> str:
    """One sentence about a file that is not in order as safetensors."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return (
            f"{path} is a PyTorch pickle, which may run foreign code when opened and is never "
            f"loaded. Convert it where you trust it, with ccrl_wsi.embeddings.checkpoint's "
            f"save_checkpoint, to a {SUFFIX} file."
        )
    if start[8:] == b"{":
        return f"The checkpoint {path} is damaged or cut off. Copy or download it again."
    return f"{path} is not a {SUFFIX} file. Give a CCRL checkpoint."


def check_network(path: Path, header: CheckpointHeader) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that the network of ``header``, read in ``path``, has.

    Raises
    ------
    ModelError
        If this version has no such network, or it cannot be built as the header says.
    """
    from ccrl_wsi.embeddings.network import ARCHITECTURES, expected_shapes

    if header.architecture not in ARCHITECTURES:
        raise ModelError(
            f"{path} holds a network {header.architecture!r}, which this ccrl-wsi does not know "
            f"(it knows {', '.join(ARCHITECTURES)}). Update ccrl-wsi."
        )
    try:
        return expected_shapes(header.architecture, header.arguments)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ModelError(
            f"{path}: {header.architecture} cannot be built with {header.arguments}: "
            f"{first_line(error)}. Train it again."
        ) from None


def _check_tensors(
    path: Path, header: CheckpointHeader, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    expected = check_network(path, header)
    problems = [f"{name} is missing" for name in sorted(expected.keys() - shapes.keys())]
    problems += [f"{name} is too much" for name in sorted(shapes.keys() - expected.keys())]
    problems += [
        f"{name} is {shapes[name]} instead of {expected[name]}"
        for name in sorted(shapes.keys() & expected.keys())
        if shapes[name] != expected[name]
    ]
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise ModelError(
            f"The tensors of {path} are not those of {header.architecture}: {problems[0]}{more}. "
            "Give the checkpoint as it was saved."
        )
