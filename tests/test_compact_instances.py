"""From maps to nuclei: drawn maps with a known answer, and independence of the tile."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_wsi.evaluation.segmentation_scores import score_segmentation
from ccrl_wsi.nuclei.compact_instances import find_nuclei
from ccrl_wsi.nuclei.hovernet_maps import scatter_nuclei, smooth_noise
from ccrl_wsi.training.field_targets import make_targets, without_specks

SEPARATIONS = ("depth", "offset")


def maps_of(labels, separation, rng=None, noise=0.0, blur_px=0.0):
    """What a perfect, or slightly soft and uncertain, network says of ``labels``."""
    made = make_targets(labels)
    rest = made.depth[..., None] / 255 if separation == "depth" else (made.offset - 127.0) / 127
    maps = np.dstack([made.inside / 255, rest]).astype(np.float32)
    if blur_px:
        maps = cv2.GaussianBlur(maps, (0, 0), blur_px)
    if noise:
        maps += noise * smooth_noise(maps.shape, rng)
    return maps


def discs(*places, side=96):
    labels = np.zeros((side, side), np.int32)
    for number, (x, y, radius) in enumerate(places, start=1):
        cv2.circle(labels, (x, y), radius, number, cv2.FILLED)
    return labels


@pytest.mark.parametrize("separation", SEPARATIONS)
def test_lonely_nuclei_come_out_as_they_were_drawn(separation):
    labels = discs((20, 20, 9), (60, 30, 12), (40, 70, 15))

    found = find_nuclei(maps_of(labels, separation), separation)

    assert found.max() == 3
    assert np.array_equal(found > 0, labels > 0)


@pytest.mark.parametrize("separation", SEPARATIONS)
def test_touching_nuclei_are_parted_where_they_touch(separation):
    labels = discs((30, 40, 12), (52, 40, 12))

    found = find_nuclei(maps_of(labels, separation), separation)

    assert found.max() == 2
    assert score_segmentation(labels, found, 0.25).pq > 0.85


@pytest.mark.parametrize("separation", SEPARATIONS)
def test_crowded_soft_uncertain_maps_give_most_nuclei_back(separation):
    rng = np.random.default_rng(1)
    labels, _ = without_specks(scatter_nuclei(400, 250, rng), 40)

    maps = maps_of(labels, separation, rng, noise=0.05, blur_px=1.0)
    found = find_nuclei(maps, separation)

    assert score_segmentation(labels, found, 0.25).dq > 0.75


def test_a_nucleus_without_a_middle_is_still_a_nucleus():
    labels = discs((40, 40, 10))
    maps = maps_of(labels, "depth")
    maps[..., 1] *= 0.2

    assert np.array_equal(find_nuclei(maps, "depth"), labels)


@pytest.mark.parametrize("separation", SEPARATIONS)
def test_nothing_is_found_in_nothing(separation):
    maps = np.zeros((30, 40, 2 if separation == "depth" else 3), np.float32)

    found = find_nuclei(maps, separation)

    assert found.shape == (30, 40)
    assert found.dtype == np.int32
    assert not found.any()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 60), st.integers(0, 60))
def test_a_nucleus_is_the_same_in_every_tile_that_sees_it_whole(seed, top, left):
    rng = np.random.default_rng(seed)
    labels = scatter_nuclei(260, 90, rng)
    maps = maps_of(labels, "depth", rng, noise=0.05, blur_px=1.0)
    part = np.s_[top : top + 200, left : left + 200]

    whole, tile = find_nuclei(maps, "depth")[part], find_nuclei(maps[part].copy(), "depth")

    inner = np.s_[60:140, 60:140]
    for number in np.unique(tile[inner]):
        inside = tile == number
        rows, columns = np.nonzero(inside)
        is_whole = min(rows.min(), columns.min()) > 20 and max(rows.max(), columns.max()) < 180
        if number and is_whole:
            assert np.array_equal(whole == whole[inside][0], inside)
