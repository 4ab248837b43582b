"""The size of a nucleus, given back to its embedding.

The adaptive window shows every nucleus equally large, so that no encoder of crops can see how large
it was. One more dimension says it.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from ccrl_wsi.arrays import FloatArray
from ccrl_wsi.config import Positive, Section
from ccrl_wsi.errors import ModelError


class SizeFeature(Section):
    """The dimension ``factor * (log(area_um2) - mean) / std``.

    Parameters
    ----------
    mean, std
        Of the natural logarithm of area_um2 on the training crops.
    factor
        The dimension's standard deviation on the training crops.
    """

    mean: float
    std: Positive
    factor: float = Field(gt=0)


def size_column(area_um2: FloatArray, size: SizeFeature) -> FloatArray:
    """The dimension ``size`` of nuclei of area ``area_um2`` (n,): (n,) float32.

    Raises
    ------
    ValueError
        If an area is missing or not positive. No nucleus is smaller than one pixel, so whoever
        gives such areas measured wrongly, and -inf would spoil all distances.
    """
    column: FloatArray = size.factor * (_logarithm(area_um2) - size.mean) / size.std
    return column.astype(np.float32)


def size_feature(embedding: FloatArray, area_um2: FloatArray, weight: float) -> SizeFeature:
    r"""The dimension that adds ``weight``\ :sup:`2` times the variance ``embedding`` has in all.

    With :math:`z` the standardised log area, the factor is :math:`f = w \sqrt{\sum_j
    \operatorname{var}(x_j)}`, so that :math:`\operatorname{var}(f z) = w^2 \sum_j
    \operatorname{var}(x_j)`: squared distances between two nuclei are on average a part
    :math:`1 / (1 + w^2)` embedding and a part :math:`w^2 / (1 + w^2)` size.

    Parameters
    ----------
    embedding
        (n, d) of the training crops, without the size.
    area_um2
        (n,) of the same nuclei.
    weight
        :math:`w`; 1: size weighs as much as all other dimensions together.

    Raises
    ------
    ModelError
        If all embeddings or all areas are equal, so that nothing can be weighed.
    ValueError
        If the weight, or an area, is not positive, or lengths differ.
    """
    if weight <= 0 or len(embedding) != len(area_um2):
        raise ValueError(f"weight {weight}, {len(embedding)} embeddings, {len(area_um2)} areas")
    logarithm = _logarithm(area_um2)
    std = float(logarithm.std()) if len(logarithm) else 0.0
    total = float(embedding.var(axis=0, dtype=np.float64).sum()) if len(embedding) else 0.0
    # Equal numbers have a mean that is rounded, and so a variance just above 0.
    if std < 1e-6 or not total > 1e-12 * float(np.square(embedding, dtype=np.float64).mean()):
        raise ModelError(
            f"The {len(embedding)} training cells have equal {'areas' if std < 1e-6 else 'vectors'}"
            ", so the size cannot be weighed. Train on more cells, or set export.size_weight=0."
        )
    return SizeFeature(mean=float(logarithm.mean()), std=std, factor=weight * math.sqrt(total))


def _logarithm(area_um2: FloatArray) -> FloatArray:
    area = np.asarray(area_um2, np.float64)
    wrong = np.flatnonzero(~(np.isfinite(area) & (area > 0)))
    if len(wrong):
        raise ValueError(f"area_um2 of nucleus {wrong[0]} is {area[wrong[0]]}: not one pixel")
    logarithm: FloatArray = np.log(area)
    return logarithm
