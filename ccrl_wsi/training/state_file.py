"""The state of a training on disk: one ``.safetensors`` file, whole or absent, never a pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ccrl_wsi.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "ccrl-wsi training state"
"""Name of the metadata's one entry."""
VERSION = 1


@dataclass(frozen=True, eq=False, slots=True)
class SavedState:
    """What a state file holds.

    Parameters
    ----------
    step
        Steps done.
    tensors
        What :meth:`ccrl_wsi.training.learner.Learner.state` gave, on the CPU.
    about
        Free record, plain JSON: settings, versions.
    """

    step: int
    tensors: dict[str, Tensor]
    about: dict[str, Any]


def save_state(
    path: Path, step: int, state: Mapping[str, Tensor], about: Mapping[str, Any]
) -> None:
    """Write a state over an older one; should writing fail, the older one is still there.

    Raises
    ------
    ModelError
        If it cannot be written, with the system's reason.
    """
    from safetensors.torch import save

    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in state.items()}
    record = json.dumps({"version": VERSION, "step": step, "about": dict(about)}, sort_keys=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not save_file, whose files nobody else may read.
        unfinished.write_bytes(save(tensors, metadata={FORMAT: record}))
        _flush(unfinished)
        unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The training's state cannot be written to {path} ({error}). Make room or allow "
            "writing there, and start again: the state that was saved last is as it was."
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)


def load_state(path: Path) -> SavedState:
    """What :func:`save_state` wrote to ``path``.

    Raises
    ------
    ModelError
        If the file is missing, damaged, foreign or of another version.
    """
    if not path.is_file():
        raise ModelError(f"There is no training state {path}. Start the training anew.")
    try:
        with safe_open(path, framework="pt") as file:
            step, about = _record(path, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ModelError(f"The training state {path} cannot be read: {error}.") from None
    except SafetensorError:
        raise ModelError(_damaged(path)) from None
    return SavedState(step, tensors, about)


def _record(path: Path, metadata: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    if FORMAT not in metadata:
        raise ModelError(
            f"{path} holds tensors, but is not the state of a training. Give the file that a "
            "training wrote, or start anew."
        )
    try:
        record = json.loads(metadata[FORMAT])
        version = record["version"]
        if version == VERSION:
            return int(record["step"]), dict(record["about"])
    except (KeyError, TypeError, ValueError):
        raise ModelError(_damaged(path)) from None
    raise ModelError(
        f"The training state {path} has format version {version}; this ccrl-wsi reads version "
        f"{VERSION}. Go on with the ccrl-wsi it was made with, or start anew."
    )


def _damaged(path: Path) -> str:
    return (
        f"The training state {path} is damaged or no such file. Copy it again, or remove it and "
        "start anew."
    )


def _flush(path: Path) -> None:
    # Without this a power cut may leave the new name with nothing behind it.
    with path.open("rb+") as file:
        os.fsync(file.fileno())
