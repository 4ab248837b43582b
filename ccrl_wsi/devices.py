"""Where networks run, and how precisely they compute."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from ccrl_wsi.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch.nn import Module
log = logging.getLogger(__name__)

ASKING_GPU = Lock()
"""Held while a GPU is given a tile or a batch: work of two threads in turns would make each one's
time that of both."""


def resolve_device(name: str) -> str:
    """``auto`` becomes cuda where PyTorch finds it, else cpu; other names are checked.

    Raises
    ------
    ConfigError
        If the name is unknown or this machine has no such device.
    """
    if name == "cpu":
        return name
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if n_gpus else "cpu"
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise ConfigError(f"compute.device={name}: choose auto, cpu, cuda or cuda:N.")
    if int(number or 0) >= n_gpus:
        raise ConfigError(
            f"compute.device={name}: PyTorch finds {n_gpus} CUDA devices here. "
            "Set compute.device=auto, or install a CUDA build of PyTorch."
        )
    return name


def move_to(module: Module, device: torch.device) -> torch.memory_format:
    """Bring ``module`` to ``device`` in the layout it computes fastest in; inputs shall have it.

    Channels last, 1.3 times as fast on CPUs, except there for widths that are no multiples of 8:
    with those PyTorch 2.12's backward pass writes beyond its memory.
    """
    import torch

    convolutions = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
    is_even = all(m.out_channels % 8 == 0 for m in convolutions)
    is_safe = device.type == "cuda" or is_even
    layout = torch.channels_last if is_safe else torch.contiguous_format
    module.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    return layout


@contextmanager
def computing(device: str, precision: str) -> Iterator[None]:
    """Compute without gradients, in mixed precision where ``precision`` says so.

    Parameters
    ----------
    device
        Where the network is.
    precision
        ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    """
    import torch

    dtype, kind = autocast_dtype(precision, device), torch.device(device).type
    if kind == "cuda":
        compute_float32_whole()
    with torch.inference_mode(), torch.autocast(kind, dtype, enabled=dtype is not None):
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


def compute_float32_whole() -> None:
    """From now on GPUs multiply float32 as float32.

    PyTorch lets convolutions read 10 of the 23 bits of a fraction (TF32) unless told otherwise. The
    switch is the process', not a thread's or a network's: it is never set back, so that what a
    network says does not depend on which other one works at the same time.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    cudnn: Any = torch.backends.cudnn
    if hasattr(cudnn, "conv"):
        # Since PyTorch 2.9 there is a switch for each, which the older ones leave alone.
        cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "ieee"


def warn_of_slow_precision(section: str, precision: str, device: str) -> None:
    """Say so if this computer's cores only emulate what a ``section`` of the settings asks for."""
    import torch

    if device != "cpu" or precision in ("auto", "float32"):
        return
    needed = {"bfloat16": ("avx512_bf16", "amx_tile"), "float16": ("amx_fp16",)}[precision]
    # Not every PyTorch can say; then nothing is said here either.
    answers = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in needed]
    if None not in answers and not any(answer() for answer in answers if answer is not None):
        log.warning(
            "%s.precision=%s is slower than float32 here: these cores only emulate it.",
            section,
            precision,
        )
