import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ccrl_wsi.embeddings.size_feature import SizeFeature, size_column, size_feature
from ccrl_wsi.errors import ModelError


def cells(n=200, d=5, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(3, [1, 2, 0.5, 4, 0.1][:d], (n, d)).astype(np.float32)
    return vectors, rng.lognormal(3.5, 0.5, n).astype(np.float32)


def test_the_column_is_the_standardised_logarithm_times_the_factor():
    size = SizeFeature(mean=np.log(50), std=0.5, factor=3)

    found = size_column(np.array([50, 50 * np.e, 50 / np.e**2], np.float32), size)

    np.testing.assert_allclose(found, [0, 6, -12], atol=1e-5)
    assert found.dtype == np.float32


@given(weight=st.floats(0.01, 10), scale=st.floats(0.01, 100), unit=st.floats(0.01, 100))
def test_the_new_dimension_has_the_asked_share_of_the_variance(weight, scale, unit):
    vectors, area = cells()

    column = size_column(area * unit, size_feature(vectors * scale, area * unit, weight))

    total = (vectors * scale).var(axis=0, dtype=np.float64).sum()
    assert column.var(dtype=np.float64) == pytest.approx(weight**2 * total, rel=1e-3)
    assert column.mean(dtype=np.float64) == pytest.approx(0, abs=1e-3 * float(column.std()))


def test_at_weight_one_size_and_look_are_equal_parts_of_squared_distances():
    vectors, area = cells()
    column = size_column(area, size_feature(vectors, area, 1))

    def mean_squared(x):
        return np.mean(
            np.square(x[:, None].astype(np.float64) - x[None]).reshape(200, 200, -1).sum(2)
        )

    assert mean_squared(column[:, None]) == pytest.approx(mean_squared(vectors), rel=1e-4)


def test_mean_and_std_are_those_of_the_logarithm():
    vectors, area = cells()

    size = size_feature(vectors, area, 1)

    assert size.mean == pytest.approx(np.mean(np.log(area)), rel=1e-6)
    assert size.std == pytest.approx(np.std(np.log(area)), rel=1e-6)


@pytest.mark.parametrize("area", [0.0, -1.0, np.nan, np.inf, -np.inf])
def test_an_area_that_no_nucleus_has_is_refused_and_never_infinity(area):
    areas = np.array([10, area, 20], np.float32)

    with pytest.raises(ValueError, match="nucleus 1 is .*not one pixel"):
        size_column(areas, SizeFeature(mean=3, std=1, factor=1))
    with pytest.raises(ValueError, match="nucleus 1"):
        size_feature(np.eye(3, dtype=np.float32), areas, 1)


def test_a_nucleus_of_one_small_pixel_has_a_finite_size():
    assert np.isfinite(size_column(np.array([0.05**2]), SizeFeature(mean=3, std=1, factor=1)))


def test_no_cells_have_no_sizes():
    assert size_column(np.zeros(0, np.float32), SizeFeature(mean=3, std=1, factor=1)).shape == (0,)


@pytest.mark.parametrize("n", [0, 1, 7])
def test_cells_of_one_size_or_one_look_cannot_be_weighed(n):
    vectors, area = cells(n)

    with pytest.raises(ModelError, match="equal areas"):
        size_feature(vectors, np.full(n, 30.1, np.float32), 1)
    with pytest.raises(ModelError, match=r"equal .*export\.size_weight=0"):
        size_feature(np.full((n, 5), 0.1, np.float32), area, 1)


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_is_positive(weight):
    with pytest.raises(ValueError, match="weight"):
        size_feature(*cells(), weight)


def test_every_embedding_has_its_area():
    vectors, area = cells()
    with pytest.raises(ValueError, match="200 embeddings, 199 areas"):
        size_feature(vectors, area[1:], 1)


@pytest.mark.parametrize("wrong", [{"std": 0}, {"factor": 0}, {"mean": np.nan}, {"unit": 1}])
def test_a_size_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError):
        SizeFeature(**{"mean": 3.0, "std": 1.0, "factor": 1.0, **wrong})
