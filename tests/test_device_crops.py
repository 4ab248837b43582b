"""Crops on the device: bytes in, normalised pixels out, the same in portions as at once."""

from __future__ import annotations

import numpy as np
import torch

from ccrl_wsi.training import device_crops
from ccrl_wsi.training.device_crops import DeviceCrops
from ccrl_wsi.training.kept_tensors import named, under
from tests.drawn_crops import coloured_crops

CROPS = coloured_crops(24, side=16, noise=300.0)


def test_pixels_are_the_bytes_and_normalised_ones_have_mean_0_and_deviation_1():
    on_device = DeviceCrops(CROPS, torch.device("cpu"))

    pixels = on_device.pixels(on_device.indices(np.arange(len(CROPS))))

    assert np.array_equal(np.rint(pixels.numpy() * 255), CROPS.crops.transpose(0, 3, 1, 2))
    scaled = on_device.normalised(pixels)
    assert torch.allclose(scaled.mean((0, 2, 3)), torch.zeros(3), atol=1e-3)
    assert torch.allclose(scaled.std((0, 2, 3)), torch.ones(3), atol=1e-2)


def test_portions_are_all_crops_in_order(monkeypatch):
    monkeypatch.setattr(device_crops, "EMBED_AT_ONCE", 5)
    on_device = DeviceCrops(CROPS, torch.device("cpu"))

    parts = list(on_device.portions())

    n = len(CROPS)
    whole = on_device.normalised(on_device.pixels(torch.arange(n)))
    assert max(len(part) for part in parts) == 5
    assert torch.equal(torch.cat(parts), whole)


def test_names_come_back_without_the_prefix_they_were_given():
    state = named("a/", {"x": torch.zeros(1)}) | named("b/", {"x": torch.ones(1)})

    assert list(state) == ["a/x", "b/x"]
    assert float(under("b/", state)["x"]) == 1
    assert under("c/", state) == {}
