"""SIFT and local binary patterns of crops whose descriptors are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ccrl_wsi.embeddings.manual import N_SIFT, Manual, patterns_of, sift_of

NO_MEASUREMENTS = np.zeros((1, 20), np.float32)


def vectors_of(*crops):
    crops = np.stack(crops)
    return Manual()(crops, np.zeros((len(crops), 20), np.float32))


def constant(value=90):
    return np.full((32, 32, 3), value, np.uint8)


def stripes(axis):
    bright = (np.arange(32) // 4 % 2 * 200).astype(np.uint8)
    grey = np.broadcast_to(bright[:, None] if axis == 0 else bright[None, :], (32, 32))
    return np.repeat(grey[..., None], 3, axis=2)


def test_a_constant_crop_has_no_edges_and_one_pattern():
    (vector,) = vectors_of(constant())
    assert not vector[:N_SIFT].any()
    patterns = vector[N_SIFT:]
    # Every neighbour is as bright: all eight bits set, one pattern of the 59, at the edge as well.
    assert sorted(patterns)[-2:] == [0, 1]
    assert np.count_nonzero(patterns_of(np.full((32, 32), 90, np.uint8))) == 1


def test_brightness_and_contrast_change_neither():
    rng = np.random.default_rng(0)
    grey = rng.integers(40, 100, (32, 32, 1), dtype=np.uint8)
    crop = np.repeat(grey, 3, axis=2)
    same, lighter = vectors_of(crop, crop + 50)
    assert lighter == pytest.approx(same, abs=0.02)
    (stretched,) = vectors_of(crop * 2)
    assert stretched == pytest.approx(same, abs=0.06)


def test_stripes_differ_by_direction_and_their_gradients_are_where_sift_puts_them():
    down, across = vectors_of(stripes(0), stripes(1))
    for vector in (down, across):
        assert np.linalg.norm(vector[:N_SIFT]) == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(vector[N_SIFT:]) == pytest.approx(1, abs=1e-5)
    # 4 x 4 cells of 8 directions: gradients across lie in directions 0 and 4, down in 2 and 6.
    by_direction = [v[:N_SIFT].reshape(16, 8).sum(axis=0) for v in (down, across)]
    assert set(np.argsort(by_direction[0])[-2:]) == {2, 6}
    assert set(np.argsort(by_direction[1])[-2:]) == {0, 4}
    assert np.linalg.norm(down - across) > 0.5


def test_the_grid_is_as_wide_as_the_crop():
    """An edge in one corner is seen by the cells of that corner alone."""
    grey = np.full((32, 32), 100, np.uint8)
    grey[3:6, 3:6] = 200
    cells = sift_of(grey, cv2.SIFT.create()).reshape(4, 4, 8).sum(axis=2)
    seen = cells / cells.sum()
    assert seen[:2, :2].sum() > 0.95
    assert seen[0, 0] == seen.max()


def test_patterns_are_shares_of_uniform_patterns():
    rng = np.random.default_rng(1)
    shares = patterns_of(rng.integers(0, 255, (32, 32), dtype=np.uint8))
    assert shares.shape == (59,)
    assert shares.sum() == pytest.approx(1)
    # Noise is mostly not uniform: 58 of 256 patterns are, so the last bin has most.
    assert shares.argmax() == 58


def test_no_crops_and_other_sizes():
    assert Manual()(np.zeros((0, 32, 32, 3), np.uint8), NO_MEASUREMENTS[:0]).shape == (0, 187)
    large = np.random.default_rng(2).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    assert np.isfinite(Manual()(large, np.zeros((2, 20), np.float32))).all()
