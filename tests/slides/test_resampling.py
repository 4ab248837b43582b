from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_wsi.geometry import Box
from ccrl_wsi.slides import resampling
from ccrl_wsi.slides.array_reader import open_array
from ccrl_wsi.slides.resampling import file_tile_px, make_grid
from tests.slide_files import noise, shrunk

BASE = noise(150, 203)
MPPS = st.floats(0.05, 3.0)
TOLERANCES = st.sampled_from([0.0, 0.01, 0.1])


def ramp(height, width):
    """Red is the column, green the row."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.arange(width)
    rgb[..., 1] = np.arange(height)[:, None]
    return rgb


@st.composite
def parts(draw, whole: Box) -> Box:
    left = draw(st.integers(whole.left, whole.right - 1))
    top = draw(st.integers(whole.top, whole.bottom - 1))
    width = draw(st.integers(1, whole.right - left))
    return Box(left, top, width, draw(st.integers(1, whole.bottom - top)))


@settings(deadline=None, max_examples=70)
@given(mpp=st.floats(0.08, 3.0), tolerance=TOLERANCES, bounds=st.booleans(), data=st.data())
def test_a_box_is_exactly_its_parts(mpp, tolerance, bounds, data):
    area = Box(13, 7, 171, 120) if bounds else None
    reader = open_array((BASE, shrunk(BASE, 4)), 0.25, bounds_px=area)
    grid = make_grid(reader.info, mpp, tolerance)
    whole = grid.extent.grown(5)
    rgb = reader.read(whole, grid)
    part = data.draw(parts(whole))
    cut = rgb[part.top + 5 : part.bottom + 5, part.left + 5 : part.right + 5]
    assert np.array_equal(reader.read(part, grid), cut)


@settings(deadline=None, max_examples=20)
@given(mpp=st.floats(0.08, 3.0), side=st.integers(8, 200))
def test_cutting_the_work_into_pieces_changes_nothing(mpp, side):
    reader = open_array((BASE,), 0.25)
    grid = make_grid(reader.info, mpp, 0.01)
    whole = reader.read(grid.extent, grid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "MAX_SOURCE_SIDE", side)
        assert np.array_equal(reader.read(grid.extent, grid), whole)


@given(mpp=MPPS, base=st.floats(0.1, 1.0))
def test_the_grid_is_within_the_tolerance_of_what_was_asked(mpp, base):
    info = open_array((BASE, shrunk(BASE, 4)), base).info
    grid = make_grid(info, mpp, 0.01)
    assert abs(grid.mpp - mpp) <= 0.0101 * mpp
    assert grid.mpp == pytest.approx(base * grid.scale)


@given(mpp=MPPS, tolerance=TOLERANCES)
def test_the_grid_covers_the_scanned_area_and_no_pixel_more(mpp, tolerance):
    bounds = Box(13, 7, 171, 120)
    info = open_array((BASE, shrunk(BASE, 4)), 0.25, bounds_px=bounds).info
    grid = make_grid(info, mpp, tolerance)
    (left, top), (right, bottom) = grid.to_level0(np.array([[0, 0], [grid.width, grid.height]]))
    assert left <= bounds.left
    assert top <= bounds.top
    assert bounds.right - 1e-6 <= right < bounds.right + grid.scale
    assert bounds.bottom - 1e-6 <= bottom < bounds.bottom + grid.scale


def test_a_level_close_enough_is_used_as_stored():
    low = noise(40, 50, seed=1)
    reader = open_array((noise(160, 200), low), 0.2501)
    grid = make_grid(reader.info, 1.0, 0.01)
    assert (grid.mpp, grid.scale) == (0.2501 * 4, 4)
    assert np.array_equal(reader.read(grid.extent, grid), low)


def test_the_coarsest_level_that_is_finer_is_reduced():
    blank = np.full((160, 200, 3), 255, np.uint8)
    low = noise(40, 50, seed=1)
    reader = open_array((blank, low, blank[:10, :13]), 0.25)
    grid = make_grid(reader.info, 2.0, 0.01)
    mean = low.reshape(20, 2, 25, 2, 3).mean(axis=(1, 3))
    assert np.abs(reader.read(grid.extent, grid) - mean).max() <= 0.5


@pytest.mark.parametrize("mpp", [0.1, 0.125, 0.21, 0.2378, 0.27, 0.3])
def test_enlarged_and_slightly_reduced_pixels_lie_where_the_grid_says(mpp):
    reader = open_array((ramp(150, 203),), 0.25)
    grid = make_grid(reader.info, mpp, 0.01)
    box = Box(31, 17, 60, 50)
    x = np.arange(box.left, box.right) + 0.5
    y = np.arange(box.top, box.bottom) + 0.5
    px = grid.to_level0(np.stack([x, np.resize(y, x.shape)], axis=1))[:, 0] - 0.5
    py = grid.to_level0(np.stack([y, y], axis=1))[:, 1] - 0.5
    rgb = reader.read(box, grid)
    # A cubic filter reproduces straight lines (OpenCV's to within its 2048 steps).
    assert np.abs(rgb[..., 0] - px[None, :]).max() < 0.75
    assert np.abs(rgb[..., 1] - py[:, None]).max() < 0.75


def test_reduced_pixels_are_means_of_what_they_cover():
    reader = open_array((BASE,), 0.25)
    grid = make_grid(reader.info, 0.75, 0.0)
    mean = BASE[:150, :201].reshape(50, 3, 67, 3, 3).mean(axis=(1, 3))
    assert np.abs(reader.read(Box(0, 0, 67, 50), grid) - mean).max() <= 0.5


def test_flat_colours_stay_flat_at_any_scale():
    reader = open_array((np.full((400, 400, 3), (200, 120, 180), np.uint8),), 0.25)
    for mpp in (0.07, 0.2, 0.26, 0.4, 1.3):
        grid = make_grid(reader.info, mpp, 0.01)
        inner = reader.read(grid.extent.grown(-10), grid)
        assert (inner == (200, 120, 180)).all()


def test_steps_are_as_simple_as_the_tolerance_allows():
    steps = {0.501: Fraction(1, 2), 0.9505: Fraction(61, 64), 4.01: Fraction(4)}
    for wanted, step in steps.items():
        assert resampling._simplest_step(wanted, 0.01) == step


@pytest.mark.parametrize(
    ("mpp", "corner", "expected"),
    [
        (0.25, (0, 0), (64, 32)),
        (0.25, (64, 32), (64, 32)),
        (0.25, (64, 31), None),  # the scanned area begins within a tile
        (1.0, (0, 0), (16, 16)),
        (1.0, (64, 0), (16, 16)),
        (1.0, (8, 0), None),
        (0.5, (0, 0), None),  # resampled
        (0.125, (0, 0), None),
    ],
)
def test_tiles_of_the_file_are_known_where_pixels_lie_in_them_as_stored(mpp, corner, expected):
    area = Box(*corner, 128, 96)
    plain = open_array((noise(256, 256), noise(64, 64)), 0.25, bounds_px=area).info
    info = replace(plain, level_tiles_px=((64, 32), (16, 16)))
    assert file_tile_px(info, make_grid(info, mpp, 0.01)) == expected
    assert file_tile_px(plain, make_grid(plain, mpp, 0.01)) is None
