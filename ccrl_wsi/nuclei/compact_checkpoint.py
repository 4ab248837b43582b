"""A trained compact segmenter: one ``.safetensors`` file that says all about itself.

Tensors are kept in 16 bits where asked, and loaded in 32. The file's metadata have one entry, JSON
with the format's version and a :class:`SegmenterHeader`, which also lies beside the file for people
to read. No pickle is ever opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open

from ccrl_wsi.config import Positive, Section
from ccrl_wsi.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from ccrl_wsi.nuclei.compact_network import CompactNetwork

FORMAT = "ccrl-wsi segmenter"
"""Name of the metadata's entry."""
VERSION = 1
SUFFIX = ".safetensors"


Width = Annotated[int, Field(ge=1, le=2048)]


class SegmenterHeader(Section):
    """What must be known to use the tensors.

    Parameters
    ----------
    name
        As the segmenter is called in results.
    widths
        Of the network.
    mpp
        Resolution it was trained at, um per pixel.
    training
        Free record: data with their licences, settings, versions, scores.
    """

    name: str = Field(min_length=1)
    widths: tuple[Width, Width, Width]
    mpp: Positive
    training: dict[str, Any] = {}


def save_segmenter(
    path: Path, state: Mapping[str, Tensor], header: SegmenterHeader, *, half: bool = False
) -> None:
    """Write the network's tensors ``state`` and ``header``; finished or absent, never half.

    Parameters
    ----------
    half
        Round floating-point tensors to 16 bits (float16).

    Raises
    ------
    ModelError
        If ``path`` does not end in .safetensors or values do not fit into 16 bits.
    """
    from safetensors.torch import save

    if path.suffix != SUFFIX:
        raise ModelError(f"A segmenter's name ends in {SUFFIX}: save it as {path.stem}{SUFFIX}.")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    broken = [n for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise ModelError(
            f"{path.name} was not written: {broken[0]} has values that are no numbers of "
            f"{'16' if half else '32'} bits. Train with a lower schedule.learning_rate, or set "
            "export.half=false."
        )
    about = {"version": VERSION, "header": header.model_dump(mode="json")}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    # Not save_file, whose files nobody else may read.
    unfinished.write_bytes(save(tensors, metadata={FORMAT: json.dumps(about)}))
    unfinished.replace(path)
    beside = header.model_dump_json(indent=2) + "\n"
    path.with_suffix(".json").write_text(beside, encoding="utf-8")


def read_segmenter_header(path: Path) -> SegmenterHeader:
    """The header of the segmenter ``path``; neither loads tensors nor imports torch.

    Raises
    ------
    ModelError
        If the file is missing, damaged, foreign or of another version.
    """
    with _opened(path, "numpy") as file:
        return _header_of(path, file.metadata() or {})


def load_segmenter(path: Path) -> tuple[SegmenterHeader, CompactNetwork]:
    """Header and network of the segmenter ``path``, on the CPU, in 32 bits, for inference.

    Raises
    ------
    ModelError
        As :func:`read_segmenter_header`; also if the tensors are not the network's.
    """
    from ccrl_wsi.nuclei.compact_network import CompactNetwork

    with _opened(path, "pt") as file:
        header = _header_of(path, file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network = CompactNetwork(header.widths)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            f"The tensors of {path} are not those of its header: "
            f"{str(error).splitlines()[-1].strip()} Give the segmenter as it was saved."
        ) from None
    broken = [n for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise ModelError(
            f"{path} has values in {broken[0]} that are no numbers. Copy it again, or train again."
        )
    return header, network.float().eval()


def _opened(path: Path, framework: str) -> Any:
    if not path.is_file():
        raise ModelError(
            f"There is no segmenter {path}. Give a {SUFFIX} file that `ccrl-wsi train-segmenter` "
            "wrote with --set nuclei.weights=FILE, or none, for the one that comes with the "
            "package."
        )
    try:
        return safe_open(path, framework=framework)
    except (OSError, SafetensorError):
        raise ModelError(
            f"{path} cannot be read as a segmenter: it is cut off or of another kind. Give a "
            f"{SUFFIX} file that `ccrl-wsi train-segmenter` wrote."
        ) from None


def _header_of(path: Path, metadata: Mapping[str, str]) -> SegmenterHeader:
    if FORMAT not in metadata:
        raise ModelError(
            f"{path} holds tensors, but is no segmenter of ccrl-wsi. Give a {SUFFIX} file that "
            "`ccrl-wsi train-segmenter` wrote."
        )
    try:
        about = json.loads(metadata[FORMAT])
        version = about["version"]
        if version == VERSION:
            return SegmenterHeader.model_validate(about["header"])
    except (KeyError, TypeError, ValueError, ValidationError):
        raise ModelError(
            f"The header of the segmenter {path} is damaged. Copy or download it again."
        ) from None
    raise ModelError(
        f"The segmenter {path} has format version {version}; this ccrl-wsi reads version "
        f"{VERSION}. Use the ccrl-wsi it was made with, or train again."
    )
