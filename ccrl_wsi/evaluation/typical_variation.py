"""Typical variation normalisation: what varies between controls says nothing about treatments.

Ando, McLean and Berndl 2017 (bioRxiv 161422): the control wells, which differ by chance and by
batch only, are whitened by principal components, so that no direction of their variation weighs
more than another; then each batch is mapped so that its controls covary like all controls (CORAL:
Sun, Feng and Saenko, AAAI 2016). Regularised as in the code that Perakis et al. 2021 score with:
``ridge`` is added to variances before any root is taken.

CORAL is defined for features that were brought to mean zero in each domain. That code leaves this
step out, so what a batch adds to every well stays. :func:`centre_batches` does it, as the code of
RxRx3's benchmarks (EFAAR) does; with it a batch that is another through a map x -> x A + b, A
symmetric and positive definite in the coordinates in which the controls are white, is the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from ccrl_wsi.arrays import BoolArray, FloatArray
from ccrl_wsi.errors import EvaluationError

RIDGE = 1.0
"""That of the published evaluations, for features of about unit variance."""
SMALLEST_SHARE = 1e-10
"""Of the largest variance, below which a direction is rounding: without a ridge it is left out."""
FEWEST_CONTROLS = 2


def whiten(features: FloatArray, is_control: BoolArray, ridge: float = RIDGE) -> FloatArray:
    r"""Principal components (n, k) of the controls, each divided by its deviation among them.

    With :math:`C = V \mathrm{diag}(s) V^T` the controls' covariance (divided by their number),
    :math:`(x - \mu) V \mathrm{diag}(1 / \sqrt{s + ridge})`. Without a ridge the controls'
    covariance becomes the identity, and directions in which they do not vary are left out.

    Parameters
    ----------
    features
        (n, d) of all wells.
    is_control
        (n,) which are controls.

    Raises
    ------
    EvaluationError
        If there are fewer than two controls.
    """
    _check_controls(int(is_control.sum()))
    centred = features - features[is_control].mean(axis=0)
    controls = centred[is_control]
    with threadpool_limits(1):  # the same bits however many threads there are
        variance, axes = np.linalg.eigh(controls.T @ controls / len(controls))
        variance = np.maximum(variance, 0)
        if ridge == 0:
            kept = variance > SMALLEST_SHARE * variance.max(initial=0)
            variance, axes = variance[kept], axes[:, kept]
        whitened: FloatArray = centred @ (axes / np.sqrt(variance + ridge))
    return whitened


def centre_batches(features: FloatArray, is_control: BoolArray, batch: Sequence[str]) -> FloatArray:
    """Features (n, d) of every batch, minus the mean of its controls.

    A batch with fewer than two controls is moved by the mean of all controls:
    :func:`batches_without_controls` names it.

    Raises
    ------
    EvaluationError
        If there are fewer than two controls in all.
    """
    batches = _batches_with_controls(is_control, batch)
    centred: FloatArray = features - features[is_control].mean(axis=0)
    for mine in batches:
        centred[mine] = features[mine] - features[mine & is_control].mean(axis=0)
    return centred


def align_batches(
    features: FloatArray, is_control: BoolArray, batch: Sequence[str], ridge: float = RIDGE
) -> FloatArray:
    r"""CORAL: every batch's features (n, d) mapped so that its controls covary like all controls.

    :math:`x (C_b + ridge)^{-1/2} (C + ridge)^{1/2}` with covariances of the batch's and of all
    controls. Only covariances are matched, not means. A batch with fewer than two controls stays
    as it is: :func:`batches_without_controls` names them.

    Raises
    ------
    EvaluationError
        If there are fewer than two controls in all.
    """
    batches = _batches_with_controls(is_control, batch)
    aligned = features.copy()
    with threadpool_limits(1):
        to_all = _power(_covariance(features[is_control]), 0.5, ridge)
        for mine in batches:
            of_batch = _covariance(features[mine & is_control])
            aligned[mine] = features[mine] @ _power(of_batch, -0.5, ridge) @ to_all
    return aligned


def normalise_typical_variation(
    features: FloatArray,
    is_control: BoolArray,
    batch: Sequence[str],
    ridge: float = RIDGE,
    *,
    centre: bool = False,
) -> FloatArray:
    """Whitening, then CORAL: both steps of typical variation normalisation, (n, k).

    ``centre``: bring the controls of every batch to mean zero first.
    """
    if centre:
        features = centre_batches(features, is_control, batch)
    return align_batches(whiten(features, is_control, ridge), is_control, batch, ridge)


def batches_without_controls(is_control: BoolArray, batch: Sequence[str]) -> list[str]:
    """Batches with too few controls to know how these vary."""
    names = np.asarray(batch)
    return [
        name
        for name in sorted({*batch})
        if int((is_control & (names == name)).sum()) < FEWEST_CONTROLS
    ]


def _batches_with_controls(is_control: BoolArray, batch: Sequence[str]) -> list[BoolArray]:
    """Which wells (n,) each batch has, of those whose controls show how they vary, by name."""
    _check_controls(int(is_control.sum()))
    names = np.asarray(batch)
    told = {*batch} - {*batches_without_controls(is_control, batch)}
    return [names == name for name in sorted(told)]


def _covariance(rows: FloatArray) -> FloatArray:
    centred = rows - rows.mean(axis=0)
    covariance: FloatArray = centred.T @ centred / (len(rows) - 1)
    return covariance


def _power(covariance: FloatArray, exponent: float, ridge: float) -> FloatArray:
    """``(covariance + ridge) ** exponent`` as a symmetric matrix.

    Directions of no variance, which only a ridge of 0 leaves, are taken out rather than divided by.
    """
    variance, axes = np.linalg.eigh(covariance)
    variance = np.maximum(variance, 0) + ridge
    varies = variance > SMALLEST_SHARE * variance.max(initial=0)
    factor = np.zeros_like(variance)
    factor[varies] = variance[varies] ** exponent
    power: FloatArray = (axes * factor) @ axes.T
    return power


def _check_controls(n: int) -> None:
    if n < FEWEST_CONTROLS:
        raise EvaluationError(
            f"There are {n} control wells; typical variation is learnt from two or more. Set "
            "control to the compound of the controls, or tvn=false."
        )
