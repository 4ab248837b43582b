"""Crops cut by torch, wherever the pixels are: the bytes of OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ccrl_wsi.crops import cut_on_device
from ccrl_wsi.crops.cut import cut_crops
from ccrl_wsi.crops.cut_on_device import STEPS, crops_on_device


def tissue(height, width, seed=0):
    """Noise, smooth in parts and saturated in others."""
    rng = np.random.default_rng(seed)
    rgb = rng.normal(128, 90, (height, width, 3)).clip(0, 255).astype(np.uint8)
    rgb[:, : width // 2] = cv2.GaussianBlur(rgb[:, : width // 2], (0, 0), 1.5)
    return rgb


IMAGE = tissue(430, 450)


@pytest.fixture(params=[True, False], ids=["with Intel's library", "without"])
def intels(request):
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(request.param)
    yield
    cv2.ipp.setUseIPP(before)


def differences(windows, size_px, image=IMAGE, device="cpu"):
    expected = cut_crops(image, windows, size_px)
    found = crops_on_device(torch.from_numpy(image).to(device), windows, size_px)
    assert found.dtype == torch.uint8
    return np.abs(found.cpu().numpy().astype(int) - expected)


@pytest.mark.parametrize("size_px", [16, 31, 32, 48, 64])
def test_all_sides_give_opencvs_bytes(intels, size_px):
    sides = np.arange(1, 401)
    # Some reach beyond the image, on every side.
    corners = np.random.default_rng(size_px).integers(-60, 200, (len(sides), 2))
    off = differences(np.column_stack([corners, sides, sides]), size_px)

    assert off.max() <= 1
    assert (off > 0).mean() <= 1e-4
    is_shrunk = sides >= size_px
    assert not off[is_shrunk].any()


windows = st.lists(
    st.tuples(st.integers(-420, 460), st.integers(-420, 440), st.integers(3, 400)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(windows, st.integers(16, 64), st.integers(0, 2**32 - 1))
@example([(-500, 0, 30), (0, 900, 30), (449, 429, 64), (0, 0, 400)], 32, 0)
def test_any_windows_give_opencvs_bytes(windows, size_px, seed):
    places = np.array([(left, top, side, side) for left, top, side in windows])
    off = differences(places, size_px, tissue(60, 70, seed))

    assert off.max() <= 1
    # A tie may fall to either side; a crop of 16 px has 768 bytes.
    assert (off > 0).sum() <= 2 + 1e-4 * off.size


def test_batches_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    sides = rng.integers(10, 90, 60)
    windows = np.column_stack([rng.integers(-20, 400, (60, 2)), sides, sides])
    whole = crops_on_device(torch.from_numpy(IMAGE), windows, 32)

    monkeypatch.setattr(cut_on_device, "PIXELS_AT_ONCE", 5000)
    assert torch.equal(crops_on_device(torch.from_numpy(IMAGE), windows, 32), whole)


def test_windows_that_go_together_are_padded_by_a_quarter_at_most():
    steps = np.array(STEPS)
    assert (steps[2:] <= 1.25 * steps[1:-1] + 1).all()
    assert steps[-1] > 2**15


def test_no_windows_give_no_crops():
    assert crops_on_device(torch.from_numpy(IMAGE), np.zeros((0, 4), int), 32).shape == (
        0,
        32,
        32,
        3,
    )
