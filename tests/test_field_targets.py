"""What segmenters are asked to say of pixels: closed forms, and invariance under turning."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ccrl_wsi.training.field_targets import make_targets, without_specks


def disc(side=41, radius=15, number=3):
    labels = np.zeros((side, side), np.int32)
    cv2.circle(labels, (side // 2, side // 2), radius, number, cv2.FILLED)
    return labels


def slow_depth(labels):
    """Nucleus by nucleus: distance to the nearest pixel that is not its own or at another one."""
    cross = ndimage.generate_binary_structure(2, 1)
    depth = np.zeros(labels.shape)
    for number in np.unique(labels[labels > 0]):
        own = labels == number
        inner = own & ~ndimage.binary_dilation((labels > 0) & ~own, cross)
        distance = ndimage.distance_transform_edt(np.pad(inner, 1, mode="edge"))[1:-1, 1:-1]
        distance = np.where(inner, distance, 0.5) * own
        depth += distance / distance.max()
    return depth


def scattered(seed, side=64, n=12):
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    for number in range(1, n + 1):
        centre = rng.integers(6, side - 6, 2).tolist()
        axes = rng.integers(3, 9, 2).tolist()
        cv2.ellipse(labels, centre, axes, int(rng.integers(180)), 0, 360, 5 * number, cv2.FILLED)
    return labels


def test_a_disc_is_deepest_in_its_middle_and_falls_evenly_to_its_edge():
    depth = make_targets(disc()).depth / 255

    assert depth[20, 20] == 1
    steps = np.diff(depth[20, 20:36])
    assert np.allclose(steps[:-2], -1 / 15, atol=0.006)
    assert (depth > 0).sum() == (disc() > 0).sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_depth_is_the_distance_to_what_is_not_the_nucleus(seed):
    labels = scattered(seed)
    inside = labels > 0

    found = make_targets(labels).depth / 255

    assert np.array_equal(found > 0, inside)
    assert np.allclose(found, slow_depth(labels), atol=1 / 255)


def test_two_touching_squares_are_apart_in_depth():
    labels = np.zeros((20, 40), np.int32)
    labels[4:16, 8:20], labels[4:16, 20:32] = 1, 2

    row = make_targets(labels).depth[10].astype(int)

    assert row[13] > 200
    assert row[26] > 200
    assert row[19] < 40
    assert row[20] < 40


def test_the_images_edge_is_no_edge_of_a_nucleus():
    labels = np.zeros((20, 20), np.int32)
    labels[:, :9] = 1

    depth = make_targets(labels).depth

    assert (depth[10, :9] == depth[0, :9]).all()
    assert depth[10, 0] == 255


def test_offsets_point_from_the_centroid_and_reach_one_at_the_furthest_pixel():
    offset = (make_targets(disc()).offset.astype(float) - 127) / 127

    assert np.abs(offset[20, 20]).max() < 0.01
    assert offset[20, 35, 0] == pytest.approx(1, abs=0.01)
    assert offset[5, 20, 1] == pytest.approx(-1, abs=0.01)
    assert np.hypot(*offset[disc() > 0].T).max() <= 1.01
    assert (offset[disc() == 0] == 0).all()


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_targets_turn_with_the_image(quarters):
    labels = scattered(4)

    turned, first = make_targets(np.rot90(labels, quarters)), make_targets(labels)

    assert np.array_equal(turned.inside, np.rot90(first.inside, quarters))
    assert np.abs(turned.depth.astype(int) - np.rot90(first.depth, quarters)).max() <= 1


def test_gaps_in_numbers_and_an_empty_image_are_no_trouble():
    empty = make_targets(np.zeros((5, 7), np.int32))

    assert not empty.inside.any()
    assert not empty.depth.any()
    assert (empty.offset == 127).all()
    few, many = make_targets(disc(number=1)), make_targets(disc(number=60_000))
    assert np.array_equal(few.depth, many.depth)


def test_an_image_that_is_one_nucleus_is_deep_everywhere():
    depth = make_targets(np.ones((6, 6), np.int32)).depth

    assert (depth > 0).all()


def test_specks_are_taken_out_and_counted():
    labels = disc()
    labels[0, 0], labels[2, 2:4] = 8, 9

    kept, n = without_specks(labels, 3)

    assert n == 2
    assert np.array_equal(kept, disc())
