"""Every nucleus has exactly one owner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_wsi.geometry import Box
from ccrl_wsi.tiles.grid import aligned_core_px, cut_tiles, group_tiles, reading_order
from ccrl_wsi.tiles.seams import centroids, inner_sides, is_owned, shift_sums

SIZES = st.integers(1, 400)


@given(width=SIZES, height=SIZES, core=st.integers(16, 300), halo=st.integers(0, 64))
def test_cores_cover_the_grid_once_and_reads_enclose_cores(width, height, core, halo):
    extent = Box(0, 0, width, height)
    seen = np.zeros((height, width), int)
    for tile in cut_tiles(extent, core, halo):
        seen[tile.core.top : tile.core.bottom, tile.core.left : tile.core.right] += 1
        assert tile.read.encloses(tile.core)
        assert extent.encloses(tile.read)
    assert (seen == 1).all()


@st.composite
def pixel_sets(draw):
    """A nucleus: up to 40 distinct pixels within a 12-px square, anywhere in 200 x 150."""
    left, top = draw(st.integers(0, 187)), draw(st.integers(0, 137))
    cells = draw(
        st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=40)
    )
    return np.array(sorted(cells)) + [left, top]


@settings(max_examples=200)
@given(pixels=pixel_sets(), core=st.integers(16, 200), extra=st.integers(0, 20))
def test_a_nucleus_is_owned_by_exactly_one_tile_that_sees_it_whole(pixels, core, extra):
    extent = Box(0, 0, 200, 150)
    owners = []
    for tile in cut_tiles(extent, core, 12 + extra):
        local = pixels - [tile.read.left, tile.read.top]
        is_seen = ((local >= 0) & (local < [tile.read.width, tile.read.height])).all(axis=1)
        if not is_seen.any():
            continue
        sums, count = local[is_seen].sum(axis=0)[None], np.array([is_seen.sum()])
        if is_owned(shift_sums(sums, count, tile.read), count, tile.core)[0]:
            owners.append(is_seen.all())
    assert owners == [True]


def test_a_centroid_on_the_seam_belongs_to_the_right_tile_only():
    sums, count = np.array([[63 + 64, 10 + 10]]), np.array([2])
    np.testing.assert_array_equal(centroids(sums, count), [[64.0, 10.5]])
    left, right = Box(0, 0, 64, 64), Box(64, 0, 64, 64)
    assert not is_owned(sums, count, left)[0]
    assert is_owned(sums, count, right)[0]


def test_partitions_are_numbered_in_grid_order_whatever_is_wanted():
    tiles = cut_tiles(Box(0, 0, 500, 300), 100, 10)
    everything = group_tiles(tiles, 2, lambda box: True)
    assert [p.number for p in everything] == [0, 1, 2, 3, 4, 5]
    assert [len(p.tiles) for p in everything] == [4, 4, 2, 2, 2, 1]
    some = group_tiles(tiles, 2, lambda box: box.left >= 200)
    assert [p.number for p in some] == [1, 2, 4, 5]
    assert some[0] == everything[1]


def test_sides_at_the_edge_of_the_slide_are_not_inner():
    extent = Box(0, 0, 300, 300)
    corner, *_, last = cut_tiles(extent, 100, 10)
    assert inner_sides(corner, extent) == (False, False, True, True)
    assert inner_sides(last, extent) == (True, True, False, False)


def test_tiles_are_read_in_columns_from_the_bottom_up():
    tiles = cut_tiles(Box(0, 0, 200, 300), 100, 10)
    places = [(tile.row, tile.column) for tile in reading_order(tiles)]
    assert places == [(2, 0), (1, 0), (0, 0), (2, 1), (1, 1), (0, 1)]


def slow_aligned(core, width, height):
    """Every side within an eighth that is whole tiles and whole steps of 8; the nearest, lower."""
    near = [
        side
        for side in range(1, 2 * core)
        if side % width == side % height == side % 8 == 0 and 8 * abs(side - core) <= core
    ]
    return min(near, key=lambda side: (abs(side - core), side), default=core)


@given(
    core=st.integers(8, 500).map(lambda n: 8 * n),
    tile=st.tuples(st.integers(1, 600), st.integers(1, 600)),
)
def test_a_core_is_the_nearest_whole_number_of_file_tiles_within_an_eighth(core, tile):
    assert aligned_core_px(core, 300, tile, 8) == slow_aligned(core, *tile)


@pytest.mark.parametrize(
    ("core", "tile", "expected"),
    [
        (2048, (240, 240), 2160),
        (1024, (240, 240), 960),
        (2048, (256, 256), 2048),
        (2048, None, 2048),
        (2048, (3968, 8), 2048),  # strips
        (2048, (250, 250), 2000),
        (2048, (300, 300), 1800),  # 2100 is nearer, but no multiple of 8
        (192, (240, 240), 192),  # too far
        (2048, (264, 264), 2048),  # a margin of less than half a file tile
    ],
)
def test_cores_end_with_the_tiles_of_usual_files(core, tile, expected):
    halo = 160 if tile == (300, 300) else 128
    assert aligned_core_px(core, halo, tile, 8) == expected


@given(core=st.integers(8, 60), halo=st.integers(1, 40), tile=st.integers(2, 80))
def test_aligned_cores_never_touch_more_file_tiles_than_others_do_on_average(core, halo, tile):
    core, n = 8 * core, 2
    aligned = aligned_core_px(core, halo, (tile, tile), 1)
    if aligned == core or halo > tile:
        return
    length = n * aligned
    touched = -(-(length + halo) // tile) - (-halo // tile)
    elsewhere = [-(-(s + length + halo) // tile) - ((s - halo) // tile) for s in range(tile)]
    assert touched <= np.mean(elsewhere)
