"""The tensors of a learner under names that say whose they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` with ``prefix`` before each name."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of ``state`` whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
