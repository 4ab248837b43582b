"""Where networks run."""

from __future__ import annotations

from ccrl_wsi.errors import ConfigError


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
