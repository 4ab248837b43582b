import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.segmentation import relabel_sequential

from ccrl_wsi.geometry import PixelGrid
from ccrl_wsi.nuclei.outlines import (
    _areas,
    are_valid,
    as_polygons,
    outlines_to_level0,
    trace_outlines,
)
from ccrl_wsi.nuclei.regions import find_regions
from ccrl_wsi.records import Outlines

label_images = arrays.arrays(
    np.int32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(0, 3)
).map(lambda labels: relabel_sequential(labels)[0].astype(np.int32))


def grid(scale=1.0, origin=(0, 0)):
    return PixelGrid(0.25, scale, origin, 100_000, 100_000)


def one(mask):
    return trace_outlines(np.asarray(mask, dtype=np.int32))


def disc(radius, side=80, centre=(40, 40)):
    y, x = np.mgrid[:side, :side]
    return (x + 0.5 - centre[0]) ** 2 + (y + 0.5 - centre[1]) ** 2 <= radius**2


def assert_sound(outlines):
    ring_ends = outlines.xy[outlines.start[1:] - 1]
    assert (outlines.xy[outlines.start[:-1]] == ring_ends).all()
    assert (np.diff(outlines.start) >= 4).all()
    polygons = as_polygons(outlines)
    assert shapely.is_valid(polygons).all()
    assert (shapely.area(polygons) > 0).all()
    assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()


@settings(max_examples=250, deadline=None)
@given(label_images)
def test_every_ring_is_closed_simple_and_counter_clockwise(labels):
    outlines = trace_outlines(labels)

    assert len(outlines) == labels.max()
    assert_sound(outlines)


@settings(max_examples=120, deadline=None)
@given(
    label_images,
    st.sampled_from([0.01, 0.0625, 0.4999, 1.0, 2.0037, 8.0]),
    st.tuples(st.integers(0, 90_000), st.integers(0, 90_000)),
)
def test_rings_stay_sound_after_scaling_and_rounding(labels, scale, origin):
    outlines = outlines_to_level0(trace_outlines(labels), origin, grid(scale, (11, 7)))

    assert_sound(outlines)
    assert (np.round(outlines.xy, 2) == outlines.xy).all()


@settings(max_examples=80, deadline=None)
@given(label_images, st.integers(0, 5000), st.integers(0, 5000))
def test_a_moved_nucleus_has_the_same_ring_moved(labels, right, down):
    moved = np.pad(labels, ((down % 7, 3), (right % 5, 2)))

    here = trace_outlines(labels)
    there = trace_outlines(moved)

    np.testing.assert_array_equal(there.xy, here.xy + (right % 5, down % 7))
    far = outlines_to_level0(here, (right, down), grid(0.4999))
    same = outlines_to_level0(there, (right - right % 5, down - down % 7), grid(0.4999))
    np.testing.assert_array_equal(far.xy, same.xy)


@pytest.mark.parametrize("radius", [1, 3, 7.5, 15, 30])
def test_a_ring_holds_as_much_as_its_pixels(radius):
    mask = disc(radius)

    outlines = one(mask)

    assert shapely.area(as_polygons(outlines))[0] == pytest.approx(mask.sum(), rel=4e-3)


def test_a_ring_runs_along_the_pixels_and_not_through_their_centres():
    mask = disc(15)
    pixels = shapely.union_all(shapely.box(*_edges(mask)))

    ring = as_polygons(one(mask))[0]

    overlap = shapely.intersection(ring, pixels).area / shapely.union(ring, pixels).area
    assert overlap > 0.965
    assert np.abs(np.array(ring.centroid.coords[0]) - 40).max() < 0.1


def _edges(mask):
    y, x = np.nonzero(mask)
    return x, y, x + 1, y + 1


