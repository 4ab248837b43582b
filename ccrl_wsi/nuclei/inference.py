"""How segmentation networks are asked: layout, and what too little memory means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ccrl_wsi.device_work import enough_memory
from ccrl_wsi.devices import computing

if TYPE_CHECKING:
    import torch

BELOW_HALF = 0.5 - 2**-12
"""The largest float16 below 0.5."""


@contextmanager
def inference(device: str, precision: str, n_windows: int, window_px: int) -> Iterator[None]:
    """As :func:`computing`, telling what too little memory means.

    Parameters
    ----------
    device, precision
        As there.
    n_windows, window_px
        How many windows are asked about at once, and their longer side.

    Raises
    ------
    ModelError
        If the device has too little memory for them.
    """
    asked = f"{n_windows} windows of {window_px} px"
    with (
        enough_memory(device, asked, "Set nuclei.batch_size or nuclei.window_px lower."),
        computing(device, precision),
    ):
        yield


def as_sent(probability: torch.Tensor, computed: torch.dtype) -> torch.Tensor:
    """``probability`` (float32) in the smallest type that leaves each pixel on its side of a half.

    Where the network ``computed`` in half precision that is float16: the same pixels are nucleus,
    and no value moves by more than 0.0003. Where the network computed in half precision at all,
    its own rounding has moved them further.
    """
    import torch

    if computed == torch.float32:
        return probability
    halved = probability.half()
    return torch.where(probability < 0.5, halved.clamp(max=BELOW_HALF), halved)


def made_ready(network: torch.nn.Module, *, compiled: bool) -> torch.nn.Module:
    """The network to ask: itself, or itself compiled."""
    if not compiled:
        return network
    from ccrl_wsi.nuclei.compiling import Compiled

    return Compiled(network)


def put_channels_last(layer: torch.nn.Module) -> None:
    """Lay out a convolution's weights as images are that have their channels last."""
    import torch

    if isinstance(layer, torch.nn.Conv2d):
        layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
