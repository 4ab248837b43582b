"""The paper's morphological baseline: thirty geometric and shape features, nothing else.

Not to be taken for :mod:`ccrl_wsi.embeddings.morphology`, which sees stain and texture too. What is
measured, and what was chosen where the paper is silent, stands in
:mod:`ccrl_wsi.nuclei.boundary_shapes`.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.measurement_names import NAMES, SHAPE_NAMES, has_shapes


class Morphological:
    """The columns ``SHAPE_NAMES`` as they are; clustering standardises them, as the authors do."""

    @property
    def name(self) -> str:
        """As it is chosen and recorded."""
        return "morphological"

    @property
    def n_dimensions(self) -> int:
        """Thirty."""
        return len(SHAPE_NAMES)

    @property
    def fingerprint(self) -> str:
        """Changes with the columns."""
        text = json.dumps(["shapes", SHAPE_NAMES])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def standardise(self) -> bool:
        """Yes: micrometres, counts and ratios stand side by side."""
        return True

    def __call__(self, crops: ByteArray, measurements: FloatArray) -> FloatArray:
        """Embeddings (n, 30) float32; the crops are not looked at.

        Raises
        ------
        ConfigError
            If ``SHAPE_NAMES`` are not among ``measurements``.
        """
        if not has_shapes(measurements):
            raise ConfigError(
                "The encoder morphological needs outlines, and these cells have none: nuclei told "
                "by points, or crops without their run. Use another encoder."
            )
        return measurements[:, len(NAMES) :].astype(np.float32)
