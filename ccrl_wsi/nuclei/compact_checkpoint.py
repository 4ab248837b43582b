"""A trained compact segmenter: one ``.safetensors`` file that says all about itself.

Tensors are kept in 16 bits where asked, and loaded in 32. The form of the file:
:mod:`ccrl_wsi.tensor_file`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from safetensors import SafetensorError, safe_open

from ccrl_wsi.config import Positive, Section
from ccrl_wsi.errors import ModelError
from ccrl_wsi.tensor_file import SUFFIX, TensorFileFormat

if TYPE_CHECKING:
    from torch import Tensor

    from ccrl_wsi.nuclei.compact_network import CompactNetwork


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


SEGMENTER_FILE = TensorFileFormat(
    entry="ccrl-wsi segmenter",
    version=1,
    header=SegmenterHeader,
    noun="segmenter",
    what_to_give="no segmenter of ccrl-wsi. Give one that `ccrl-wsi train-segmenter` wrote.",
)


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
    check_finite(path, state, "Train with a lower schedule.learning_rate.")
    SEGMENTER_FILE.write(path, state, header, half=half)


def read_segmenter_header(path: Path) -> SegmenterHeader:
    """The header of the segmenter ``path``; neither loads tensors nor imports torch.

    Raises
    ------
    ModelError
        If the file is missing, damaged, foreign or of another version.
    """
    with _opened(path, "numpy") as file:
        return SEGMENTER_FILE.header_of(path, file.metadata())


def load_segmenter(path: Path) -> tuple[SegmenterHeader, CompactNetwork]:
    """Header and network of the segmenter ``path``, on the CPU, in 32 bits, for inference.

    Raises
    ------
    ModelError
        As :func:`read_segmenter_header`; also if the tensors are not the network's.
    """
    from ccrl_wsi.nuclei.compact_network import CompactNetwork

    with _opened(path, "pt") as file:
        header = SEGMENTER_FILE.header_of(path, file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network = CompactNetwork(header.widths)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            f"The tensors of {path} are not those of its header: "
            f"{str(error).splitlines()[-1].strip()} Give the segmenter as it was saved."
        ) from None
    check_finite(path, tensors, "Copy it again, or train again.")
    return header, network.float().eval()


def check_finite(path: Path, tensors: Mapping[str, Tensor], what_next: str) -> None:
    """Refuse weights that are no numbers.

    Raises
    ------
    ModelError
        With the name of the first such tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(f"{path} has values in {name} that are no numbers. {what_next}")


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
