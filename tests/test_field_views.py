"""Views of fields: pixels, maps and directions move together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from ccrl_wsi.seeding import rng_for
from ccrl_wsi.training.field_set import cut_fields
from ccrl_wsi.training.field_views import Places, draw_places, read_views
from ccrl_wsi.training.segment_settings import FieldViewSettings

SIDE = 64


def field(centre=(32, 32), axes=(12, 7)):
    labels = np.zeros((SIDE, SIDE), np.int32)
    cv2.ellipse(labels, centre, axes, 30, 0, 360, 1, cv2.FILLED)
    rgb = np.repeat((labels * 200).astype(np.uint8)[..., None], 3, axis=2)
    made = cut_fields(rgb, labels, 0.25, "f", side_px=SIDE)
    return tuple(torch.from_numpy(a).permute(0, 3, 1, 2) for a in (made.rgb, made.targets))


def place(matrix=((1, 0), (0, 1)), centre=(0.5, 0.5)):
    return Places(np.array([matrix], float), np.array([centre], float))


def read(matrix=((1, 0), (0, 1)), centre=(0.5, 0.5), side=SIDE, of=None):
    rgb, targets = of or field()
    pixels, maps, weight = read_views(rgb, targets, place(matrix, centre), side)
    return pixels[0].numpy(), maps[0].numpy(), weight[0].numpy()


def test_a_view_that_changes_nothing_is_the_field():
    rgb, targets = field()
    pixels, maps, weight = read()

    assert np.allclose(pixels, rgb[0].numpy() / 255, atol=1e-5)
    assert np.allclose(maps[:2], targets[0, :2].numpy() / 255, atol=1e-5)
    assert np.allclose(maps[2:], (targets[0, 2:4].numpy() - 127.0) / 127, atol=1e-4)
    assert (weight == 1).all()


def test_a_quarter_turn_turns_pixels_and_directions():
    # A step to the right in the view is a step down in the field.
    pixels, maps, _ = read(matrix=((0, -1), (1, 0)))
    plain, plain_maps, _ = read()

    assert np.allclose(pixels, np.rot90(plain, 1, axes=(1, 2)), atol=1e-4)
    assert np.allclose(maps[2], np.rot90(plain_maps[3]), atol=1e-3)
    assert np.allclose(maps[3], -np.rot90(plain_maps[2]), atol=1e-3)


def test_a_mirror_turns_the_direction_it_mirrors():
    pixels, maps, _ = read(matrix=((-1, 0), (0, 1)))
    plain, plain_maps, _ = read()

    assert np.allclose(pixels, plain[..., ::-1], atol=1e-4)
    assert np.allclose(maps[2], -plain_maps[2][:, ::-1], atol=1e-3)
    assert np.allclose(maps[3], plain_maps[3][:, ::-1], atol=1e-3)


def test_a_zoom_makes_nuclei_larger_and_leaves_depth_and_offset_their_range():
    _, maps, weight = read(matrix=((0.5, 0), (0, 0.5)))
    _, plain, _ = read()

    assert maps[0].sum() == pytest.approx(4 * plain[0].sum(), rel=0.05)
    assert maps[1].max() == pytest.approx(1, abs=0.1)
    assert np.abs(maps[2:]).max() <= 1.01
    assert (weight == 1).all()


def test_what_lies_beyond_a_field_does_not_count():
    _, _, weight = read(centre=(0.0, 0.5))

    assert (weight[:, : SIDE // 2 - 1] == 0).all()
    assert (weight[:, SIDE // 2 + 1 :] == 1).all()


def test_offsets_in_any_view_point_away_from_the_nucleus_centre():
    angle = 0.7
    turn = ((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle)))
    _, maps, _ = read(matrix=turn)

    inside = maps[0] > 0.99
    rows, columns = np.nonzero(inside)
    x, y = columns - columns.mean(), rows - rows.mean()
    along = maps[2][inside] * x + maps[3][inside] * y
    assert (along[np.hypot(x, y) > 2] > 0).all()
    radius = np.hypot(x, y).max()
    assert np.allclose(maps[2][inside] * radius, x, atol=1.5)


def test_places_are_drawn_within_their_ranges_and_are_those_of_their_rows():
    views = FieldViewSettings(zoom=(0.5, 2.0), stretch=1.0)
    scale, share = np.full(500, 0.8), np.full(500, 0.6)

    drawn = draw_places(views, scale, share, rng_for(3, "places"))

    size = np.sqrt(np.abs(np.linalg.det(drawn.matrix)))
    assert 0.4 - 1e-9 <= size.min() < 0.45
    assert 1.5 < size.max() <= 1.6 + 1e-9
    assert 0.3 < (np.linalg.det(drawn.matrix) < 0).mean() < 0.7
    assert (drawn.centre >= 0).all()
    assert (drawn.centre <= 1).all()
    part = drawn.part(slice(10, 20))
    assert np.array_equal(part.matrix, drawn.matrix[10:20])
    again = draw_places(views, scale, share, rng_for(3, "places"))
    assert np.array_equal(drawn.matrix, again.matrix)
