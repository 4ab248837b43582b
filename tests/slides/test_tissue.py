from __future__ import annotations

import gzip
import json

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.config import SlideSettings, TissueSettings
from ccrl_wsi.errors import SlideError
from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.records import SlideSource
from ccrl_wsi.slides.array_reader import open_array
from ccrl_wsi.slides.openslide_reader import open_slide
from ccrl_wsi.slides.resampling import make_grid
from ccrl_wsi.slides.staining import find_stained
from ccrl_wsi.slides.thumbnail import Thumbnail, read_thumbnail
from ccrl_wsi.slides.tissue import Tissue, find_tissue

MPP = 8.0
GLASS, PINK, PURPLE = (243, 242, 244), (225, 160, 200), (120, 80, 160)
GREEN_INK, BLUE_INK, BLACK = (30, 130, 80), (40, 60, 160), (8, 8, 8)
BARE = TissueSettings(margin_um=0)


def glass(height=200, width=300):
    noise = np.random.default_rng(0).normal(0, 2, (height, width, 3))
    return np.clip(np.array(GLASS) + noise, 0, 255).astype(np.uint8)


def with_tissue():
    rgb = glass()
    cv2.rectangle(rgb, (50, 40), (149, 119), PINK, -1)
    cv2.rectangle(rgb, (60, 50), (99, 89), PURPLE, -1)
    return rgb


def share_agreeing(mask, left, top, width, height):
    """Intersection over union with a rectangle."""
    truth = np.zeros_like(mask)
    truth[top : top + height, left : left + width] = True
    return (mask & truth).sum() / (mask | truth).sum()


def test_blank_glass_has_no_tissue():
    assert not find_stained(glass(), MPP, TissueSettings()).any()


def test_tissue_is_found_where_it_lies():
    assert share_agreeing(find_stained(with_tissue(), MPP, BARE), 50, 40, 100, 80) > 0.95


def test_a_slide_full_of_tissue_is_tissue_everywhere():
    rgb = np.full((100, 100, 3), PINK, np.uint8)
    rgb[20:60, 20:60] = PURPLE
    assert find_stained(rgb, MPP, TissueSettings()).all()


def test_ink_dust_and_black_borders_are_not_tissue():
    rgb = with_tissue()
    cv2.line(rgb, (200, 20), (260, 180), GREEN_INK, 9)
    cv2.line(rgb, (180, 180), (260, 100), BLUE_INK, 9)
    cv2.line(rgb, (180, 30), (280, 30), BLACK, 5)
    cv2.circle(rgb, (30, 160), 12, (120, 120, 120), -1)
    rgb[:, :10] = BLACK
    assert share_agreeing(find_stained(rgb, MPP, BARE), 50, 40, 100, 80) > 0.93


def test_specks_vanish_and_small_holes_close():
    rgb = with_tissue()
    cv2.circle(rgb, (250, 150), 3, PINK, -1)  # 28 px = 1,800 um2
    cv2.circle(rgb, (125, 80), 7, GLASS, -1)  # 150 px = 10,000 um2
    cv2.rectangle(rgb, (110, 95), (140, 114), GLASS, -1)  # 620 px = 40,000 um2
    mask = find_stained(rgb, MPP, BARE)
    assert not mask[150, 250]
    assert mask[80, 125]
    assert not mask[105, 125]


def test_the_margin_widens_by_what_it_says():
    narrow = find_stained(with_tissue(), MPP, BARE)
    wide = find_stained(with_tissue(), MPP, TissueSettings(margin_um=24))
    rows, wide_rows = np.flatnonzero(narrow.any(axis=1)), np.flatnonzero(wide.any(axis=1))
    assert rows[0] - wide_rows[0] == wide_rows[-1] - rows[-1] == 3


