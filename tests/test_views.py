"""Whole views: every change on its own crops only, the same in parts, nothing ever out of range."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from ccrl_wsi.training import views
from ccrl_wsi.training.settings import ViewSettings
from ccrl_wsi.training.view_parameters import ViewParameters, check_views, draw_pair, draw_views
from ccrl_wsi.training.views import apply_view
from tests.drawn_views import drawn, no_change, noise

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")

FIELDS = {
    "stain": (lambda p: p.is_stained, ("stain_factor", "stain_shift")),
    "exposure": (lambda p: p.is_exposed, ("gain", "gamma")),
    "jitter": (lambda p: p.is_jittered, ("jitter",)),
    "grey": (lambda p: p.is_grey, ("is_grey",)),
    "blur": (lambda p: p.is_blurred, ("blur_px",)),
    "rotation": (lambda p: p.angle_deg != 0, ("angle_deg",)),
    "flips": (lambda p: p.is_flipped.any(axis=1), ("is_flipped",)),
    "geometry": (lambda p: p.is_moved, ("box", "is_flipped", "angle_deg")),
}


def with_only(p: ViewParameters, *names: str) -> ViewParameters:
    return no_change(len(p), **{name: getattr(p, name) for name in names})


def without(p: ViewParameters, *names: str) -> ViewParameters:
    same = no_change(len(p))
    return replace(p, **{name: getattr(same, name) for name in names})


def textures(n: int) -> Tensor:
    """Crops as smooth as tissue."""
    return interpolate(noise(n, side=10), size=32, mode="bicubic").clamp_(0, 1)


def test_no_change_gives_the_crops_themselves():
    pixels = noise(10)
    seen = apply_view(pixels, no_change(10))
    assert torch.equal(seen, pixels)
    assert seen.data_ptr() != pixels.data_ptr()


@pytest.mark.parametrize("change", FIELDS)
def test_a_change_leaves_all_other_crops_their_bits(change):
    pixels, p = noise(80), drawn(80, cropped=False)
    applied, names = FIELDS[change]
    seen, spared = apply_view(pixels, p), apply_view(pixels, without(p, *names))
    is_changed = applied(p)
    assert 0 < is_changed.sum() < 80
    assert torch.equal(seen[~is_changed], spared[~is_changed])
    differs = (seen != spared).flatten(1).any(1).numpy()
    # A grey picture may have no colour left to change.
    np.testing.assert_array_equal(differs & is_changed, differs)
    assert differs[is_changed].mean() > 0.7


def test_changes_come_in_their_order():
    pixels, p = noise(60), drawn(60)
    seen = pixels
    for names in (
        ("box", "is_flipped", "angle_deg"),
        ("stain_factor", "stain_shift"),
        ("gain", "gamma"),
        ("jitter", "order"),
        ("is_grey",),
        ("blur_px",),
    ):
        seen = apply_view(seen, with_only(p, *names))
    assert torch.equal(apply_view(pixels, p), seen)


@pytest.mark.parametrize("n_processes", [2, 3, 12])
def test_parts_of_a_batch_get_the_views_of_the_whole(n_processes):
    pixels, p = noise(48), drawn(48)
    whole = apply_view(pixels, p)
    size = 48 // n_processes
    parts = [slice(i * size, (i + 1) * size) for i in range(n_processes)]
    together = torch.cat([apply_view(pixels[part], p.part(part)) for part in parts])
    torch.testing.assert_close(together, whole, atol=1e-6, rtol=0)


def test_how_many_a_processor_changes_at_once_does_not_matter(monkeypatch):
    pixels, p = noise(50), drawn(50)
    whole = apply_view(pixels, p)
    monkeypatch.setattr(views, "CPU_PART", 16)
    torch.testing.assert_close(apply_view(pixels, p), whole, atol=1e-6, rtol=0)


def test_the_same_parameters_give_the_same_bits():
    pixels, p = noise(50), drawn(50)
    assert torch.equal(apply_view(pixels, p), apply_view(pixels.clone(), p))


def test_channels_last_comes_back_so_with_the_same_values():
    pixels, p = noise(20), drawn(20)
    last = pixels.contiguous(memory_format=torch.channels_last)
    seen = apply_view(last, p)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(seen, apply_view(pixels, p))
    assert apply_view(pixels, p).is_contiguous()


def test_crops_as_they_lie_in_memory_need_no_copy_first():
    # uint8 (n, side, side, c) permuted, as a crop set holds them.
    stored = (noise(6) * 255).byte().permute(0, 2, 3, 1).contiguous()
    pixels = stored.permute(0, 3, 1, 2).float() / 255
    p = drawn(6)
    assert torch.equal(apply_view(pixels, p), apply_view(pixels.contiguous(), p))


def test_autocast_does_not_make_pixels_coarse():
    pixels, p = noise(20), drawn(20)
    plain = apply_view(pixels, p)
    with torch.autocast("cpu", torch.bfloat16):
        seen = apply_view(pixels, p)
    assert torch.equal(seen, plain)


def test_no_gradient_and_nothing_written_to_the_crops():
    pixels = noise(20)
    before = pixels.clone()
    pixels.requires_grad_()
    assert not apply_view(pixels, drawn(20)).requires_grad
    assert torch.equal(pixels, before)


def test_nothing_asks_the_device_for_a_value(monkeypatch):
    # Tensors without content refuse to tell any, where a GPU would make the caller wait.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    pixels = noise(30).to("meta")
    assert apply_view(pixels, drawn(30)).shape == pixels.shape
    with pytest.raises(Exception, match="meta"):
        pixels.max().item()


@pytest.mark.parametrize("n", [0, 1])
def test_few_crops(n):
    assert apply_view(noise(2)[:n], drawn(n)).shape == (n, 3, 32, 32)


@pytest.mark.parametrize("n_channels", [1, 2, 5])
def test_crops_that_are_not_rgb(n_channels):
    fluorescence = ViewSettings(saturation=0, hue=0, p_grey=0)
    check_views(fluorescence, n_channels)
    pixels = noise(40, channels=n_channels)
    local, whole = draw_pair(fluorescence, 40, np.random.default_rng(0))
    for p in (local, whole):
        seen = apply_view(pixels, p)
        assert seen.shape == pixels.shape
        assert ((seen >= 0) & (seen <= 1)).all()
        assert not torch.equal(seen, pixels)


@pytest.mark.parametrize(
    "pixels",
    [noise(3), noise(4)[..., :20], noise(4).double(), noise(4).bfloat16(), noise(4)[0]],
    ids=["too few", "not square", "float64", "bfloat16", "one crop"],
)
def test_what_is_no_batch_of_crops_is_refused(pixels):
    with pytest.raises(ValueError, match="pixels"):
        apply_view(pixels, drawn(4))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    side=st.integers(8, 40),
    cropped=st.booleans(),
    wild=st.booleans(),
    flat=st.sampled_from([None, 0.0, 0.5, 1.0]),
)
def test_views_stay_finite_and_between_0_and_1(seed, side, cropped, wild, flat):
    strong = {"brightness": 2, "contrast": 3, "saturation": 4, "hue": 0.5, "stain_sigma": 1}
    strong |= {"exposure_gain": 3, "exposure_gamma": 3}
    chosen = ViewSettings(
        p_stain=0.5,
        p_exposure=0.5,
        crop_area=(0.001, 1),
        blur_px=(0.01, 20),
        **strong if wild else {},
    )
    p = draw_views(chosen, 12, np.random.default_rng(seed), cropped)
    pixels = noise(12, side=side, seed=seed) if flat is None else torch.full((12, 3, 9, 9), flat)
    seen = apply_view(pixels, p)
    assert torch.isfinite(seen).all()
    assert seen.min() >= 0
    assert seen.max() <= 1


def difference_from_the_order_of_the_paper(pixels: Tensor, cropped: bool) -> float:
    """Mean, as a share of that between two views; none but rounding where nothing is rotated."""
    n = len(pixels)
    p, other = (draw_views(ViewSettings(), n, np.random.default_rng(i), cropped) for i in (0, 1))
    seen = apply_view(pixels, p)
    paper = apply_view(pixels, with_only(p, "box"))
    paper = apply_view(paper, with_only(p, "jitter", "order", "is_grey", "blur_px"))
    paper = apply_view(paper, with_only(p, "is_flipped", "angle_deg"))
    difference = (seen - paper).abs()
    assert difference[p.angle_deg == 0].max() < 5e-6
    return float(difference.mean() / (seen - apply_view(pixels, other)).abs().mean())


@pytest.mark.parametrize("cropped", [False, True])
def test_moving_pixels_first_differs_little_from_the_order_of_the_paper(cropped):
    assert 0 < difference_from_the_order_of_the_paper(textures(400), cropped) < 0.03


@pytest.mark.data
@pytest.mark.parametrize("cropped", [False, True])
def test_of_tissue_the_order_is_less_than_a_hundredth(data_dir, cropped):
    files = sorted((data_dir / "consep/tiles256_jpeg/train").glob("*.jpg"))[::20]
    if not files:
        pytest.skip("no CoNSeP")
    tiles = np.stack([cv2.imread(str(file))[:256, :256, ::-1] for file in files])
    crops = tiles.reshape(len(files), 8, 32, 8, 32, 3).swapaxes(2, 3).reshape(-1, 32, 32, 3)
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    assert 0 < difference_from_the_order_of_the_paper(pixels, cropped) < 0.01


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_sees_the_same_and_never_waits():
    pixels, p = noise(300), drawn(300)
    there = pixels.cuda()
    apply_view(there, p)
    torch.cuda.set_sync_debug_mode("error")
    try:
        seen = apply_view(there, p)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(seen.cpu(), apply_view(pixels, p), atol=1e-4, rtol=0)
