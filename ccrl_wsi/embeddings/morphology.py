"""Embedding by measurement: size, shape, stain and texture. Needs no weights."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.measurement_names import NAMES, columns_of

LOGARITHMIC = ("area_um2", "minor_axis_um", "gradient")
"""Their spread grows with their size, so that a few large values would rule every distance."""
LINEAR = (
    "eccentricity",
    "solidity",
    "haematoxylin_mean",
    "haematoxylin_std",
    "eosin_mean",
    "eosin_std",
    "haematoxylin_around",
    "eosin_around",
    "entropy",
)


class Morphology:
    """log(1 + x) of the columns ``LOGARITHMIC``, then the columns ``LINEAR`` as they are.

    Left out is what depends on how a nucleus happens to lie (orientation, extent) and what would
    count a property twice: perimeter and diameter (area), circularity (eccentricity and solidity),
    contrast and spread of grey values (gradient and entropy).
    """

    @property
    def name(self) -> str:
        """As it is chosen and recorded."""
        return "morphology"

    @property
    def n_dimensions(self) -> int:
        """Number of columns used."""
        return len(LOGARITHMIC) + len(LINEAR)

    @property
    def fingerprint(self) -> str:
        """Changes with the columns and their transformation."""
        text = json.dumps(["log1p", LOGARITHMIC, "linear", LINEAR])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def standardise(self) -> bool:
        """Yes: micrometres, optical densities and ratios stand side by side."""
        return True

    def __call__(self, crops: ByteArray, measurements: FloatArray) -> FloatArray:
        """Embeddings (n, d) float32; the crops are not looked at."""
        if measurements.shape[1] != len(NAMES):
            raise ValueError(f"{measurements.shape[1]} measurements instead of {len(NAMES)}")
        large = np.log1p(columns_of(measurements, LOGARITHMIC))
        vectors = np.concatenate([large, columns_of(measurements, LINEAR)], axis=1)
        return vectors.astype(np.float32)