def test_turning_the_search_off_looks_everywhere():
    reader = open_array((glass(),), MPP)
    tissue = find_tissue(read_thumbnail(reader, MPP), reader.info, TissueSettings(method="none"))
    assert tissue.area_um2 == 200 * 300 * MPP**2
    assert tissue.contains(np.array([[0.1, 0.1], [299.9, 199.9], [301, 5]])).tolist() == [1, 1, 0]


def test_a_thumbnail_comes_from_the_lowest_level_that_will_do():
    blank = np.full((800, 1200, 3), 255, np.uint8)
    low = with_tissue()
    thumbnail = read_thumbnail(open_array((blank, low), 2.1), 8.0)
    assert np.array_equal(thumbnail.rgb, low)
    assert thumbnail.grid.mpp == pytest.approx(8.4)


@pytest.fixture
def drawn():
    mask = np.zeros((20, 30), np.bool_)
    mask[5:10, 10:20] = True
    return Tissue(mask, PixelGrid(8.0, 16.0, (100, 200), 30, 20))


def test_points_are_looked_up_in_the_mask(drawn):
    left, top, right, bottom = 100 + 160, 200 + 80, 100 + 320, 200 + 160
    inside = [[left, top], [right - 0.01, bottom - 0.01]]
    outside = [[left - 0.01, top], [right, top], [left, bottom], [-5e6, 0], [5e6, 0]]
    assert drawn.contains(np.array(inside)).all()
    assert not drawn.contains(np.array(outside)).any()
    assert drawn.contains(np.zeros((0, 2))).shape == (0,)


def test_area_counts_mask_pixels(drawn):
    assert drawn.area_um2 == 50 * 64


@given(
    left=st.integers(-40, 700),
    top=st.integers(-40, 500),
    side=st.integers(1, 200),
    geom=st.booleans(),
)
def test_a_box_touches_if_it_shares_any_area(left, top, side, geom):
    """Against the mask enlarged to level 0; grid pixels of 2 level-0 px."""
    mask = np.zeros((20, 30), np.bool_)
    mask[5:10, 10:20] = True
    area = shapely.box(260, 280, 420, 360) if geom else None
    tissue = Tissue(mask, PixelGrid(8.0, 16.0, (100, 200), 30, 20), area)
    tiles = PixelGrid(1.0, 2.0, (0, 0), 400, 400)
    box = Box(left, top, side, side)
    overlap = box.clipped(Box(130, 140, 80, 40)).area > 0
    shares_edge = left in (210, 130 - side) or top in (180, 140 - side)
    assert tissue.touches(box, tiles) == overlap or (geom and shares_edge)


@pytest.mark.parametrize("geometry", [None, shapely.box(10, 20, 30, 40.5)])
def test_a_tissue_survives_its_file(drawn, tmp_path, geometry):
    tissue = Tissue(drawn.mask, drawn.grid, geometry)
    tissue.to_npz(tmp_path / "tissue.npz")
    back = Tissue.from_npz(tmp_path / "tissue.npz")
    assert np.array_equal(back.mask, drawn.mask)
    assert back.grid == drawn.grid
    assert back.geometry == geometry


def square(left, top, side):
    return shapely.box(left, top, left + side, top + side)


def geometry_of(*shapes):
    return json.loads(shapely.to_geojson(shapely.union_all(shapes)))


def feature(geometry):
    return {"type": "Feature", "geometry": geometry, "properties": {"name": "x"}}


RING = shapely.Polygon(square(100, 100, 200).exterior, [square(150, 150, 50).exterior.coords])
TREES = {
    "bare": geometry_of(RING, square(400, 400, 50)),
    "feature": feature(geometry_of(RING, square(400, 400, 50))),
    "collection": {
        "type": "FeatureCollection",
        "features": [feature(geometry_of(RING)), feature(geometry_of(square(400, 400, 50)))],
    },
    "list": [feature(geometry_of(RING)), geometry_of(square(400, 400, 50))],
    "with a point": [
        geometry_of(RING),
        geometry_of(square(400, 400, 50)),
        {"type": "Point", "coordinates": [1, 2]},
    ],
    "overlapping": [
        geometry_of(RING),
        geometry_of(square(400, 400, 50)),
        geometry_of(square(410, 410, 9)),
    ],
}


