"""The compact segmenter: windows, views, resolution, seams, and what its bundled weights find."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ccrl_wsi.config import NucleiSettings, load_settings
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.evaluation.segmentation_scores import score_segmentation
from ccrl_wsi.nuclei.compact import BUNDLED, SPOILT_PX, as_maps, load_compact, mean_over_views
from ccrl_wsi.nuclei.compact_checkpoint import load_segmenter, read_segmenter_header
from ccrl_wsi.nuclei.segmenters import check_segmenter, segmenter_fingerprint
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide
from ccrl_wsi.training.field_targets import make_targets
from tests.drawn_fields import drawn_image

MPP = 0.25


def load(window_px=1024, **compact):
    overrides = ["nuclei.segmenter=compact", f"nuclei.window_px={window_px}"]
    overrides += [f"nuclei.compact.{name}={value}" for name, value in compact.items()]
    return load_compact(load_settings(overrides=overrides).nuclei, "cpu")


@lru_cache(maxsize=1)
def tissue():
    return draw_slide(DrawnSlideSpec(width_px=520, height_px=480, n_nuclei=110, seed=7))


def test_drawn_nuclei_are_found_without_any_setting():
    found = load()(tissue().rgb, MPP)

    score = score_segmentation(tissue().labels, found.labels, MPP)
    assert score.detection_f1 > 0.8
    assert score.dice > 0.75
    assert (found.probability > 0.5).all()
    assert np.isnan(found.type_probability).all()


def test_windows_of_any_size_find_the_same_nuclei():
    large, small = load(1024)(tissue().rgb, MPP).labels, load(320)(tissue().rgb, MPP).labels

    assert ((large > 0) != (small > 0)).mean() < 0.002
    assert abs(int(large.max()) - int(small.max())) <= 1


class Compass(torch.nn.Module):
    """Finds dark pixels, and says of each what a perfect network says: equivariant by itself."""

    def forward(self, images):
        outputs = []
        for image in images:
            made = make_targets((image[0] < 128).int().numpy())
            maps = np.dstack(
                [made.inside / 25.5 - 5, made.depth / 255, (made.offset - 127.0) / 127]
            )
            outputs.append(torch.from_numpy(maps).permute(2, 0, 1).float())
        return torch.stack(outputs)


def test_the_mean_over_views_turns_everything_back():
    image = torch.full((1, 3, 48, 48), 230.0)
    image[:, :, 10:30, 8:20] = 20
    image[:, :, 22:30, 8:40] = 20

    one, eight = (mean_over_views(Compass(), image, views) for views in (1, 8))

    assert torch.allclose(one[:, [0, 2, 3]], eight[:, [0, 2, 3]], atol=0.02)
    assert torch.allclose(one[:, 1], eight[:, 1], atol=0.02)


def test_eight_views_do_not_care_how_the_image_lies():
    network = load_segmenter(BUNDLED)[1]
    image = torch.from_numpy(tissue().rgb[:64, :96].copy()).permute(2, 0, 1)[None].float()

    with torch.inference_mode():
        straight = mean_over_views(network, image, 8)
        turned = mean_over_views(network, image.rot90(1, (2, 3)), 8)

    assert torch.allclose(straight[:, :2].rot90(1, (2, 3)), turned[:, :2], atol=1e-4)
    assert torch.allclose(straight[:, 2].rot90(1, (1, 2)), -turned[:, 3], atol=1e-4)


def test_what_a_window_uses_is_what_the_whole_image_would_give():
    network = load_segmenter(BUNDLED)[1]
    whole = torch.from_numpy(tissue().rgb[:448, :448].copy()).permute(2, 0, 1)[None].float()
    start = 96
    window = whole[..., start : start + 256, start : start + 256]

    with torch.inference_mode():
        a, b = network(whole)[..., start : start + 256, start : start + 256], network(window)

    inner = slice(SPOILT_PX, 256 - SPOILT_PX)
    a, b = a[..., inner, inner], b[..., inner, inner]
    spread = a.std(dim=(0, 2, 3), keepdim=True)
    assert ((a - b).abs() / spread).max() < 2e-3


def test_eight_views_find_the_nuclei_too():
    rgb, labels = drawn_image(3, 200, 20)

    found = load(views=8)(rgb, MPP)

    assert score_segmentation(labels, found.labels, MPP).detection_f1 > 0.7


def test_both_ways_to_part_nuclei_are_there():
    found = [load(separation=way)(tissue().rgb, MPP) for way in ("offset", "depth")]

    scores = [score_segmentation(tissue().labels, f.labels, MPP).detection_f1 for f in found]
    assert min(scores) > 0.75
    assert not np.array_equal(found[0].labels, found[1].labels)


def test_another_resolution_is_refused_before_any_slide_is_opened():
    settings = NucleiSettings(segmenter="compact")

    check_segmenter(settings, 0.26)
    with pytest.raises(ConfigError, match=r"compact works at 0.25 .* tiles.mpp=0.25"):
        check_segmenter(settings, 0.5)
    with pytest.raises(ConfigError, match="not at 0.5"):
        load()(tissue().rgb, 0.5)


def test_missing_weights_are_told(tmp_path):
    settings = NucleiSettings(segmenter="compact", weights=tmp_path / "none.safetensors")

    for act in (lambda: check_segmenter(settings, MPP), lambda: load_compact(settings, "cpu")):
        with pytest.raises(ModelError, match="There is no segmenter"):
            act()


def test_the_fingerprint_is_that_of_the_weights(tmp_path):
    own = segmenter_fingerprint(NucleiSettings(segmenter="compact"))
    other = tmp_path / "other.safetensors"
    other.write_bytes(BUNDLED.read_bytes() + b" ")

    assert own.startswith("compact ")
    assert segmenter_fingerprint(NucleiSettings(segmenter="compact", weights=other)) != own


def test_the_bundled_weights_are_small_and_say_what_they_were_made_of():
    training = read_segmenter_header(BUNDLED).training

    assert BUNDLED.stat().st_size <= 4e6
    assert [source["kind"] for source in training["data"]] == ["tnbc", "label_maps"]
    licences = " ".join(source["licence"] for source in training["data"])
    assert "CC BY 4.0" in licences
    for word in ("NC", "CoNSeP", "MoNuSeg"):
        assert word not in licences
    beside = BUNDLED.with_name("README.md").read_text(encoding="utf-8")
    for source in ("TNBC", "CMU-1", "CC BY 4.0", "CC0", "MIT"):
        assert source in beside


class Sent(TorchDispatchMode):
    """Notes what goes from the host to a GPU."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if "_to_copy" in str(operation) and "cuda" in str(kwargs.get("device")):
            self.shapes.append(tuple(args[0].shape))
        return operation(*args, **kwargs)


@pytest.mark.parametrize("separation", ["offset", "depth"])
def test_nothing_is_sent_to_a_gpu_while_its_maps_are_made(separation):
    sent = Sent()
    with FakeTensorMode(allow_non_fake_inputs=True), sent:
        output = torch.empty(1, 4, 16, 16, device="cuda")
        _ = output[:, [0, 1]]  # does send something
        assert sent.shapes == [(2,)]
        assert as_maps(output, separation).device.type == "cuda"
    assert sent.shapes == [(2,)]
