import numpy as np
import pandas as pd
import pytest

from ccrl_wsi.evaluation.profile_aggregation import average_rows, to_treatments, to_wells
from ccrl_wsi.profile_set import ABOUT, Profiles


def profiles(rows, features):
    about = pd.DataFrame(rows, columns=list(ABOUT))
    return Profiles(np.asarray(features, float), ("f",), about)


CELLS = profiles(
    [
        ("Week1_1", "B02", "Week1", "taxol", 0.3, "S"),
        ("Week1_1", "B03", "Week1", "taxol", 1.0, "S"),
        ("Week1_1", "B02", "Week1", "taxol", 0.3, "S"),
        ("Week2_2", "B02", "Week2", "taxol", 0.3, "S"),
        ("Week1_1", "B02", "Week1", "taxol", 0.3, "S"),
        ("Week2_2", "C04", "Week2", "taxol", 0.3, "S"),
    ],
    [[1], [50], [2], [10], [6], [1000]],
)


@pytest.mark.parametrize(("how", "expected"), [("mean", 3), ("median", 2)])
def test_cells_to_wells(how, expected):
    wells = to_wells(CELLS, how)
    assert wells.text("well") == ["B02", "B03", "B02", "C04"]  # two plates have a well B02
    assert wells.features[:, 0].tolist() == [expected, 50, 10, 1000]


def test_wells_to_treatments_are_one_compound_at_one_concentration():
    treatments = to_treatments(to_wells(CELLS, "mean"), "median")
    assert treatments.about["concentration"].tolist() == [0.3, 1.0]
    assert treatments.features[:, 0].tolist() == [10, 50]
    assert treatments.text("batch") == ["Week1,Week2", "Week1"]


def test_averages_of_no_rows_and_of_gaps():
    values = np.array([[1.0, 1.0], [3.0, np.nan]])
    averages = average_rows(values, np.array([1, 1]), 2, "mean")
    assert np.isnan(averages[0]).all()
    assert averages[1, 0] == 2
    assert np.isnan(averages[1, 1])  # a gap is not passed over


def test_rows_without_a_concentration_belong_together():
    rows = [("p", "A01", "b", "x", np.nan, "M"), ("p", "A02", "b", "x", np.nan, "M")]
    assert len(to_treatments(profiles(rows, [[1], [3]]), "mean")) == 1
