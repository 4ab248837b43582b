import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power

from ccrl_wsi.errors import EvaluationError
from ccrl_wsi.evaluation.typical_variation import (
    align_batches,
    batches_without_controls,
    centre_batches,
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


def white_wells(rng, n=60, d=4):
    """Wells (n, d), the first half controls, which have mean zero and exactly unit covariance."""
    wells = rng.normal(size=(n, d)) + np.where(np.arange(n) < n // 2, 0, 2)[:, None]
    is_control = np.arange(n) < n // 2
    wells -= wells[is_control].mean(axis=0)
    factor = np.linalg.cholesky(np.linalg.inv(np.cov(wells[is_control].T)))
    return wells @ factor, is_control


def seen_in_two_weeks(wells, is_control, mapping, offset):
    both = np.vstack([wells, wells @ mapping + offset])
    return both, np.tile(is_control, 2), ["w1"] * len(wells) + ["w2"] * len(wells)


def symmetric(rng, d=4):
    mixing = np.eye(d) + 0.5 * rng.normal(size=(d, d))
    return mixing @ mixing.T


@pytest.mark.parametrize("seed", range(5))
def test_an_affine_shift_is_repaired_exactly_if_batches_are_centred(seed):
    rng = np.random.default_rng(seed)
    wells, control = white_wells(rng)
    features, is_control, batch = seen_in_two_weeks(
        wells, control, symmetric(rng), rng.normal(size=4)
    )
    n = len(wells)
    centred = centre_batches(features, is_control, batch)
    repaired = align_batches(centred, is_control, batch, ridge=0)
    np.testing.assert_allclose(repaired[:n], repaired[n:], atol=1e-9)
    # Without, what the second week adds to every well stays, through CORAL's own map of it.
    left = align_batches(features, is_control, batch, ridge=0)
    gap = left[n:] - left[:n]
    np.testing.assert_allclose(gap, np.tile(gap[:1], (n, 1)), atol=1e-9)
    assert np.linalg.norm(gap[0]) > 0.1


def test_of_a_mapping_that_turns_the_turn_is_what_stays():
    """The polar decomposition, A = P Q: CORAL undoes P, and cannot know Q."""
    rng = np.random.default_rng(0)
    wells, control = white_wells(rng)
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    features, is_control, batch = seen_in_two_weeks(wells, control, symmetric(rng) @ turn, 3.0)
    centred = centre_batches(features, is_control, batch)
    repaired = align_batches(centred, is_control, batch, ridge=0)
    first, second = repaired[: len(wells)], repaired[len(wells) :]
    # Both in the coordinates in which all controls are white.
    back = np.real(fractional_matrix_power(np.cov(centred[is_control].T), -0.5))
    np.testing.assert_allclose(second @ back, first @ back @ turn, atol=1e-8)


def test_with_fewer_controls_the_repair_is_less_exact():
    """Other wells in the second week: what is left is the error of estimating from n controls."""
    left = {}
    for n in (10, 40, 160, 640):
        rng = np.random.default_rng(n)
        treated = rng.normal(size=(40, 4)) + 3
        mapping, offset = symmetric(np.random.default_rng(0)), 2.0
        weeks = [np.vstack([rng.normal(size=(n, 4)), treated]) for _ in range(2)]
        weeks[1] = weeks[1] @ mapping + offset
        is_control = np.tile(np.arange(n + 40) < n, 2)
        batch = ["w1"] * (n + 40) + ["w2"] * (n + 40)
        centred = centre_batches(np.vstack(weeks), is_control, batch)
        done = align_batches(centred, is_control, batch, ridge=0)[~is_control]
        left[n] = np.linalg.norm(done[:40] - done[40:]) / np.linalg.norm(done[:40])
    assert left[10] > left[40] > left[160] > left[640]
    assert left[640] < 0.1  # as one over the root of n


def test_a_week_without_controls_is_moved_by_the_mean_of_all_controls():
    features, is_control, batch = plates()
    is_control &= np.array(batch) != "w1"
    centred = centre_batches(features, is_control, batch)
    np.testing.assert_allclose(centred, features - features[is_control].mean(axis=0))


def test_centring_comes_before_whitening():
    features, is_control, batch = plates()
    features[np.array(batch) == "w1"] += 9
    done = normalise_typical_variation(features, is_control, batch, 0, centre=True)
    for name in ("w0", "w1"):
        mine = is_control & (np.array(batch) == name)
        np.testing.assert_allclose(done[mine].mean(axis=0), 0, atol=1e-8)
        n = int(is_control.sum())
        np.testing.assert_allclose(np.cov(done[mine].T), np.eye(5) * n / (n - 1), atol=1e-8)


@pytest.mark.parametrize("n_controls", [0, 1])
def test_too_few_controls_are_told(n_controls):
    features = np.random.default_rng(0).normal(size=(5, 2))
    with pytest.raises(EvaluationError, match=f"There are {n_controls} control wells"):
        whiten(features, np.arange(5) < n_controls)
