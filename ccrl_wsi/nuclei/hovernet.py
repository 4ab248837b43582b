"""The HoVer-Net family of TIAToolbox: its networks and weights, our windows and nuclei.

``import tiatoolbox.models`` takes half a minute and is paid only when a network is built.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.devices import warn_of_slow_precision
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.interfaces import Maps, Prediction
from ccrl_wsi.nuclei.hovernet_instances import (
    GRADIENT_RANGE,
    assign_types,
    extract_instances,
    instances_from_rise,
    mean_probability,
)
from ccrl_wsi.nuclei.inference import as_sent, made_ready, put_channels_last
from ccrl_wsi.nuclei.tile_maps import Question, predict_tile
from ccrl_wsi.nuclei.weights import cached_weights, load_weights
from ccrl_wsi.nuclei.windows import longest_side, plan_windows
from ccrl_wsi.records import Segmentation

if TYPE_CHECKING:
    import torch

    from ccrl_wsi.nuclei.tile_maps import Tensors

HOVERNETS = (
    "hovernet_fast-pannuke",
    "hovernet_fast-monusac",
    "hovernet_original-consep",
    "hovernet_original-kumar",
)
NETWORK_MPP = 0.25
_MPP_TOLERANCE = 0.10
# The encoder halves the image three times.
_STRIDE_PX = 8


@dataclass(frozen=True, slots=True)
class Reach:
    """What a window loses on every side.

    Parameters
    ----------
    lost
        Pixels the network itself cuts off.
    spoilt
        Pixels of the output that its zero padding disturbs by more than 1e-4 of their spread
        (measured; beyond 64 px they are exactly those of an endless image).
    """

    lost: int
    spoilt: int


REACHES = {"fast": Reach(lost=46, spoilt=30), "original": Reach(lost=95, spoilt=4)}


@dataclass(frozen=True, eq=False, slots=True)
class HoVerNetSegmenter:
    """A HoVer-Net as a segmenter; :func:`load_hovernet` makes one from settings.

    Parameters
    ----------
    name, type_names
        As in TIAToolbox's table of models; type 0 is background.
    network
        Takes (n, 3, h, w) float32 in 0..255; gives logits ``np``, maps ``hv`` and, where it has
        types, logits ``tp``, smaller by :class:`Reach` on every side.
    mode
        ``fast`` or ``original``.
    device
        Where the network is.
    window_px, batch_size
        Largest side of a window, and windows at once.
    precision
        ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    gradient_range
        As of :func:`extract_instances`.
    """

    name: str
    type_names: tuple[str, ...]
    network: torch.nn.Module
    mode: str
    device: str
    window_px: int
    batch_size: int
    precision: str
    gradient_range: tuple[float, float] | None = GRADIENT_RANGE

    def __call__(self, rgb: ByteArray, mpp: float) -> Segmentation:
        """Nuclei of ``rgb`` (height, width, 3) uint8, which must be at about 0.25 um per pixel."""
        return self.segment(self.predict(rgb, mpp).wait())

    def predict(self, rgb: ByteArray, mpp: float) -> Prediction:
        """What the network says of each pixel of ``rgb``: see :meth:`predict_maps`.

        Of a network that computes in half precision, ``probability`` and ``hv`` come as float16,
        which holds all it says. Instead of ``hv``, a GPU sends what instance extraction needs of
        it: ``rise`` (h, w) float32.
        """
        check_mpp(self.name, mpp)
        return self._predict(rgb, self._with_rise)

    def segment(self, maps: Maps) -> Segmentation:
        """The nuclei in what :meth:`predict` gave."""
        maps = _in_full(maps)
        find, how = (
            (instances_from_rise, maps["rise"])
            if "rise" in maps
            else (extract_instances, maps["hv"])
        )
        labels = find(maps["probability"], how, gradient_range=self.gradient_range)
        probability = mean_probability(labels, maps["probability"])
        if "types" not in maps:
            return Segmentation.untyped(labels, probability)
        return Segmentation(labels, probability, *assign_types(labels, maps["types"]))

    def predict_maps(self, rgb: ByteArray) -> Maps:
        """What the network says of each pixel of ``rgb`` (h, w, 3).

        ``probability`` (h, w) float32, ``hv`` (h, w, 2) float32 and, with types, ``types`` (h, w)
        uint8.
        """
        return _in_full(self._predict(rgb, None).wait())

    def _predict(self, rgb: ByteArray, reduce: Callable[[Tensors], Tensors] | None) -> Prediction:
        reach = REACHES[self.mode]
        windows = plan_windows(
            rgb.shape[:2], self.window_px, reach.lost + reach.spoilt, multiple=_STRIDE_PX
        )
        question = Question(self._look, self.device, self.precision, self.batch_size, reduce)
        return predict_tile(rgb, windows, question)

    def _with_rise(self, maps: Tensors) -> Tensors:
        """Maps of a tile with ``rise`` for ``hv``."""
        from ccrl_wsi.nuclei.filters_on_device import rise_on_device

        others = {name: tensor for name, tensor in maps.items() if name != "hv"}
        return {**others, "rise": rise_on_device(maps["hv"], self.gradient_range)}

    def _look(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Maps of the windows (n, 3, h, w): only what the host needs."""
        return _reduced(self.network(images), REACHES[self.mode].spoilt)


