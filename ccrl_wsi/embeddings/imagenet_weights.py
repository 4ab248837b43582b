"""Weights of torchvision's ResNets for photographs: a given file, an earlier download, a new one.

No pickle is opened that holds more than tensors.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_wsi.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

VERSION = "IMAGENET1K_V1"


def imagenet_weights(
    architecture: str, file: Path | None, how_to_do_without: str
) -> dict[str, Tensor]:
    """The tensors of ``architecture`` (resnet18, resnet50) by name, without the classifier.

    Parameters
    ----------
    file
        torchvision's state dictionary (.pth) or the same tensors as .safetensors; None:
        torchvision's download, or what an earlier one left.
    how_to_do_without
        The end of the sentence that is said offline: what else can be set.

    Raises
    ------
    ModelError
        If the weights cannot be had, or the file is damaged or holds more than tensors.
    """
    place = download_place(architecture) if file is None else file.expanduser()
    if file is not None or place.is_file():
        state = _read(architecture, place)
    else:
        state = _downloaded(architecture, how_to_do_without)
    # The last layer is not used; files may come without it.
    return {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}


def load_imagenet_weights(network: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Put weights into a ResNet without classifier, all of them or none.

    Parameters
    ----------
    origin
        The file they are of, and what wanted them: for messages.

    Raises
    ------
    ModelError
        If they are those of another network.
    """
    wanted = set(network.state_dict())
    optional = {key for key in wanted if key.endswith("num_batches_tracked")}
    if (wanted - optional) - state.keys() or state.keys() - wanted:
        raise ModelError(f"{origin}: these are the weights of another network.")
    try:
        network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"{origin}: these are the weights of another network. {reason}") from None


def download_place(architecture: str) -> Path:
    """Where torchvision's download of the weights lies, or would lie."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / _url(architecture).rpartition("/")[2]


def _url(architecture: str) -> str:
    from torchvision import models

    weights: Any = models.get_model_weights(architecture)[VERSION]
    return str(weights.url)


def _downloaded(architecture: str, how_to_do_without: str) -> dict[str, Tensor]:
    import torch

    url = _url(architecture)
    try:
        found: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"The ImageNet weights of {architecture} cannot be downloaded ({error}). Fetch {url} "
            f"where there is a connection and put the file at {download_place(architecture)}, or "
            f"{how_to_do_without}"
        ) from None
    return found


def _read(architecture: str, path: Path) -> dict[str, Tensor]:
    import torch

    if not path.is_file():
        name = _url(architecture).rpartition("/")[2]
        raise ModelError(f"There is no weight file {path}. Give torchvision's {name}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: dict[str, Tensor] = load_file(path)
            return found
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} holds more than tensors and is not opened, since that could run code. Give "
            f"torchvision's own file, {_url(architecture)}."
        ) from None
    except Exception as error:  # noqa: BLE001  PyTorch reports damage in many ways
        raise ModelError(f"{path} cannot be read as weights ({error}). Fetch it again.") from None
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ModelError(f"{path} is no state dictionary. Give torchvision's own file.")
    return state
