"""Nuclei from HoVer-Net's maps, beside TIAToolbox's own post-processing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from ccrl_wsi.datasets.consep import read_consep
from ccrl_wsi.evaluation.segmentation_scores import count_overlaps
from ccrl_wsi.nuclei.hovernet_instances import (
    _fill_holes,
    assign_types,
    extract_instances,
    mean_probability,
)
from ccrl_wsi.nuclei.hovernet_maps import ideal_maps, imitate_network, scatter_nuclei


@pytest.fixture(scope="module")
def reference():
    """TIAToolbox's ``HoVerNet.postproc``: raw maps to its dictionary."""
    from ccrl_wsi.nuclei.hovernet import build_hovernet

    network, _ = build_hovernet("hovernet_fast-pannuke")
    return lambda maps, types: network.postproc(
        [maps.probability[..., None], maps.hv, types[..., None].astype(np.float32)]
    )[0]


def drawn_maps(side_px, n, seed):
    rng = np.random.default_rng(seed)
    return imitate_network(scatter_nuclei(side_px, n, rng), rng)


def cut(maps, rows, columns):
    return type(maps)(*(np.ascontiguousarray(m[rows, columns]) for m in maps))


def share_alike(truth, found, iou=0.99):
    overlaps = count_overlaps(truth, found)
    return (overlaps.iou >= iou).sum() / len(overlaps.truth_area)


def assert_same_as(reference, maps, rng):
    types = rng.integers(0, 3, maps.probability.shape).astype(np.uint8)
    theirs = reference(maps, types)

    ours = extract_instances(*maps, gradient_range=None)

    overlaps = count_overlaps(theirs["predictions"], ours)
    assert len(overlaps.found_area) == len(overlaps.truth_area) > 20
    assert share_alike(theirs["predictions"], ours) >= 0.99
    of_theirs = labels_under_contours(ours, theirs["info_dict"]["contours"])
    found_types, share = assign_types(ours, types)
    assert (found_types[of_theirs - 1] == theirs["info_dict"]["type"]).mean() >= 0.99
    assert np.median(abs(share[of_theirs - 1] - theirs["info_dict"]["prob"])) < 1e-6


def labels_under_contours(labels, contours):
    return np.array([labels[contour[0][1], contour[0][0]] for contour in contours])


@pytest.mark.parametrize("side_px", [256, 700])
def test_drawn_nuclei_come_out_as_from_the_reference(reference, side_px):
    rng = np.random.default_rng(side_px)
    assert_same_as(reference, drawn_maps(side_px, side_px**2 // 1500, side_px), rng)


@pytest.mark.data
def test_consep_nuclei_come_out_as_from_the_reference(reference, data_dir):
    image = next(read_consep(data_dir / "consep", "test"))
    rng = np.random.default_rng(0)
    maps = imitate_network(image.labels, rng)
    assert_same_as(reference, maps, rng)
    assert_same_as(reference, cut(maps, np.s_[:500], np.s_[300:556]), rng)


@pytest.mark.data
def test_a_fixed_range_changes_no_more_nuclei_than_another_tile_does(data_dir):
    image = next(read_consep(data_dir / "consep", "test"))
    maps = imitate_network(image.labels, np.random.default_rng(0))

    by_tile = extract_instances(*maps, gradient_range=None)
    fixed = extract_instances(*maps)

    assert share_alike(by_tile, fixed) > 0.90
    assert share_alike(by_tile, fixed, iou=0.5) > 0.97
    truth = image.labels
    assert share_alike(truth, fixed, iou=0.5) >= share_alike(truth, by_tile, iou=0.5) - 0.005


def test_a_nucleus_is_the_same_whichever_tile_sees_it():
    maps = drawn_maps(640, 600, seed=1)
    left, right = np.s_[:, :384], np.s_[:, 256:]
    # 32 px from either tile's edge and more: further than filters and nuclei reach.
    shared_left, shared_right = np.s_[:, 288:352], np.s_[:, 32:96]

    fixed = [extract_instances(*cut(maps, *tile)) for tile in (left, right)]
    by_tile = [extract_instances(*cut(maps, *tile), gradient_range=None) for tile in (left, right)]

    assert share_alike(fixed[0][shared_left], fixed[1][shared_right], iou=1) == 1
    assert share_alike(by_tile[0][shared_left], by_tile[1][shared_right], iou=1) < 1


def test_touching_nuclei_are_parted_where_they_touch():
    truth = np.zeros((60, 80), np.int32)
    truth[20:40, 20:40], truth[20:40, 40:60] = 1, 2

    found = extract_instances(*ideal_maps(truth))

    assert found.max() == 2
    assert share_alike(truth, found, iou=0.9) == 1


masks = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=16), elements=st.integers(0, 1)
)


@given(masks, st.sampled_from([None, 1, 2, 6]), st.sampled_from([1, 3]))
def test_holes_are_filled_as_numbering_all_that_is_outside_tells(mask, largest, zoom):
    mask = np.kron(mask, np.ones((zoom, zoom), np.uint8))
    framed = np.pad(1 - mask, 1, constant_values=1)
    pieces, _ = ndimage.label(framed)
    is_hole = np.bincount(pieces.ravel()) <= (largest or mask.size)
    is_hole[[0, pieces[0, 0]]] = False
    expected = np.where(is_hole[pieces][1:-1, 1:-1], 1, mask)

    _fill_holes(mask, largest)

    np.testing.assert_array_equal(mask, expected)


def test_labels_are_consecutive():
    found = extract_instances(*drawn_maps(300, 80, seed=2))

    assert found.dtype == np.int32
    assert np.array_equal(np.unique(found), np.arange(found.max() + 1))


def test_a_speck_is_no_nucleus():
    truth = np.zeros((40, 40), np.int32)
    truth[5:8, 5:8] = 1

    assert extract_instances(*ideal_maps(truth)).max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (64, 64)])
@pytest.mark.parametrize("gradient_range", [None, (-0.24, 0.17)])
def test_an_image_without_nuclei_gives_none(shape, gradient_range):
    empty = (np.zeros(shape, np.float32), np.zeros((*shape, 2), np.float32))

    labels = extract_instances(*empty, gradient_range=gradient_range)
    types, share = assign_types(labels, np.zeros(shape, np.uint8))

    assert labels.shape == shape
    assert labels.max() == len(types) == len(share) == 0
    assert len(mean_probability(labels, empty[0])) == 0


def test_an_image_that_is_one_nucleus_gives_one():
    full = np.ones((60, 60), np.int32)

    assert np.array_equal(extract_instances(*ideal_maps(full)), full)


def test_the_most_frequent_type_wins_and_background_gives_way():
    labels = np.repeat(np.arange(5, dtype=np.int32), 6).reshape(5, 6)
    votes = [[9] * 6, [2, 2, 2, 1, 1, 0], [0, 0, 0, 0, 3, 3], [0] * 6, [4, 4, 4, 1, 1, 1]]

    types, share = assign_types(labels, np.array(votes, np.uint8))

    assert types.tolist() == [2, 3, 0, 1]
    assert share == pytest.approx([3 / 6, 2 / 6, 1, 3 / 6])


def test_probability_is_the_mean_over_the_nucleus():
    labels = np.array([[0, 1, 1], [2, 2, 0]], np.int32)
    probability = np.array([[0.1, 0.6, 0.8], [1.0, 0.5, 0.2]], np.float32)

    assert mean_probability(labels, probability) == pytest.approx([0.7, 0.75])
