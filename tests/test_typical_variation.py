import numpy as np
import pytest

from ccrl_wsi.errors import EvaluationError
from ccrl_wsi.evaluation.typical_variation import (
    align_batches,
    batches_without_controls,
    normalise_typical_variation,
    whiten,
)


def plates(n=200, d=5, seed=0):
    """Correlated features, half of them of controls, in two batches that covary differently."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(2, d, d))
    batch = np.repeat([0, 1], n // 2)
    features = np.einsum("ni,nij->nj", rng.normal(size=(n, d)), mixing[batch]) + 7
    is_control = rng.random(n) < 0.5
    return features, is_control, [f"w{b}" for b in batch]


def covariance(rows):
    return np.cov(rows.T, bias=True)


def test_controls_have_unit_covariance_and_mean_zero_after_whitening():
    features, is_control, _ = plates()
    white = whiten(features, is_control, ridge=0)
    np.testing.assert_allclose(covariance(white[is_control]), np.eye(5), atol=1e-8)
    np.testing.assert_allclose(white[is_control].mean(axis=0), 0, atol=1e-8)


def test_a_ridge_leaves_variances_of_s_over_s_plus_ridge():
    features, is_control, _ = plates()
    variances = np.linalg.eigvalsh(covariance(features[is_control]))
    white = whiten(features, is_control, ridge=1)
    np.testing.assert_allclose(
        np.diag(covariance(white[is_control])), variances / (variances + 1), atol=1e-8
    )


def test_whitening_is_an_affine_map_of_all_wells():
    features, is_control, _ = plates()
    white = whiten(features, is_control, ridge=0)
    # Mahalanobis distances by the controls become plain distances.
    inverse = np.linalg.inv(covariance(features[is_control]))
    difference = features[3] - features[100]
    expected = difference @ inverse @ difference
    assert np.square(white[3] - white[100]).sum() == pytest.approx(expected)


def test_directions_in_which_controls_do_not_vary_are_left_out_without_a_ridge():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(30, 4))
    is_control = np.arange(30) < 20
    features[is_control, 3] = 2.5
    assert whiten(features, is_control, ridge=0).shape == (30, 3)
    assert whiten(features, is_control, ridge=1).shape == (30, 4)


def test_more_features_than_controls_stay_finite():
    rng = np.random.default_rng(2)
    features, is_control = rng.normal(size=(20, 50)), np.arange(20) < 8
    white = whiten(features, is_control, ridge=0)
    assert white.shape == (20, 7)  # eight controls vary in seven directions
    np.testing.assert_allclose(covariance(white[is_control]), np.eye(7), atol=1e-6)
    tvn = normalise_typical_variation(features, is_control, ["w1"] * 10 + ["w2"] * 10)
    assert np.isfinite(tvn).all()


def test_coral_gives_the_controls_of_every_batch_the_covariance_of_all_controls():
    features, is_control, batch = plates()
    aligned = align_batches(features, is_control, batch, ridge=0)
    wanted = np.cov(features[is_control].T)
    for name in ("w0", "w1"):
        mine = is_control & (np.array(batch) == name)
        assert not np.allclose(np.cov(features[mine].T), wanted, rtol=0.1)
        np.testing.assert_allclose(np.cov(aligned[mine].T), wanted, atol=1e-8)


def test_coral_changes_nothing_where_there_is_one_batch():
    features, is_control, _ = plates()
    np.testing.assert_allclose(
        align_batches(features, is_control, ["w"] * len(features)), features, atol=1e-8
    )


def test_coral_does_not_look_at_treated_wells():
    features, is_control, batch = plates()
    changed = features.copy()
    first = np.flatnonzero(~is_control)[0]
    changed[first] *= 50
    before, after = (align_batches(f, is_control, batch) for f in (features, changed))
    others = np.arange(len(features)) != first
    np.testing.assert_array_equal(before[others], after[others])


def test_a_batch_without_controls_stays_as_it_is():
    features, is_control, batch = plates()
    is_control &= np.array(batch) != "w1"
    assert batches_without_controls(is_control, batch) == ["w1"]
    aligned = align_batches(features, is_control, batch)
    lonely = np.array(batch) == "w1"
    np.testing.assert_array_equal(aligned[lonely], features[lonely])


def test_it_repairs_a_batch_that_was_stretched_and_turned():
    """The same wells seen twice, once through a linear map: afterwards they agree."""
    rng = np.random.default_rng(3)
    d, n = 4, 400
    once = rng.normal(size=(n, d))
    mapping = np.eye(d) + 0.6 * rng.normal(size=(d, d))
    mapping = mapping @ mapping.T / d + np.eye(d)  # symmetric: CORAL cannot undo a rotation
    features = np.vstack([once, once @ mapping])
    is_control = np.tile(np.arange(n) < n // 2, 2)
    batch = ["w1"] * n + ["w2"] * n
    before = np.linalg.norm(features[:n] - features[n:]) / np.linalg.norm(features[:n])
    aligned = align_batches(features, is_control, batch, ridge=0)
    after = np.linalg.norm(aligned[:n] - aligned[n:]) / np.linalg.norm(aligned[:n])
    assert after < 0.25 * before


@pytest.mark.parametrize("n_controls", [0, 1])
def test_too_few_controls_are_told(n_controls):
    features = np.random.default_rng(0).normal(size=(5, 2))
    with pytest.raises(EvaluationError, match=f"There are {n_controls} control wells"):
        whiten(features, np.arange(5) < n_controls)
