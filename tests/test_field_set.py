"""Fields cover their images, and what lies beyond an image does not count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_wsi.training.field_set import FieldSet, cut_fields

COUNTS = 4


def field_of(height, width, side=32, **more):
    rng = np.random.default_rng(height * 1000 + width)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = np.zeros((height, width), np.int32)
    labels[: height // 2 + 1, : width // 2 + 1] = 4
    return rgb, labels, cut_fields(rgb, labels, 0.25, "slide", side_px=side, **more)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 100), st.integers(1, 100))
def test_every_pixel_of_the_image_is_in_a_field_and_counts(height, width):
    rgb, labels, fields = field_of(height, width)

    seen = {
        tuple(pixel)
        for field, targets in zip(fields.rgb, fields.targets, strict=True)
        for pixel in field[targets[..., COUNTS] == 255]
    }
    assert seen == {tuple(pixel) for pixel in rgb.reshape(-1, 3)}
    assert fields.rgb.shape[1:] == (32, 32, 3)


def test_beyond_the_image_is_its_mirror_image_which_does_not_count():
    rgb, _, fields = field_of(20, 40)

    assert len(fields) == 2
    assert np.array_equal(fields.rgb[0, :20], rgb[:, :32])
    assert np.array_equal(fields.rgb[0, 20], rgb[18, :32])
    assert (fields.targets[0, :20, :, COUNTS] == 255).all()
    assert (fields.targets[0, 20:, :, COUNTS] == 0).all()


def test_an_image_just_larger_than_a_field_gives_overlapping_ones():
    rgb, _, fields = field_of(32, 40)

    assert len(fields) == 2
    assert np.array_equal(fields.rgb[0], rgb[:, :32])
    assert np.array_equal(fields.rgb[1], rgb[:, 8:])


def test_what_is_unsure_does_not_count():
    unsure = np.zeros((32, 32), np.uint8)
    unsure[3:6, 7] = 1

    fields = field_of(32, 32, unsure=unsure)[2]

    assert np.array_equal(fields.targets[0, ..., COUNTS] == 0, unsure > 0)


def test_sets_join_and_equal_names_are_one_source():
    a, b = field_of(32, 32)[2], field_of(32, 70)[2]

    joined = FieldSet.concat([a, b, a])

    assert len(joined) == 1 + 3 + 1
    assert joined.source_names == ("slide",)
    assert joined.source.tolist() == [0] * 5
    assert joined.n_nuclei == 3
    with pytest.raises(ValueError, match="need at least one array"):
        FieldSet.concat([])
