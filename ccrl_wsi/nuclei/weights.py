"""Weight files, read without running any code that they might carry."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_wsi.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

_FOREIGN_STARTS = {
    b"<": "is a web page: the download went to a log-in or error page",
    b"version https://git-lfs": "is a Git LFS pointer: fetch the file itself with `git lfs pull`",
}

# A zip archive, or the pickle that PyTorch wrote before 1.6.
_TORCH_STARTS = (b"PK\x03\x04", b"\x80")


def weights_folder() -> Path:
    """Where TIAToolbox keeps what it downloads; told without its slow import."""
    return Path.home() / ".tiatoolbox" / "models"


def cached_weights(name: str) -> Path:
    """Where the weights of TIAToolbox's network ``name`` lie once they were downloaded."""
    return weights_folder() / f"{name}.pth"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from safetensors, a state dictionary or a hover_net checkpoint.

    Raises
    ------
    ModelError
        If the file is missing, damaged or holds anything but tensors.
    """
    if not path.is_file():
        raise ModelError(f"There is no weight file {path}. Check --set nuclei.weights=FILE.")
    start = _start(path)
    for sign, meaning in _FOREIGN_STARTS.items():
        if start.startswith(sign):
            raise ModelError(f"{path} {meaning}.")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return _only_tensors(state, path)


def load_weights(network: nn.Module, path: Path, wanted_by: str) -> None:
    """Put the weights in ``path`` into ``network``, all of them or none.

    Raises
    ------
    ModelError
        If they cannot be read, or are those of another architecture.
    """
    state, wanted = read_weights(path), network.state_dict()
    # A layer's fixed constants are not learnt; some checkpoints leave them out.
    for name, tensor in wanted.items():
        if name.endswith(("unpool_mat", "num_batches_tracked")):
            state.setdefault(name, tensor)
    difference = _first_difference(state, wanted)
    if difference:
        raise ModelError(
            f"{path} holds weights of another network than {wanted_by}: {difference}. "
            "Choose the segmenter they belong to with --set nuclei.segmenter=NAME."
        )
    network.load_state_dict(state)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64).lstrip()


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path) from error


def _read_torch(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _start(path).startswith(_TORCH_STARTS):
            raise ModelError(
                f"{path} holds more than tensors and is not opened, since that could run code. "
                "Save it again with torch.save(model.state_dict(), FILE)."
            ) from error
        raise _damaged(path) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, UnicodeDecodeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> ModelError:
    return ModelError(
        f"{path} cannot be read as weights: it is truncated or of another kind. "
        "Download it again, or give another file with --set nuclei.weights=FILE."
    )


def _only_tensors(state: Any, path: Path) -> dict[str, Tensor]:
    import torch

    if isinstance(state, dict) and isinstance(state.get("desc"), dict):
        state = state["desc"]
    is_state = isinstance(state, dict) and state
    if not is_state or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ModelError(
            f"{path} is no state dictionary: it must hold tensors by name, "
            "as torch.save(model.state_dict(), FILE) writes them."
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _first_difference(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    missing = [name for name in wanted if name not in found]
    if missing:
        return f"{len(missing)} of {len(wanted)} tensors are missing, first {missing[0]}"
    extra = [name for name in found if name not in wanted]
    if extra:
        return f"{len(extra)} tensors are unknown to it, first {extra[0]}"
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            return f"{name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
    return ""
