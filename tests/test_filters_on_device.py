"""The host's filters in torch: the same slopes, the same nuclei."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.config import CompactSettings, NucleiSettings
from ccrl_wsi.nuclei import compact, hovernet, tile_maps
from ccrl_wsi.nuclei.compact import load_compact
from ccrl_wsi.nuclei.filters_on_device import blurred_on_device, rise_on_device
from ccrl_wsi.nuclei.hovernet_instances import (
    GRADIENT_RANGE,
    _relative_rise,
    extract_instances,
    instances_from_rise,
)
from ccrl_wsi.nuclei.hovernet_maps import imitate_network, scatter_nuclei
from tests.drawn_networks import ink_segmenter

RANGES = [GRADIENT_RANGE, None]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
        ],
    ),
]


def drawn_maps(side_px, n, seed=0):
    rng = np.random.default_rng(seed)
    return imitate_network(scatter_nuclei(side_px, n, rng), rng)


def rise_on_host(hv, gradient_range):
    n_pixels = hv.shape[0] * hv.shape[1]
    return _relative_rise(hv, np.arange(n_pixels), gradient_range).reshape(hv.shape[:2])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gradient_range", RANGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_slopes_are_those_of_the_host_and_no_instance_changes(device, gradient_range, dtype):
    drawn = drawn_maps(700, 300)
    hv = torch.from_numpy(drawn.hv).to(dtype)
    on_host = rise_on_host(hv.float().numpy(), gradient_range)

    rise = rise_on_device(hv.to(device), gradient_range).cpu().numpy()

    assert rise.dtype == np.float32
    np.testing.assert_allclose(rise, on_host, rtol=0, atol=1e-6)
    said = extract_instances(drawn.probability, hv.float().numpy(), gradient_range=gradient_range)
    found = instances_from_rise(drawn.probability, rise, gradient_range=gradient_range)
    assert said.max() == found.max() > 150
    # Another device rounds otherwise.
    assert np.count_nonzero(said != found) <= (0 if device == "cpu" else 5)


def test_in_half_precision_instances_would_change():
    n_changed = 0
    for seed in range(3):
        drawn = drawn_maps(900, 500, seed)
        rise = rise_on_device(torch.from_numpy(drawn.hv), GRADIENT_RANGE)
        exact = instances_from_rise(drawn.probability, rise.numpy())
        rough = instances_from_rise(drawn.probability, rise.half().numpy())
        n_changed += np.count_nonzero(exact != rough)
    # Which is why slopes come down in float32.
    assert n_changed > 0


@given(st.integers(1, 40), st.integers(1, 40))
def test_edges_are_mirrored_however_small_the_image(height, width):
    hv = np.random.default_rng(height).normal(0, 1, (height, width, 2)).astype(np.float32)
    rise = rise_on_device(torch.from_numpy(hv), GRADIENT_RANGE).numpy()

    np.testing.assert_allclose(rise, rise_on_host(hv, GRADIENT_RANGE), rtol=0, atol=5e-6)


def test_a_map_that_is_flat_along_one_axis_has_no_slope_there():
    ramp = torch.rand(50, generator=torch.Generator().manual_seed(0))
    hv = ramp[:, None, None].expand(50, 40, 2)
    # Of two slopes the smaller counts; scaled by its own extremes, none is 0.
    assert (rise_on_device(hv, None) <= 0).all()


@pytest.mark.parametrize("gradient_range", RANGES)
def test_flat_maps_have_no_slope(gradient_range):
    rise = rise_on_device(torch.ones(30, 40, 2), gradient_range).numpy()

    flat = np.ones((30, 40, 2), np.float32)
    np.testing.assert_allclose(rise, rise_on_host(flat, gradient_range), atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.8, 2.0, 3.1]))
def test_a_blur_is_opencvs(height, width, sigma_px):
    image = np.random.default_rng(width).random((height, width), np.float32)
    blurred = blurred_on_device(torch.from_numpy(image), sigma_px).numpy()

    expected = cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(blurred, expected, rtol=0, atol=1e-6)


def ask_pretended_gpu(monkeypatch, module):
    def on_gpu(rgb, windows, question):
        with torch.inference_mode():
            return tile_maps._on_gpu(rgb, windows, question)

    monkeypatch.setattr(module, "predict_tile", on_gpu)


def inked(side_px=200):
    """Dark nuclei that touch, on paper."""
    labels = scatter_nuclei(side_px, 60, np.random.default_rng(3))
    rgb = np.full((side_px, side_px, 3), 230, np.uint8)
    rgb[labels > 0] = (60, 40, 160)
    return rgb


def same_nuclei(one, other):
    assert one.n_nuclei > 10
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.probability, other.probability)
    assert np.array_equal(one.nucleus_type, other.nucleus_type)


def test_a_hovernet_on_a_gpu_sends_one_map_for_two(pretended_gpu, monkeypatch):
    segmenter, rgb = ink_segmenter(), inked()
    here, maps = segmenter(rgb, 0.25), segmenter.predict_maps(rgb)

    ask_pretended_gpu(monkeypatch, hovernet)
    sent = segmenter.predict(rgb, 0.25).wait()

    assert {name: array.dtype for name, array in sent.items()} == {
        "probability": np.float32,
        "rise": np.float32,
        "types": np.uint8,
    }
    same_nuclei(here, segmenter.segment(sent))
    # Who asks for maps gets them.
    assert np.array_equal(segmenter.predict_maps(rgb)["hv"], maps["hv"])


@pytest.mark.parametrize(("separation", "sent"), [("depth", "smooth"), ("offset", "rise")])
def test_compact_on_a_gpu_sends_what_is_filtered(pretended_gpu, monkeypatch, separation, sent):
    settings = NucleiSettings(
        segmenter="compact", compact=CompactSettings(separation=separation, views=1)
    )
    segmenter, rgb = load_compact(settings, "cpu"), inked()
    here, maps = segmenter(rgb, segmenter.mpp), segmenter.predict_maps(rgb)

    ask_pretended_gpu(monkeypatch, compact)
    arrived = segmenter.predict(rgb, segmenter.mpp).wait()

    assert arrived.keys() == {"probability", sent}
    same_nuclei(here, segmenter.segment(arrived))
    assert np.array_equal(segmenter.predict_maps(rgb), maps)
