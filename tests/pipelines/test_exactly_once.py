"""Whatever the tiles: every nucleus comes out once, and comes out the same."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_wsi.config import load_settings
from ccrl_wsi.records import Cells
from ccrl_wsi.slides.array_reader import open_array
from ccrl_wsi.slides.resampling import make_grid
from ccrl_wsi.slides.tissue import Tissue
from ccrl_wsi.synthetic import DrawnSlideSpec, PerfectSegmenter, draw_slide, paint_labels
from ccrl_wsi.tiles.grid import cut_tiles
from pipelines.stopwatch import Stopwatch
from pipelines.tile_pass import SlideView, TilePixels, cells_of_tile

MPP = 0.5
SETTINGS = load_settings(
    overrides=[
        "nuclei.min_area_um2=0",
        "nuclei.max_area_um2=1e6",
        "crops.scale=2",
        "crops.size_px=32",
    ]
)


@lru_cache(maxsize=1)
def truth():
    """A slide painted with its own labels, crowded, with nuclei on its edges and corners."""
    spec = DrawnSlideSpec(
        width_px=420,
        height_px=330,
        mpp=MPP,
        n_nuclei=90,
        seed=1,
        centres_px=((1, 1), (419, 329), (210, 0), (128, 128), (256, 128)),
    )
    return draw_slide(spec)


@lru_cache(maxsize=1)
def view():
    reader = open_array([paint_labels(truth().labels)], MPP)
    grid = make_grid(reader.info, MPP, 0.01)
    everywhere = Tissue(np.ones((grid.height, grid.width), bool), grid)
    return SlideView(reader, grid, everywhere)


def cells(core_px, halo_px):
    v = view()
    found = []
    for tile in cut_tiles(v.grid.extent, core_px, halo_px):
        rgb = v.reader.read(tile.read, v.grid)
        found.append(
            cells_of_tile(TilePixels(rgb), tile, v, PerfectSegmenter(), SETTINGS, Stopwatch())[0]
        )
    joined = Cells.concat(found)
    return joined.where(np.lexsort(joined.centroid_px.T))


@lru_cache(maxsize=1)
def largest_nucleus_px():
    places = [np.argwhere(truth().labels == i + 1) for i in range(len(truth().area_px))]
    return max(int(np.ptp(p, axis=0).max()) + 1 for p in places)


def test_one_tile_finds_the_truth():
    whole = cells(1000, 0)
    order = np.lexsort(truth().centroid_px.T)
    np.testing.assert_allclose(whole.centroid_px, truth().centroid_px[order], atol=1e-9)
    np.testing.assert_allclose(whole.area_um2, truth().area_px[order] * MPP**2, rtol=1e-6)
    assert not whole.is_clipped.any()


@settings(max_examples=25, deadline=None)
@given(core_px=st.integers(64, 450), extra_px=st.integers(1, 40))
def test_any_tiles_find_the_same_cells_once_each(core_px, extra_px):
    whole, cut = cells(1000, 0), cells(core_px, largest_nucleus_px() + extra_px)
    assert not cut.is_clipped.any()
    for field in fields(Cells):
        if field.name in ("tile", "outlines"):
            continue
        np.testing.assert_array_equal(
            getattr(whole, field.name), getattr(cut, field.name), err_msg=field.name
        )
    np.testing.assert_array_equal(whole.outlines.start, cut.outlines.start)
    np.testing.assert_array_equal(whole.outlines.xy, cut.outlines.xy)


def test_a_halo_that_is_too_small_is_counted():
    assert cells(64, 2).is_clipped.any()