def drawn_regions(path, bounds=None, **settings):
    reader = open_array((np.full((600, 800, 3), 255, np.uint8),), 0.5, "s1", bounds)
    settings = TissueSettings(method="geojson", regions=path, **settings)
    return find_tissue(read_thumbnail(reader, 8.0), reader.info, settings)


@pytest.mark.parametrize("kind", TREES)
def test_every_shape_of_geojson_is_understood(tmp_path, kind):
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(TREES[kind]))
    tissue = drawn_regions(path)
    assert tissue.area_um2 == pytest.approx((200**2 - 50**2 + 50**2) * 0.25)
    points = np.array([[100.01, 150], [99.9, 150], [175, 175], [425, 425], [399, 399]])
    assert tissue.contains(points).tolist() == [True, False, False, True, False]
    assert tissue.mask.sum() * tissue.grid.mpp**2 == pytest.approx(tissue.area_um2, rel=0.25)
    assert not tissue.mask[175 // 16, 175 // 16]


def test_regions_count_from_the_scanned_area_unless_told_otherwise(tmp_path):
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(geometry_of(square(100, 100, 50))))
    bounds, point = Box(40, 30, 600, 500), np.array([[100 + 40 + 45, 100 + 30 + 45]])
    assert drawn_regions(path, bounds).contains(point).all()
    assert not drawn_regions(path, bounds, regions_from_bounds=False).contains(point).any()


def test_regions_are_cut_at_the_slide(tmp_path):
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(geometry_of(square(700, 500, 1000))))
    assert drawn_regions(path).area_um2 == pytest.approx(100 * 100 * 0.25)
    path.write_text(json.dumps(geometry_of(square(5000, 5000, 10))))
    outside = r"regions \(x 5000 to 5010, y 5000 to 5010\) lie outside .*x 0 to 800, y 0 to 600"
    with pytest.raises(SlideError, match=outside):
        drawn_regions(path)


def test_regions_that_are_ignored_as_a_whole_are_told(tmp_path):
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps([classed(square(150, 150, 20), c) for c in ("Ignore*", "Tumor")]))
    with pytest.raises(SlideError, match="cover all regions"):
        drawn_regions(path)


def test_a_folder_holds_one_file_a_slide(tmp_path):
    with pytest.raises(SlideError, match=r"no regions for s1: .*s1\.geojson does not exist"):
        drawn_regions(tmp_path)
    text = json.dumps(geometry_of(square(0, 0, 10)))
    (tmp_path / "s1.geojson.gz").write_bytes(gzip.compress(text.encode()))
    assert drawn_regions(tmp_path).area_um2 == pytest.approx(25)


@pytest.mark.parametrize(
    ("text", "sentence"),
    {
        "{": "is not the GeoJSON of regions",
        '{"type": "Nothing"}': "is not the GeoJSON of regions",
        '{"a": 1}': "is not the GeoJSON of regions",
        "7": "is not the GeoJSON of regions",
        "[null]": "is not the GeoJSON of regions",
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}': "is not the GeoJSON of regions",
        "[]": "holds no Polygon",
        '{"type": "Point", "coordinates": [1, 2]}': "holds no Polygon",
    }.items(),
)
def test_a_faulty_regions_file_says_so(tmp_path, text, sentence):
    path = tmp_path / "r.geojson"
    path.write_text(text)
    with pytest.raises(SlideError, match=sentence):
        drawn_regions(path)


SHARES = {
    "cmu-1-small-region.svs": (0.40, 0.60),
    "ectopic_pancreas_HE_40x_crop6144.svs": (0.98, 1.0),
    "crohn_colon_biopsy_HE4_20x.tif": (0.19, 0.27),
}


