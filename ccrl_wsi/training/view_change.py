"""A change of some crops of a batch: which, by how much, and how it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ccrl_wsi.arrays import AnyArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False, slots=True)
class Change:
    """One change of m of the crops.

    Parameters
    ----------
    rows
        (m,) numbers of the crops that change; no row twice.
    numbers
        (m, k) what ``make`` must know of each, in the order of ``rows``.
    make
        Gives the changed from the pixels (m, c, side, side) and numbers (m, k), float32 and on
        one device. Never writes to what it is given, nor asks the device for a value.
    """

    rows: IntArray
    numbers: FloatArray
    make: Callable[[Tensor, Tensor], Tensor]


def make_changes(pixels: Tensor, changes: Sequence[Change]) -> Tensor:
    """The crops (n, c, side, side) after all ``changes``, one after the other.

    Crops without a change keep their bits. Rows and numbers travel to the device at once and
    without waiting for it.
    """
    changes = [change for change in changes if len(change.rows)]
    if not changes:
        return pixels.clone()
    rows = _travel(pixels.device, [c.rows.astype(np.int64) for c in changes])
    numbers = _travel(pixels.device, [c.numbers.astype(np.float32).ravel() for c in changes])
    done = pixels
    for change, which, values in zip(changes, rows, numbers, strict=True):
        changed = change.make(done.index_select(0, which), values.view(change.numbers.shape))
        if done is pixels:
            done = pixels.clone()
        done.index_copy_(0, which, changed)
    return done


def _travel(device: torch.device, parts: list[AnyArray]) -> tuple[Tensor, ...]:
    """Arrays (m,) as tensors on the device, sent together."""
    sent = torch.from_numpy(np.concatenate(parts))
    if device.type == "cuda":
        sent = sent.pin_memory()  # only from there does a copy not wait
    return torch.split(sent.to(device, non_blocking=True), [len(part) for part in parts])
