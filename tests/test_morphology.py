import numpy as np
import pytest

from ccrl_wsi.embeddings.morphology import LINEAR, LOGARITHMIC, Morphology
from ccrl_wsi.measurement_names import NAMES


def table(n, **columns):
    values = np.ones((n, len(NAMES)), np.float32)
    for name, column in columns.items():
        values[:, NAMES.index(name)] = column
    return values


def test_columns_come_in_order_and_sizes_as_logarithms():
    measurements = table(1, area_um2=np.e - 1, solidity=0.5, orientation_deg=77.0)

    vector = Morphology()(np.zeros((1, 32, 32, 3), np.uint8), measurements)[0]

    assert vector[LOGARITHMIC.index("area_um2")] == pytest.approx(1)
    assert vector[len(LOGARITHMIC) + LINEAR.index("solidity")] == 0.5
    assert 77.0 not in vector


def test_how_a_nucleus_lies_does_not_matter():
    none = np.zeros((2, 32, 32, 3), np.uint8)

    vectors = Morphology()(none, table(2, orientation_deg=[5, 140], extent=[0.5, 0.9]))

    assert (vectors[0] == vectors[1]).all()


def test_another_table_is_refused():
    with pytest.raises(ValueError, match="3 measurements instead of"):
        Morphology()(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 3), np.float32))
