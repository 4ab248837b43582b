"""How segmentation networks are asked: precision, layout, and what too little memory means."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ccrl_wsi.device_work import enough_memory

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

BELOW_HALF = 0.5 - 2**-12
"""The largest float16 below 0.5."""


@contextmanager
def inference(device: str, precision: str, n_windows: int, window_px: int) -> Iterator[None]:
    """Compute without gradients, in mixed precision where ``precision`` says so.

    Parameters
    ----------
    device
        Where the network is.
    precision
        ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    n_windows, window_px
        How many windows are asked about at once, and their longer side.

    Raises
    ------
    ModelError
        If the device has too little memory for them.
    """
    import torch

    dtype = autocast_dtype(precision, device)
    kind = torch.device(device).type
    asked = f"{n_windows} windows of {window_px} px"
    with (
        enough_memory(device, asked, "Set nuclei.batch_size or nuclei.window_px lower."),
        torch.inference_mode(),
        torch.autocast(kind, dtype, enabled=dtype is not None),
    ):
        yield


def autocast_dtype(precision: str, device: str) -> torch.dtype | None:
    """The type mixed precision computes in; ``None`` for plain float32.

    ``auto`` is never less than float32 on CPU cores, whatever they can do.
    """
    import torch

    if precision != "auto":
        return None if precision == "float32" else getattr(torch, precision)
    if not device.startswith("cuda"):
        return None
    # Older GPUs only emulate bfloat16.
    has_bfloat16 = torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if has_bfloat16 else torch.float16


def warn_of_slow_precision(precision: str, device: str) -> None:
    """Say so if this computer's cores only emulate what was asked for."""
    import torch

    if device != "cpu" or precision in ("auto", "float32"):
        return
    needed = {"bfloat16": ("avx512_bf16", "amx_tile"), "float16": ("amx_fp16",)}[precision]
    # Not every PyTorch can say; then nothing is said here either.
    answers = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in needed]
    if None not in answers and not any(answer() for answer in answers if answer is not None):
        log.warning(
            "nuclei.precision=%s is slower than float32 here: these cores only emulate it.",
            precision,
        )


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
