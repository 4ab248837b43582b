"""Features of a network trained on photographs: torchvision's ResNet before its last layer.

The CCRL paper's ImageNet row names neither network nor layer. Chosen here: ResNet-18, as CCRL's own
backbone is of that family (``imagenet50``: ResNet-50), ``IMAGENET1K_V1`` weights, the mean over the
last feature map, crops enlarged to 224 px bilinearly and normalised by ImageNet's colours.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.errors import ModelError

SIDE_PX = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours, on a scale of 0..1."""
NETWORKS = {
    "imagenet": ("resnet18", "ResNet18_Weights"),
    "imagenet50": ("resnet50", "ResNet50_Weights"),
}
CPU_BATCH = 32


class ImageNet:
    """A photograph network's 512 (ResNet-50: 2048) features.

    Parameters
    ----------
    name
        Key of ``NETWORKS``.
    weights
        torchvision's state dictionary (.pth) or the same tensors as .safetensors; None:
        torchvision's download, or what an earlier one left.
    device
        As PyTorch names it.
    batch_size
        Crops the network takes at once; on a CPU never more than ``CPU_BATCH``.

    Raises
    ------
    ModelError
        If weights cannot be had, or are those of another network.
    """

    standardise = False

    def __init__(self, name: str, weights: Path | None, device: str, batch_size: int) -> None:
        import torchvision

        self.name = name
        network: Any = getattr(torchvision.models, NETWORKS[name][0])(weights=None)
        self.n_dimensions: int = network.fc.in_features
        state = _downloaded(name) if weights is None else _read(name, weights)
        _load(network, state, name, weights)
        network.fc = nn.Identity()
        self._device = torch.device(device)
        self._network = network.eval().to(self._device)
        self.fingerprint = _fingerprint(network)
        self._batch_size = min(batch_size, CPU_BATCH) if self._device.type == "cpu" else batch_size
        mean, std = (torch.tensor(v, device=self._device).view(1, 3, 1, 1) for v in (MEAN, STD))
        self._mean, self._std = mean, std

    def __call__(self, crops: ByteArray, measurements: FloatArray) -> FloatArray:
        """Embeddings (n, d) float32 of ``crops`` (n, side, side, 3); measurements are not used."""
        vectors = np.empty((len(crops), self.n_dimensions), np.float32)
        with torch.inference_mode():
            for start in range(0, len(crops), self._batch_size):
                batch = torch.tensor(crops[start : start + self._batch_size]).to(self._device)
                pixels = batch.permute(0, 3, 1, 2).float() / 255
                large = interpolate(pixels, (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True)
                found = self._network((large - self._mean) / self._std)
                vectors[start : start + self._batch_size] = found.float().cpu().numpy()
        return vectors


def download_place(name: str) -> Path:
    """Where torchvision's download of the weights lies, or would lie."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _url(name).rpartition("/")[2]


def _url(name: str) -> str:
    import torchvision

    weights: Any = getattr(torchvision.models, NETWORKS[name][1]).IMAGENET1K_V1
    return str(weights.url)


def _downloaded(name: str) -> dict[str, Tensor]:
    place = download_place(name)
    if place.is_file():
        return _read(name, place)
    try:
        found: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            _url(name), progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"The weights of {name} cannot be downloaded ({error}). Fetch {_url(name)} where there "
            f"is a connection and put the file at {place}, or name it with "
            "--set embedding.weights=FILE (ccrl-wsi evaluate: --set imagenet_weights=FILE)."
        ) from None
    return found


def _read(name: str, path: Path) -> dict[str, Tensor]:
    path = path.expanduser()
    if not path.is_file():
        raise ModelError(
            f"There is no weight file {path}. Give torchvision's {_url(name).rpartition('/')[2]}."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: dict[str, Tensor] = load_file(path)
            return found
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} holds more than tensors and is not opened, since that could run code. Give "
            f"torchvision's own file, {_url(name)}."
        ) from None
    except Exception as error:  # noqa: BLE001  PyTorch reports damage in many ways
        raise ModelError(f"{path} cannot be read as weights ({error}). Fetch it again.") from None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ModelError(f"{path} is no state dictionary. Give torchvision's own file.")
    return state


def _load(network: nn.Module, state: dict[str, Tensor], name: str, path: Path | None) -> None:
    # The last layer is not used; files may come without it.
    kept = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
    wanted = {key for key in network.state_dict() if not key.startswith("fc.")}
    optional = {key for key in wanted if key.endswith("num_batches_tracked")}
    if (wanted - optional) - kept.keys() or kept.keys() - wanted:
        raise ModelError(
            f"{path or download_place(name)} holds weights of another network than {name}, "
            f"torchvision's {NETWORKS[name][0]}. Give {_url(name).rpartition('/')[2]}."
        )
    try:
        network.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise ModelError(
            f"{path or download_place(name)} does not fit {NETWORKS[name][0]}: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from None


def _fingerprint(network: nn.Module) -> str:
    digest = hashlib.sha256(f"{SIDE_PX} {MEAN} {STD}".encode())
    for key, tensor in network.state_dict().items():
        digest.update(key.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
