"""Checkpoints small enough for tests."""

from __future__ import annotations

from ccrl_wsi.embeddings.checkpoint import CheckpointHeader, CropRule, save_checkpoint

WIDTHS = (4, 4, 8, 8)


def small_header(**changes):
    fields = {
        "name": "small",
        "architecture": "preact_resnet18",
        "arguments": {"n_channels": 3, "widths": list(WIDTHS)},
        "mean": (0.74, 0.59, 0.81),
        "std": (0.15, 0.17, 0.11),
        "crop": CropRule(scale=2.0, size_px=32, mpp=0.25),
        "n_dimensions": WIDTHS[-1],
        "training": {"data": "CoNSeP", "epochs": 500},
    }
    return CheckpointHeader(**{**fields, **changes})


def small_state(seed=0):
    """Weights of a small network, its running averages set to what random images give."""
    import torch

    from ccrl_wsi.embeddings.network import PreActResNet18

    torch.set_num_threads(1)  # threads cost so small a network more than they save
    torch.manual_seed(seed)
    network = PreActResNet18(3, WIDTHS).train()
    with torch.no_grad():
        network(torch.randn(8, 3, 32, 32))
    return network.state_dict()


def write_small_checkpoint(path, **changes):
    save_checkpoint(path, small_state(), small_header(**changes))
    return path
