"""Crop sets whose answer is known: crops of different colour, or anything else, by class."""

from __future__ import annotations

import numpy as np

from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.measurement_names import NAMES

COLORS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60]])


def coloured_crops(n, *, n_classes=3, noise=8.0, n_sources=4, side=8, seed=0, names=None):
    """Crops (n, side, side, 3) in the colour of their class, with noise."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % n_classes
    pixels = COLORS[label][:, None, None, :] + noise * rng.normal(size=(n, side, side, 3))
    return CropSet(
        crops=np.clip(pixels, 0, 255).astype(np.uint8),
        measurements=rng.uniform(1, 2, size=(n, len(NAMES))).astype(np.float32),
        source=rng.integers(0, n_sources, n).astype(np.int32),
        label=label.astype(np.int32),
        source_names=tuple(f"image_{i}" for i in range(n_sources)),
        class_names=names or tuple(f"class_{i}" for i in range(n_classes)),
        scale=2.0,
        mpp=0.25,
    )