def load_hovernet(
    settings: NucleiSettings, device: str, *, compiled: bool = False
) -> HoVerNetSegmenter:
    """The HoVer-Net that ``settings`` names, with weights, on ``device``, ``compiled`` or not.

    Raises
    ------
    ModelError
        If its weights are missing, damaged or another network's.
    """
    name = settings.segmenter
    if settings.weights is not None and not settings.weights.is_file():
        raise ModelError(_how_to_give(name, f"There is no weight file {settings.weights}."))
    network, type_names = build_hovernet(name)
    load_weights(network, settings.weights or find_weights(name), name)
    # Not TIAToolbox's own `to`, which would spread it over every GPU it sees.
    mode, network = network.mode, make_fast(network).to(device)
    warn_of_slow_precision("nuclei", settings.precision, device)
    return HoVerNetSegmenter(
        name=name,
        type_names=type_names,
        network=made_ready(network, compiled=compiled),
        mode=mode,
        device=device,
        window_px=longest_side(settings.window_px, device),
        batch_size=settings.batch_size,
        precision=settings.precision,
        gradient_range=GRADIENT_RANGE if settings.boundary_scale == "fixed" else None,
    )


def make_fast(network: Any) -> torch.nn.Module:
    """TIAToolbox's ``network`` for inference: equal but for rounding, with less to do and to keep.

    Its layers are changed in place and stay its own; the network returned is the one to ask.
    """
    from ccrl_wsi.nuclei.folding import fold_norms_in_sequences
    from ccrl_wsi.nuclei.hovernet_stripes import InStripes

    network.eval()
    fold_norms_in_sequences(network)
    network.apply(put_channels_last)
    return InStripes(network).eval()


def build_hovernet(name: str) -> tuple[Any, tuple[str, ...]]:
    """TIAToolbox's network without weights, and its types' names by index."""
    arguments = _toolbox_table()[name]["architecture"]["kwargs"]
    with contained_logging():
        from tiatoolbox.models.architecture.hovernet import HoVerNet
    types = arguments.get("nuc_type_dict") or {}
    return HoVerNet(**arguments), tuple(types[i] for i in sorted(types))


def find_weights(name: str) -> Path:
    """The weight file in TIAToolbox's cache, downloaded by TIAToolbox where it is absent.

    Raises
    ------
    ModelError
        If it is neither there nor can be downloaded.
    """
    cached = cached_weights(name)
    if cached.is_file():
        return cached
    with contained_logging():
        from tiatoolbox.models.architecture import fetch_pretrained_weights
    try:
        return Path(fetch_pretrained_weights(name))
    except Exception as error:
        problem = f"{cached} is missing and cannot be downloaded ({_first_line(error)})."
        raise ModelError(_how_to_give(name, problem)) from error


def check_mpp(name: str, mpp: float) -> None:
    """Refuse images that are not at the resolution the networks were trained at."""
    if abs(mpp / NETWORK_MPP - 1) > _MPP_TOLERANCE:
        raise ConfigError(
            f"{name} works at {NETWORK_MPP} um per pixel, not at {mpp:g}: "
            f"set tiles.mpp={NETWORK_MPP}."
        )


@contextmanager
def contained_logging() -> Iterator[None]:
    """Undo what importing TIAToolbox does to everybody's logging and warnings."""
    root = logging.getLogger()
    handlers, level, show = list(root.handlers), root.level, warnings.showwarning
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        if warnings.showwarning is not show:
            logging.captureWarnings(False)
            warnings.showwarning = show


def _reduced(output: dict[str, torch.Tensor], spoilt: int) -> dict[str, torch.Tensor]:
    """The network's output without its spoilt edges, in the smallest types that hold it."""
    import torch

    inner = np.s_[:, :, spoilt:-spoilt, spoilt:-spoilt]
    logits, hv = output["np"][inner], output["hv"][inner].permute(0, 2, 3, 1)
    maps = {
        "probability": as_sent(logits.float().softmax(dim=1)[:, 1], logits.dtype),
        # bfloat16, which NumPy lacks, fits into float16: hv is about -1 to 1.
        "hv": hv if hv.dtype == torch.float32 else hv.half(),
    }
    if "tp" in output:
        maps["types"] = output["tp"][inner].argmax(dim=1).byte()
    return maps


def _in_full(maps: Maps) -> Maps:
    """Maps as instance extraction wants them: float16 becomes float32."""
    return {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in maps.items()
    }


def _toolbox_table() -> dict[str, Any]:
    """TIAToolbox's table of models, read without importing TIAToolbox."""
    package = find_spec("tiatoolbox")
    if package is None or package.origin is None:
        raise ModelError("TIAToolbox is not installed: pip install 'tiatoolbox>=2.1,<2.2'.")
    table = Path(package.origin).with_name("data") / "pretrained_model.yaml"
    return dict(yaml.safe_load(table.read_text(encoding="utf-8")))


def _how_to_give(name: str, problem: str) -> str:
    return (
        f"{problem} Give the weights of {name} with --set nuclei.weights=FILE, or use "
        "--set nuclei.segmenter=compact, whose weights are here."
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
