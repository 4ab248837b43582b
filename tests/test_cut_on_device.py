"""Crops cut by torch, wherever the pixels are: the bytes of OpenCV."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ccrl_wsi.crops import cut_on_device
from ccrl_wsi.crops.cut import cut_crops
from ccrl_wsi.crops.cut_on_device import begin_crops, crops_on_device
from ccrl_wsi.device_work import TileOnGpu, listening
from ccrl_wsi.errors import ModelError


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


def differences(windows, size_px, image=IMAGE):
    expected = cut_crops(image, windows, size_px)
    found = crops_on_device(torch.from_numpy(image), windows, size_px)
    assert found.dtype == torch.uint8
    return np.abs(found.numpy().astype(int) - expected)


@pytest.mark.parametrize("size_px", [16, 32, 50])
def test_all_sides_give_opencvs_bytes(intels, size_px):
    sides = np.concatenate([np.arange(1, 150), np.arange(150, 401, 3)])
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


@settings(max_examples=25, deadline=None)
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


def test_windows_larger_than_all_steps_are_cut_too():
    sides = np.array([512, 513, 700, 700, 1300])
    windows = np.column_stack([np.tile([-100, -90], (5, 1)), sides, sides])
    assert not differences(windows, 32).any()


def test_no_windows_give_no_crops():
    assert crops_on_device(torch.from_numpy(IMAGE), np.zeros((0, 4), int), 32).shape == (
        0,
        32,
        32,
        3,
    )


def test_a_gpu_cuts_beside_its_network(pretended_gpu):
    sides = np.arange(20, 80)
    windows = np.column_stack([np.tile([30, 40], (60, 1)), sides, sides])
    pixels, there = torch.from_numpy(IMAGE), torch.cuda.Event()
    there.record(torch.cuda.Stream())
    heard = []

    arrive = begin_crops(TileOnGpu(pixels, there), windows, 32)
    with listening(heard.append):
        crops = arrive()

    expected = crops_on_device(pixels, windows, 32).numpy()
    assert np.array_equal(crops, expected)
    assert crops.flags.writeable
    beside = pretended_gpu.stream("crops")
    assert beside.waits == [there]
    assert pretended_gpu.used == [beside]
    assert [span.work for span in heard] == ["crops"]


def test_a_gpu_with_too_little_memory_is_told_what_to_do(pretended_gpu, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(cut_on_device, "crops_on_device", fail)
    there = torch.cuda.Event()
    there.record(torch.cuda.Stream())
    with pytest.raises(ModelError, match=r"2 crops.*nuclei\.batch_size"):
        begin_crops(TileOnGpu(torch.from_numpy(IMAGE), there), np.full((2, 4), 40), 32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("allow_tf32", [False, True])
def test_a_gpu_gives_the_bytes_of_the_cpu(allow_tf32, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", allow_tf32)
    sides = np.arange(3, 300)
    windows = np.column_stack([np.tile([-20, 140], (len(sides), 1)), sides, sides])
    pixels = torch.from_numpy(IMAGE)
    there = torch.cuda.Event()
    there.record()
    tile = TileOnGpu(pixels.cuda(), there)
    heard = []
    with listening(heard.append), ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(lambda _: begin_crops(tile, windows, 32), range(8)))
        crops = [arrive() for arrive in asked]

    expected = crops_on_device(pixels, windows, 32).numpy()
    assert all(np.array_equal(cut, expected) for cut in crops)
    assert len(heard) == 8
    assert all(span.begin < span.end < time.perf_counter() + 1e-3 for span in heard)
