"""How segmentation networks are asked: precision, layout, and what too little memory means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.errors import ModelError

if TYPE_CHECKING:
    import torch


@contextmanager
def inference(device: str, precision: str, batch: ByteArray) -> Iterator[None]:
    """Compute without gradients, in mixed precision where ``precision`` says so.

    Parameters
    ----------
    device
        Where the network is.
    precision
        ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    batch
        The windows (n, h, w, 3) that are asked about.

    Raises
    ------
    ModelError
        If the device has too little memory for them.
    """
    import torch

    dtype = autocast_dtype(precision, device)
    kind = torch.device(device).type
    try:
        with torch.inference_mode(), torch.autocast(kind, dtype, enabled=dtype is not None):
            yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{device} has too little memory for {len(batch)} windows of {batch.shape[1]} px. "
            "Set nuclei.batch_size or nuclei.window_px lower."
        ) from error


def as_images(batch: ByteArray, device: str) -> torch.Tensor:
    """Windows (n, h, w, 3) uint8 as (n, 3, h, w) float32 in 0..255 on ``device``."""
    import torch

    # The image has its channels last already: no copy is made.
    return torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float()


def autocast_dtype(precision: str, device: str) -> torch.dtype | None:
    """The type mixed precision computes in; ``None`` for plain float32."""
    import torch

    if precision != "auto":
        return None if precision == "float32" else getattr(torch, precision)
    if not device.startswith("cuda"):
        return None
    # Older GPUs only emulate bfloat16.
    has_bfloat16 = torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if has_bfloat16 else torch.float16


def put_channels_last(layer: torch.nn.Module) -> None:
    """Lay out a convolution's weights as images are that have their channels last."""
    import torch

    if isinstance(layer, torch.nn.Conv2d):
        layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
