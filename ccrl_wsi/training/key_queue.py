"""The queue of keys: negatives from the batches before (He et al. 2020, Momentum Contrast)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccrl_wsi.seeding import rng_for

NO_ROW = -1


class KeyQueue(nn.Module):
    """The last ``size`` keys, and whose they are. All of it is saved with the model.

    The place of the next key is kept on the device too: nothing here waits for a GPU.

    Parameters
    ----------
    size
        Number of keys, K of the paper's Eq. 2.
    n_dimensions
        Of a key.
    seed
        Of the random unit vectors that fill the queue at the start, as in VOLTA.

    Attributes
    ----------
    keys
        (size, n_dimensions) float32 unit vectors.
    rows
        (size,) int64 row of the training set each key was made of; ``NO_ROW`` for random ones.
    cursor
        () int64 place of the oldest key, which the next one replaces.
    """

    keys: Tensor
    rows: Tensor
    cursor: Tensor

    def __init__(self, size: int, n_dimensions: int, seed: int) -> None:
        super().__init__()
        drawn = rng_for(seed, "key queue").standard_normal((size, n_dimensions), dtype="float32")
        self.register_buffer("keys", functional.normalize(torch.from_numpy(drawn)))
        self.register_buffer("rows", torch.full((size,), NO_ROW, dtype=torch.int64))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def push(self, keys: Tensor, rows: Tensor) -> None:
        """Replace the oldest keys by ``keys`` (n, d) of ``rows`` (n,), in their order.

        Of more keys than the queue holds, the last ones stay.

        Raises
        ------
        ValueError
            If the shapes do not fit each other or the queue.
        """
        n, size = len(keys), len(self)
        if keys.shape != (n, self.keys.shape[1]) or rows.shape != (n,):
            raise ValueError(
                f"keys {tuple(keys.shape)} with rows {tuple(rows.shape)} do not fit a queue of "
                f"{self.keys.shape[1]} dimensions"
            )
        first = max(n - size, 0)
        places = (self.cursor + torch.arange(first, n, device=self.cursor.device)) % size
        self.keys.index_copy_(0, places, keys[first:].to(self.keys.dtype))
        self.rows.index_copy_(0, places, rows[first:].to(self.rows.dtype))
        self.cursor.add_(n).remainder_(size)
