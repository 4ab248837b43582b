"""A slide's mean embedding: what centring takes away, and with it most of stain and scanner."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ccrl_wsi.arrays import FloatArray


def mean_embedding(chunks: Iterable[FloatArray], n_dimensions: int) -> FloatArray:
    """Mean (d,) float64 of all rows of ``chunks``, each (n, d); zeros if there are none."""
    total, n = np.zeros(n_dimensions), 0
    for chunk in chunks:
        total += chunk.sum(axis=0, dtype=np.float64)
        n += len(chunk)
    return total / max(1, n)
