"""The checkpoint of a trained encoder: one ``.safetensors`` file that says all about itself.

The tensors are the encoder's (no projector, no optimiser), in 32 or, for half the file, 16 bits;
whoever loads them gets 32. The file's metadata have one entry, JSON
with the format's version and a :class:`CheckpointHeader`: one, because entries are written in
random order, and equal encoders shall be equal files. The header also lies beside the file for
people to read; only what is inside the file counts. No pickle is ever opened.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from ccrl_wsi.config import CropSettings, Positive, Section
from ccrl_wsi.embeddings.size_feature import SizeFeature
from ccrl_wsi.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "ccrl-wsi encoder"
"""Name of the metadata's entry."""
VERSION = 1
LATER_FIELDS = ("size", "unit_length")
"""Of the header, what the first files had no word of."""
SUFFIX = ".safetensors"
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
    from safetensors.torch import save

    if path.suffix != SUFFIX:
        raise ModelError(f"A checkpoint's name ends in {SUFFIX}: save it as {path.stem}{SUFFIX}.")
    _check_tensors(path, header, {name: tuple(t.shape) for name, t in state.items()})
    # What is not used is not spoken of: older versions read what they know.
    left_out = {name for name in LATER_FIELDS if not getattr(header, name)}
    about = {"version": VERSION, "header": header.model_dump(mode="json", exclude=left_out)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if half:
        tensors = {name: _halved(path, name, tensor) for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    # Not save_file, whose files nobody else may read.
    unfinished.write_bytes(save(tensors, metadata={FORMAT: json.dumps(about)}))
    unfinished.replace(path)
    beside = header.model_dump_json(indent=2, exclude=left_out) + "\n"
    path.with_suffix(".json").write_text(beside, encoding="utf-8")


def read_header(path: Path) -> CheckpointHeader:
    """The header of the checkpoint ``path``; neither loads tensors nor imports torch.

    Raises
    ------
    ModelError
        If the file is missing, damaged, foreign or of another version.
    """
    with _opened(path, "numpy") as file:
        return _header_of(path, file.metadata() or {})


def load_checkpoint(path: Path) -> tuple[CheckpointHeader, dict[str, Tensor]]:
    """Header and tensors of the checkpoint ``path``, on the CPU, floating-point ones in 32 bits.

    Raises
    ------
    ModelError
        As :func:`read_header`; also if tensors are missing, left over or of wrong shape.
    """
    with _opened(path, "pt") as file:
        header = _header_of(path, file.metadata() or {})
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        _check_tensors(path, header, shapes)
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in shapes}
        return header, {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}


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


def _halved(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    too_large = half.isinf() & tensor.isfinite()
    if too_large.any():
        raise ModelError(
            f"{path.name} was not written: {name} has {int(too_large.sum())} values that 16 bits "
            f"cannot hold (up to {float(tensor[too_large].abs().max()):g}). Save it in 32 bits "
            "(export.half=false)."
        )
    return half


def _opened(path: Path, framework: str) -> Any:
    if not path.is_file():
        raise ModelError(
            f"There is no checkpoint {path}. Give the path of a {SUFFIX} file with "
            "--set embedding.encoder=, or use embedding.encoder=morphology, which needs none."
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


def _header_of(path: Path, metadata: Mapping[str, str]) -> CheckpointHeader:
    if FORMAT not in metadata:
        raise ModelError(
            f"{path} holds tensors, but is not an encoder of ccrl-wsi. Give a CCRL checkpoint."
        )
    try:
        about = json.loads(metadata[FORMAT])
        version, header = about["version"], about["header"]
        if version == VERSION:
            return CheckpointHeader.model_validate(header)
    except (KeyError, TypeError, json.JSONDecodeError, ValidationError) as error:
        raise ModelError(
            f"The header of the checkpoint {path} is damaged ({_first_line(error)}). "
            "Copy or download it again."
        ) from None
    raise ModelError(
        f"The checkpoint {path} has format version {version}; this ccrl-wsi reads version "
        f"{VERSION}. Use the ccrl-wsi it was made with, or train again."
    )


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc'])) or 'header'}: {problem['msg']}"
    return str(error).splitlines()[0]


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
            f"{_first_line(error)}. Train it again."
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
