"""Normalisations made part of the convolutions before them: the same network with less to do."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_norms_in_sequences(network: nn.Module) -> None:
    """Fold, in ``network`` itself, every batch normalisation that directly follows a convolution.

    Only inside ``nn.Sequential``, where the order of layers is the order of the work. The output
    stays the same but for rounding. The network must be in evaluation mode, and stay there.

    Raises
    ------
    ValueError
        If it is in training mode, in which normalisations follow the batch.
    """
    if network.training:
        raise ValueError("a network in training mode cannot be folded: call eval() first")
    for sequence in [m for m in network.modules() if isinstance(m, nn.Sequential)]:
        layers = list(sequence.named_children())
        for (name, layer), (next_name, following) in zip(layers, layers[1:], strict=False):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(sequence, name, fuse_conv_bn_eval(layer, following))
                setattr(sequence, next_name, nn.Identity())
