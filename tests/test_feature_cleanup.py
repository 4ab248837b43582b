import numpy as np
import pytest

from ccrl_wsi.errors import EvaluationError
from ccrl_wsi.evaluation.feature_cleanup import (
    is_about_the_record,
    is_moderate,
    is_no_repetition,
    is_usable,
    standardise,
)

CONTROLS = np.array([[1.0], [2.0], [3.0], [4.0], [100.0]])


def test_median_and_mad_of_the_controls():
    features = np.vstack([CONTROLS, [[3.0 + 1.4826]]])
    is_control = np.arange(6) < 5
    scaled = standardise(features, is_control, [""] * 6, "mad")
    # Median 3; deviations 2, 1, 0, 1, 97: median 1.
    np.testing.assert_allclose(scaled[5], 1)
    np.testing.assert_allclose(scaled[2], 0)


def test_mean_and_deviation_of_the_controls_of_each_plate():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 3)) * np.repeat([[1], [9]], 20, axis=0) + 5
    plate = ["p1"] * 20 + ["p2"] * 20
    is_control = np.arange(40) % 2 == 0
    scaled = standardise(features, is_control, plate, "sd")
    for name in ("p1", "p2"):
        mine = scaled[is_control & (np.array(plate) == name)]
        np.testing.assert_allclose(mine.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(mine.std(axis=0), 1)


def test_a_feature_that_controls_do_not_vary_in_is_not_usable():
    features = np.array([[1.0, 5.0], [1.0, 6.0], [2.0, 9.0]])
    scaled = standardise(features, np.array([True, True, False]), [""] * 3, "sd")
    assert is_usable(scaled).tolist() == [False, True]


def test_a_group_without_controls_is_told_by_name():
    with pytest.raises(EvaluationError, match="p2: 0 control wells"):
        standardise(np.ones((3, 1)), np.array([True, True, False]), ["p1", "p1", "p2"], "sd")


def test_usable_features_are_finite_and_vary():
    features = np.array([[1, np.nan, 3, np.inf], [1, 2, 4, 5]])
    assert is_usable(features).tolist() == [False, False, True, False]


def test_names_that_tell_of_place_or_numbering():
    names = (
        "Cells_AreaShape_Area",
        "Cells_AreaShape_Center_X",
        "Nuclei_Parent_Cells",
        "Nuclei_Location_Center_Y",
        "Cells_AreaShape_Orientation",
        "Cells_Number_Object_Number",
        "Cells_Intensity_MeanIntensity_CorrActin",
    )
    assert is_about_the_record(names).tolist() == [False, True, True, True, True, True, False]


def test_features_that_explode():
    assert is_moderate(np.array([[1.0, -900.0], [400.0, 0.0]]), 500).tolist() == [True, False]


def test_no_two_kept_features_correlate_closely_and_none_is_left_out_for_nothing():
    rng = np.random.default_rng(1)
    base = rng.normal(size=(300, 4))
    copies = base[:, [0, 0, 1]] * [1, -2, 3] + 0.01 * rng.normal(size=(300, 3))
    features = np.hstack([base, copies])
    kept = is_no_repetition(features, 0.9)
    correlation = np.abs(np.corrcoef(features.T))
    np.fill_diagonal(correlation, 0)
    assert correlation[np.ix_(kept, kept)].max() <= 0.9
    assert (correlation[~kept][:, kept].max(axis=1) > 0.9).all()
    assert kept.sum() == 4


def test_one_feature_repeats_nothing():
    assert is_no_repetition(np.ones((3, 1)), 0.9).tolist() == [True]
