"""Rings for the overlay: whole hundredths, simple, and proven so without shapely where possible."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.outputs.sound_rings import are_star_shaped, sound_hundredths
from ccrl_wsi.polygons import to_polygons
from ccrl_wsi.records import Outlines
from tests.drawn_cells import draw_outlines

whole = st.integers(-300, 300)
corners = st.lists(st.tuples(whole, whole), min_size=3, max_size=9)


def rings_of(*many):
    """Closed rings of corner lists."""
    closed = [np.array([*ring, ring[0]], np.float64) for ring in many]
    start = np.concatenate([[0], np.cumsum([len(ring) for ring in closed])])
    return Outlines(np.concatenate(closed), start.astype(np.int64))


def round_about(n_corners, turns=1):
    angle = 2 * np.pi * turns * np.arange(n_corners) / n_corners
    return np.rint(1000 * np.column_stack([np.cos(angle), np.sin(angle)]))


@given(st.lists(corners, min_size=1, max_size=6))
def test_what_is_called_star_shaped_is_simple_and_counter_clockwise(many):
    rings = rings_of(*many)
    polygons = to_polygons(rings)
    for star, polygon in zip(are_star_shaped(rings), polygons, strict=True):
        if star:
            assert polygon.is_valid
            assert polygon.area > 0
            assert polygon.exterior.is_ccw


@given(st.integers(3, 60), whole, whole)
def test_round_rings_are_recognised_wherever_they_lie(n, right, down):
    assert are_star_shaped(rings_of(round_about(n) + [right, down])).all()


def test_going_round_twice_is_no_star():
    # A pentagram turns left at every corner and crosses itself all the same.
    pentagram = round_about(5, turns=2)
    assert not shapely.Polygon(pentagram).is_valid
    assert not are_star_shaped(rings_of(pentagram)).any()


def test_other_rings_are_not_taken_for_stars():
    clockwise = round_about(12)[::-1]
    crossing = [(0, 0), (10, 10), (10, 0), (0, 10)]
    doubled = [(0, 0), (10, 0), (10, 0), (0, 10)]
    flat = [(0, 0), (5, 0), (10, 0)]
    huge = round_about(12) * 1e5
    assert not are_star_shaped(rings_of(clockwise, crossing, doubled, flat, huge)).any()


def test_no_rings_are_no_trouble():
    assert len(are_star_shaped(Outlines.concat([]))) == 0


def test_drawn_nuclei_need_no_second_look():
    rng = np.random.default_rng(0)
    nuclei = draw_outlines(rng.uniform(100, 90000, (200, 2)), rng)
    hundredths = Outlines(np.rint(nuclei.xy * 100), nuclei.start)
    assert are_star_shaped(hundredths).mean() > 0.9


@given(st.lists(corners, min_size=1, max_size=6), st.tuples(whole, whole))
def test_every_ring_comes_out_simple_and_sound_ones_only_moved(many, origin):
    rings = rings_of(*many)
    given_rings = Outlines(rings.xy / 100, rings.start)
    sound = sound_hundredths(given_rings, origin)
    assert len(sound) == len(rings)
    np.testing.assert_array_equal(sound.xy, np.rint(sound.xy))
    assert shapely.is_valid(to_polygons(Outlines(sound.xy / 100, sound.start))).all()
    for i, was_sound in enumerate(shapely.is_valid(to_polygons(given_rings))):
        if was_sound:
            moved = rings.ring(i) - np.array(origin) * 100
            np.testing.assert_array_equal(sound.ring(i), moved)