def test_an_ordinary_nucleus_needs_few_vertices():
    rng = np.random.default_rng(4)
    counts = []
    for _ in range(40):
        canvas = np.zeros((60, 60), np.uint8)
        axes = tuple(int(v) for v in rng.uniform(9, 18, 2))
        cv2.ellipse(canvas, (30, 30), axes, rng.uniform(0, 180), 0, 360, 1, -1)
        counts.append(len(one(canvas).ring(0)))

    assert np.mean(counts) < 30


@pytest.mark.parametrize(
    "mask",
    [[[1]], [[1, 1, 1, 1, 1]], [[1], [1], [1]], np.eye(6), np.fliplr(np.eye(5)), np.ones((2, 2))],
    ids=["pixel", "row", "column", "diagonal", "other diagonal", "block"],
)
def test_thin_nuclei_keep_their_area(mask):
    outlines = one(mask)

    assert_sound(outlines)
    assert shapely.area(as_polygons(outlines))[0] == pytest.approx(np.sum(mask), rel=0.02)


def test_holes_are_filled():
    mask = disc(15) & ~disc(5)

    assert shapely.area(as_polygons(one(mask)))[0] == pytest.approx(disc(15).sum(), rel=2e-3)


def test_the_largest_of_several_pieces_is_drawn():
    mask = disc(5, centre=(10, 10)) | disc(12, centre=(50, 50)) | disc(7, centre=(70, 10))

    ring = as_polygons(one(mask))[0]

    assert ring.area == pytest.approx(disc(12).sum(), rel=4e-3)
    assert ring.contains(shapely.Point(50, 50))


def test_a_ring_around_much_hollow_is_no_larger_piece_than_a_full_one():
    mask = disc(12, centre=(20, 20)) & ~disc(11, centre=(20, 20)) | disc(8, centre=(60, 60))

    assert as_polygons(one(mask))[0].contains(shapely.Point(60, 60))


def test_chosen_nuclei_are_traced_in_the_order_asked_for():
    labels = np.arange(1, 10, dtype=np.int32).reshape(3, 3).repeat(5, 0).repeat(5, 1)
    regions = find_regions(labels)
    rows = np.array([7, 2])

    some = trace_outlines(labels, regions.where(rows))

    np.testing.assert_array_equal(some.xy, trace_outlines(labels).where(rows).xy)


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=3), min_size=1)
)
def test_areas_of_half_pixels_are_those_of_shapely_to_the_last_bit(many):
    rings = [np.array(ring) / 2 for ring in many]
    start = np.concatenate([[0], np.cumsum([len(ring) for ring in rings])])
    found = _areas(Outlines(np.concatenate(rings), start))
    assert found.tolist() == [shapely.Polygon(ring).area for ring in rings]


def test_no_nuclei_give_no_rings():
    nothing = trace_outlines(np.zeros((9, 9), np.int32))

    assert len(nothing) == 0
    assert len(outlines_to_level0(nothing, (0, 0), grid())) == 0


def test_a_known_ring_lands_at_its_level0_place():
    square = Outlines(np.array([[1, 1], [3, 1], [3, 2], [1, 2], [1, 1]], float), np.array([0, 5]))

    placed = outlines_to_level0(square, (100, 200), grid(2.0, (7, 9)))

    assert placed.xy[0].tolist() == [209, 411]
    assert placed.xy[2].tolist() == [213, 413]


def test_a_ring_that_rounding_breaks_is_mended():
    # A neck of 0.002 closes and its sides cross when rounded.
    ring = [[0, 0], [4, 0], [4, 4], [2.002, 4], [2.0015, 0.006], [1.9, 4], [0, 4], [0, 0]]
    outlines = Outlines(np.array([*ring], float), np.array([0, len(ring)]))
    assert are_valid(outlines).all()

    assert_sound(outlines_to_level0(outlines, (0, 0), grid(0.5)))


def test_validity_is_told_ring_by_ring():
    bow = [[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]
    box = [[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]
    line = [[0, 0], [1, 1], [0, 0]]
    rings = Outlines(np.array([*bow, *box, *line], float), np.array([0, 5, 10, 13]))

    assert are_valid(rings).tolist() == [False, True, False]
