"""Networks as ``.safetensors`` files that say all about themselves. No pickle is ever opened.

The file's metadata have one entry, JSON with the format's version and a header: one, because
entries are written in random order, and equal networks shall be equal files. The header also lies
beside the file for people to read; only what is inside the file counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import ValidationError

from ccrl_wsi.config import Section
from ccrl_wsi.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
Header = TypeVar("Header", bound=Section)


@dataclass(frozen=True, slots=True)
class TensorFileFormat(Generic[Header]):
    """One kind of such files.

    Parameters
    ----------
    entry, version
        Name of the metadata's entry, and the version that is written and read.
    header
        What the file says of itself.
    noun
        What people call the file.
    what_to_give
        The end of the sentence about a file of another kind.
    """

    entry: str
    version: int
    header: type[Header]
    noun: str
    what_to_give: str

    def write(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        header: Header,
        *,
        half: bool = False,
        left_out: frozenset[str] = frozenset(),
    ) -> None:
        """Write ``tensors`` and ``header``, and the header beside; finished or absent, never half.

        Parameters
        ----------
        half
            Round floating-point tensors to 16 bits (float16); whole numbers stay as they are.
        left_out
            Fields of the header that are not spoken of, so that older versions read the file.

        Raises
        ------
        ModelError
            If the name does not end in .safetensors, or values do not fit into 16 bits.
        """
        from safetensors.torch import save

        if path.suffix != SUFFIX:
            raise ModelError(
                f"A {self.noun}'s name ends in {SUFFIX}: save it as {path.stem}{SUFFIX}."
            )
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        if half:
            kept = {name: _halved(path, name, tensor) for name, tensor in kept.items()}
        hidden = set(left_out)
        about = {"version": self.version, "header": header.model_dump(mode="json", exclude=hidden)}
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
        # Not save_file, whose files nobody else may read.
        unfinished.write_bytes(save(kept, metadata={self.entry: json.dumps(about)}))
        unfinished.replace(path)
        beside = header.model_dump_json(indent=2, exclude=hidden) + "\n"
        path.with_suffix(".json").write_text(beside, encoding="utf-8")

    def header_of(self, path: Path, metadata: Mapping[str, str] | None) -> Header:
        """The header in the ``metadata`` of ``path``.

        Raises
        ------
        ModelError
            If the file is of another kind or version, or its header is damaged.
        """
        if self.entry not in (metadata or {}):
            raise ModelError(f"{path} holds tensors, but is {self.what_to_give}")
        try:
            about = json.loads((metadata or {})[self.entry])
            version, header = about["version"], about["header"]
            if version == self.version:
                return self.header.model_validate(header)
        except (KeyError, TypeError, json.JSONDecodeError, ValidationError) as error:
            raise ModelError(
                f"The header of the {self.noun} {path} is damaged ({first_line(error)}). "
                "Copy or download it again."
            ) from None
        raise ModelError(
            f"The {self.noun} {path} has format version {version}; this ccrl-wsi reads version "
            f"{self.version}. Use the ccrl-wsi it was made with, or train again."
        )


def in_32_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` with floating-point ones as float32."""
    return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}


def first_line(error: Exception) -> str:
    """What is wrong, in a line; of a header, with the field it is wrong in."""
    if isinstance(error, ValidationError):
        problem: Any = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc'])) or 'header'}: {problem['msg']}"
    return str(error).splitlines()[0]


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
