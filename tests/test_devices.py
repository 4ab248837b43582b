"""Names of devices."""

from __future__ import annotations

import pytest
import torch

from ccrl_wsi.devices import autocast_dtype, computing, move_to, resolve_device
from ccrl_wsi.errors import ConfigError


def pretend_gpus(monkeypatch, n):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)


@pytest.mark.parametrize(("n_gpus", "expected"), [(0, "cpu"), (1, "cuda")])
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch, n_gpus, expected):
    pretend_gpus(monkeypatch, n_gpus)
    assert resolve_device("auto") == expected


def test_a_gpu_asked_for_by_number_must_exist(monkeypatch):
    pretend_gpus(monkeypatch, 2)
    assert resolve_device("cuda:1") == "cuda:1"
    with pytest.raises(ConfigError, match="finds 2"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "tpu:0", ""])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ConfigError, match="choose auto"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("widths", "layout"), [((8, 24), torch.channels_last), ((8, 12), torch.contiguous_format)]
)
def test_on_a_cpu_channels_come_last_only_where_it_is_safe(widths, layout):
    network = torch.nn.Sequential(*(torch.nn.Conv2d(3, width, 3) for width in widths))
    assert move_to(network, torch.device("cpu")) == layout
    assert network[0].weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("precision", "device", "generation", "expected"),
    [
        ("auto", "cpu", None, None),
        ("auto", "cuda", 8, torch.bfloat16),
        ("auto", "cuda:1", 7, torch.float16),
        ("float32", "cuda", 9, None),
        ("bfloat16", "cpu", None, torch.bfloat16),
        ("float16", "cuda", 8, torch.float16),
    ],
)
def test_auto_is_half_precision_on_gpus_only(monkeypatch, precision, device, generation, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (generation, 0))
    assert autocast_dtype(precision, device) == expected


@pytest.fixture
def tf32_as_found():
    """The switches are the process': other tests get them back."""
    parts = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [part.fp32_precision for part in parts]
    yield parts
    for part, value in zip(parts, before, strict=True):
        part.fp32_precision = value


def by_the_older_switch():
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True


def by_the_newer_one():
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.backends.cuda.matmul.fp32_precision = "tf32"


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9")
@pytest.mark.parametrize("allow", [by_the_older_switch, by_the_newer_one])
def test_on_a_gpu_float32_is_float32_whatever_was_allowed(tf32_as_found, allow):
    allow()
    with computing("cpu", "float32"):
        pass
    assert "tf32" in {part.fp32_precision for part in tf32_as_found}
    with computing("cuda", "float32"):
        assert not torch.is_grad_enabled()
    assert {part.fp32_precision for part in tf32_as_found} == {"ieee"}
    assert not torch.backends.cudnn.allow_tf32  # What older code asks still has an answer.
    assert not torch.backends.cuda.matmul.allow_tf32


def test_precision_ends_with_the_block():
    layer, pixels = torch.nn.Conv2d(3, 8, 3), torch.ones(1, 3, 8, 8)
    with computing("cpu", "bfloat16"):
        assert layer(pixels).dtype == torch.bfloat16
        with computing("cpu", "float32"):
            assert layer(pixels).dtype == torch.float32
    assert layer(pixels).dtype == torch.float32
    assert layer(pixels).requires_grad


@pytest.mark.gpu
def test_float32_on_a_gpu_has_all_its_bits():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA on this machine")
    torch.manual_seed(0)
    layer, pixels = torch.nn.Conv2d(64, 64, 3).cuda(), torch.randn(8, 64, 32, 32, device="cuda")
    with computing("cuda", "float32"):
        found = layer(pixels).double()
    with torch.inference_mode():
        exact = layer.double()(pixels.double())
    # TF32 is off by a thousandth.
    assert (found - exact).abs().max() < 2e-5 * exact.abs().max()
