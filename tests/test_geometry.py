"""Boxes are half open; grid and level-0 pixels convert back and forth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.geometry import Box, PixelGrid, um_to_px

boxes = st.builds(
    Box, st.integers(-50, 50), st.integers(-50, 50), st.integers(0, 60), st.integers(0, 60)
)


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(x, y) for x in range(box.left, box.right) for y in range(box.top, box.bottom)}


@given(boxes, boxes)
def test_clipping_keeps_exactly_the_common_pixels(a, b):
    assert pixels(a.clipped(b)) == pixels(a) & pixels(b)
    assert a.area == len(pixels(a))


@given(boxes, st.integers(0, 9))
def test_a_grown_box_encloses_the_box(box, margin):
    assert box.grown(margin).encloses(box)
    assert box.grown(margin).width == box.width + 2 * margin


def test_left_and_top_edges_are_inside_and_right_and_bottom_ones_are_not():
    xy = np.array([[2.0, 3.0], [11.9, 7.9], [12.0, 5.0], [5.0, 8.0], [1.9, 3.0]])
    assert Box(2, 3, 10, 5).contains(xy).tolist() == [True, True, False, False, False]


@given(st.floats(0.1, 20), st.integers(-999, 999), st.floats(-1e5, 1e5))
def test_level0_and_grid_coordinates_convert_back(scale, origin, x):
    grid = PixelGrid(0.25, scale, (origin, 2 * origin), 100, 100)
    there = grid.to_level0(np.array([[x, -x]]))
    np.testing.assert_allclose(grid.from_level0(there), [[x, -x]], rtol=1e-9, atol=1e-6)


def test_the_grids_corner_is_its_origin():
    grid = PixelGrid(0.5, 2.0, (100, 40), 30, 20)
    assert grid.to_level0(np.array([[0, 0], [30, 20]])).tolist() == [[100, 40], [160, 80]]
    assert grid.pixel_area_um2 == 0.25


@pytest.mark.parametrize(
    ("um", "mpp", "px"), [(32, 0.25, 128), (32.01, 0.25, 129), (0, 0.5, 0), (0.3, 0.1, 3)]
)
def test_micrometres_are_rounded_up_to_whole_pixels(um, mpp, px):
    assert um_to_px(um, mpp) == px
