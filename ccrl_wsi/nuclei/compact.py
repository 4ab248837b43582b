"""The compact segmenter: a small network that comes with the package, fast on CPU cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.devices import warn_of_slow_precision
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.interfaces import Maps, Prediction
from ccrl_wsi.nuclei.compact_checkpoint import load_segmenter, read_segmenter_header
from ccrl_wsi.nuclei.compact_instances import BLUR_PX, find_nuclei, instances_by_smooth_depth
from ccrl_wsi.nuclei.hovernet_instances import (
    GRADIENT_RANGE,
    instances_from_rise,
    mean_probability,
)
from ccrl_wsi.nuclei.inference import as_sent, made_ready, put_channels_last
from ccrl_wsi.nuclei.tile_maps import Question, predict_tile
from ccrl_wsi.nuclei.windows import longest_side, plan_windows
from ccrl_wsi.records import Segmentation

if TYPE_CHECKING:
    import torch

    from ccrl_wsi.nuclei.tile_maps import Tensors

NAME = "compact"
BUNDLED = Path(__file__).parent / "bundled" / "compact.safetensors"
"""The weights that come with the package."""
STRIDE_PX = 8
SPOILT_PX = 64
"""Pixels along a window's edge that are not used: the network's zeros beyond the edge change the
maps there by more than a thousandth of their spread (measured; exact from 96 px on)."""
MPP_TOLERANCE = 0.10


@dataclass(frozen=True, eq=False, slots=True)
class CompactSegmenter:
    """A compact network as a segmenter; :func:`load_compact` makes one from settings.

    Parameters
    ----------
    name
        As the weights call it; ``compact`` for those of the package.
    type_names
        Empty: it knows no nucleus types.
    network
        Takes (n, 3, h, w) float32 in 0..255, gives maps (n, m, h, w).
    separation, views
        As of :class:`ccrl_wsi.config.CompactSettings`.
    mpp
        Resolution the network was trained at.
    device
        Where the network is.
    window_px, batch_size
        Largest side of a window, and windows at once.
    precision
        ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    """

    name: str
    type_names: tuple[str, ...]
    network: torch.nn.Module
    separation: str
    views: int
    mpp: float
    device: str
    window_px: int
    batch_size: int
    precision: str

    def __call__(self, rgb: ByteArray, mpp: float) -> Segmentation:
        """Nuclei of ``rgb`` (height, width, 3) uint8 at ``mpp``, which must be the network's."""
        return self.segment(self.predict(rgb, mpp).wait())

    def predict(self, rgb: ByteArray, mpp: float) -> Prediction:
        """What the network says of each pixel of ``rgb``: see :meth:`predict_maps`.

        Of a network that computes in half precision, the maps come as float16, which holds all it
        says. A GPU sends them one by one, and what parts nuclei filtered, as float32:
        ``probability`` (h, w) and ``rise`` or ``smooth`` (h, w).
        """
        check_compact_mpp(self.mpp, mpp)
        return self._predict(rgb, self._filtered)

    def segment(self, maps: Maps) -> Segmentation:
        """The nuclei in what :meth:`predict` gave."""
        if "maps" in maps:
            return self.segment_maps(maps["maps"].astype(np.float32, copy=False))
        probability = maps["probability"].astype(np.float32, copy=False)
        find = instances_from_rise if "rise" in maps else instances_by_smooth_depth
        labels = find(probability, maps["rise" if "rise" in maps else "smooth"])
        return Segmentation.untyped(labels, mean_probability(labels, probability))

    def segment_maps(self, maps: FloatArray) -> Segmentation:
        """The nuclei in what :meth:`predict_maps` gave."""
        labels = find_nuclei(maps, self.separation)
        return Segmentation.untyped(labels, mean_probability(labels, maps[..., 0]))

    def predict_maps(self, rgb: ByteArray) -> FloatArray:
        """Maps (h, w, m) float32 of ``rgb`` (h, w, 3): probability, and what parts nuclei."""
        maps = self._predict(rgb, None).wait()["maps"]
        return maps.astype(np.float32, copy=False)

    def _predict(self, rgb: ByteArray, reduce: Callable[[Tensors], Tensors] | None) -> Prediction:
        windows = plan_windows(rgb.shape[:2], self.window_px, SPOILT_PX, multiple=STRIDE_PX)
        question = Question(self._look, self.device, self.precision, self.batch_size, reduce)
        return predict_tile(rgb, windows, question)

    def _filtered(self, maps: Tensors) -> Tensors:
        """Maps of a tile as instance extraction takes them, after the first of its filters."""
        from ccrl_wsi.nuclei.filters_on_device import blurred_on_device, rise_on_device

        probability, others = maps["maps"][..., 0].contiguous(), maps["maps"][..., 1:]
        if self.separation == "offset":
            return {"probability": probability, "rise": rise_on_device(others, GRADIENT_RANGE)}
        smooth = blurred_on_device(others[..., 0].float(), BLUR_PX)
        return {"probability": probability, "smooth": smooth}

    def _look(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Maps of the windows (n, 3, h, w), without their spoilt edges: (n, h', w', m)."""
        inner = np.s_[:, :, SPOILT_PX:-SPOILT_PX, SPOILT_PX:-SPOILT_PX]
        output = mean_over_views(self.network, images, self.views)[inner]
        return {"maps": _smallest(as_maps(output, self.separation), output.dtype)}


def as_maps(output: torch.Tensor, separation: str) -> torch.Tensor:
    """The network's output (n, 4, h, w) as maps (n, h, w, m) float32: what ``separation`` needs.

    The first is the probability of nucleus; then comes the depth, or x and y of the offset.
    """
    needed = [0, 1] if separation == "depth" else [0, 2, 3]
    maps = output[:, needed].float().permute(0, 2, 3, 1).contiguous()
    maps[..., 0] = maps[..., 0].sigmoid()
    return maps


def _smallest(maps: torch.Tensor, computed: torch.dtype) -> torch.Tensor:
    """Maps (n, h, w, m) in the smallest type that gives the host the same nuclei."""
    import torch

    if computed == torch.float32:
        return maps
    return torch.cat([as_sent(maps[..., :1], computed), maps[..., 1:].half()], dim=-1)


def mean_over_views(network: torch.nn.Module, image: torch.Tensor, views: int) -> torch.Tensor:
    """What ``network`` says of ``image`` (n, 3, h, w), as the mean over 1 or 8 looks at it."""
    if views == 1:
        output: torch.Tensor = network(image)
        return output
    total: torch.Tensor = sum(
        (
            _turned_back(network(image.rot90(turns, (2, 3)).flip(axes)).float(), turns, axes)
            for turns in range(4)
            for axes in ((), (3,))
        ),
        start=image.new_zeros(()),
    )
    return total / 8


def _turned_back(maps: torch.Tensor, turns: int, axes: tuple[int, ...]) -> torch.Tensor:
    """Maps (n, 4, h, w) of an image that was turned, then mirrored: places and directions."""
    import torch

    maps = maps.flip(axes)
    rest, x, y = maps[:, :2], maps[:, 2:3], maps[:, 3:4]
    if axes:
        x = -x
    for _ in range(turns):
        # A quarter turn takes what points right to what points up, and y points down.
        x, y = -y, x
    return torch.cat([rest, x, y], dim=1).rot90(-turns, (2, 3))


def load_compact(
    settings: NucleiSettings, device: str, *, compiled: bool = False
) -> CompactSegmenter:
    """The compact segmenter with the weights that ``settings`` name, else the bundled ones.

    Raises
    ------
    ModelError
        If the weights are missing, damaged or another network's.
    """
    from ccrl_wsi.nuclei.compact_network import fold_norms

    header, network = load_segmenter(compact_weights(settings))
    network = fold_norms(network).to(device)
    network.apply(put_channels_last)
    warn_of_slow_precision("nuclei", settings.precision, device)
    return CompactSegmenter(
        name=header.name,
        type_names=(),
        network=made_ready(network, compiled=compiled),
        separation=settings.compact.separation,
        views=settings.compact.views,
        mpp=header.mpp,
        device=device,
        window_px=longest_side(settings.window_px, device),
        batch_size=settings.batch_size,
        precision=settings.precision,
    )


def compact_weights(settings: NucleiSettings) -> Path:
    """The weight file that ``settings`` mean."""
    return settings.weights or BUNDLED


def check_compact(settings: NucleiSettings, mpp: float) -> None:
    """Find out without torch whether the segmenter is there and works at ``mpp``.

    Raises
    ------
    ConfigError
        If it was trained at another resolution.
    ModelError
        If its weights cannot be read.
    """
    check_compact_mpp(read_segmenter_header(compact_weights(settings)).mpp, mpp)


def check_compact_mpp(own_mpp: float, mpp: float) -> None:
    """Refuse images that are not at the resolution ``own_mpp`` the network was trained at.

    Raises
    ------
    ConfigError
        If ``mpp`` differs by more than a tenth.
    """
    if abs(mpp / own_mpp - 1) > MPP_TOLERANCE:
        raise ConfigError(
            f"{NAME} works at {own_mpp:g} um per pixel, not at {mpp:g}: set tiles.mpp={own_mpp:g}."
        )