@pytest.mark.data
@pytest.mark.parametrize("name", SHARES)
def test_tissue_of_real_slides_has_the_area_seen_by_eye(data_dir, name):
    source = SlideSource(data_dir / "slides" / name, "s")
    with open_slide(source, SlideSettings()) as reader:
        thumbnail = read_thumbnail(reader, 8.0)
        tissue = find_tissue(thumbnail, reader.info, TissueSettings())
        tiles = make_grid(reader.info, 0.25, 0.01)
    low, high = SHARES[name]
    assert low <= tissue.mask.mean() <= high
    assert tissue.touches(tiles.extent, tiles)
    if "crohn" in name:  # the middle of the diagonal piece, and glass beside it
        at = np.array([[0.625, 0.27], [0.75, 0.60], [0.02, 0.9]]) * (20014, 15177)
        assert tissue.contains(at).tolist() == [True, False, False]


def test_a_mask_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        Tissue(np.ones((3, 3), np.bool_), PixelGrid(8, 16, (0, 0), 4, 3))


def test_a_thumbnail_of_a_huge_single_level_is_read_in_pieces(monkeypatch):
    rgb = np.full((3000, 5000, 3), 200, np.uint8)
    reader = open_array((rgb,), 0.25)
    sizes = []
    original = type(reader)._read_level

    def noted(self, level, box):
        sizes.append(box.area)
        return original(self, level, box)

    monkeypatch.setattr(type(reader), "_read_level", noted)
    monkeypatch.setattr("ccrl_wsi.slides.resampling.MAX_SOURCE_SIDE", 512)
    thumbnail = read_thumbnail(reader, 8.0)
    assert isinstance(thumbnail, Thumbnail)
    assert (thumbnail.rgb[:93, :156] == 200).all()
    assert max(sizes) <= 512**2


@given(st.lists(st.integers(1, 70), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_areas_in_boxes_that_cover_the_slide_are_together_the_area(widths, seed):
    mask = np.random.default_rng(seed).random((9, 11)) < 0.5
    tissue = Tissue(mask, PixelGrid(8.0, 16.0, (0, 0), 11, 9))
    grid = PixelGrid(0.5, 1.0, (0, 0), 11 * 16, 9 * 16)
    cuts = [*np.minimum(np.cumsum([0, *widths]), grid.width), grid.width]
    boxes = [Box(int(a), 0, int(b - a), 9 * 16) for a, b in zip(cuts, cuts[1:], strict=False)]
    drawn = Tissue(mask, tissue.grid, shapely.box(10, 20, 100, 90))
    for one in (tissue, drawn):
        areas = [one.area_in_um2(box, grid) for box in boxes]
        assert sum(areas) == pytest.approx(one.area_um2)
    assert tissue.area_in_um2(Box(0, 0, 16, 16), grid) == mask[0, 0] * 64
    assert tissue.area_in_um2(Box(0, 0, 8, 16), grid) == mask[0, 0] * 32


def classed(geometry, name):
    feature = {"type": "Feature", "geometry": geometry_of(geometry), "properties": {}}
    feature["properties"]["classification"] = {"name": name, "color": [1, 2, 3]}
    return feature


@pytest.mark.parametrize(
    ("name", "side_in_um2"),
    [("Ignore*", 300**2 - 200**2), ("Artefact*", 300**2 - 200**2), ("Region*", 300**2)],
)
def test_what_qupath_ignores_is_cut_out_of_the_regions(tmp_path, name, side_in_um2):
    path = tmp_path / "r.geojson"
    drawn = [classed(square(150, 150, 200), name), classed(square(100, 100, 300), "Tumor")]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": drawn}))
    assert drawn_regions(path).area_um2 == pytest.approx(side_in_um2 * 0.25)


def test_ignored_areas_alone_are_no_regions(tmp_path):
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(classed(square(150, 150, 200), "Ignore*")))
    with pytest.raises(SlideError, match="ignored classes"):
        drawn_regions(path)
