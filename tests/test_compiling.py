"""A compiled network says the same, or an error says that it could not be compiled."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from ccrl_wsi.errors import ModelError
from ccrl_wsi.nuclei.compiling import Compiled
from ccrl_wsi.nuclei.inference import made_ready


@pytest.fixture(autouse=True)
def without_a_compiler(monkeypatch):
    """Traced as always, then run as plain PyTorch: nothing waits for a C++ compiler."""
    torch._dynamo.config.suppress_errors = True  # As importing TIAToolbox leaves it.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    torch._dynamo.reset()


class Smooth(nn.Module):
    def forward(self, images):
        return nn.functional.avg_pool2d(images, 3, 1, 1)


class Printing(nn.Module):
    """Cannot be compiled as a whole."""

    def forward(self, images):
        torch._dynamo.graph_break()
        return images


@pytest.mark.parametrize("side", [16, 24])
def test_it_says_the_same_of_windows_of_any_size(side):
    images = torch.rand(2, 3, side, 32)
    with torch.inference_mode():
        assert torch.equal(made_ready(Smooth(), compiled=True)(images), Smooth()(images))


def test_windows_of_many_sizes_are_compiled_for_once(monkeypatch):
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile.func, backend=counter))
    network = Compiled(Smooth())
    # More sizes than the code could be made for one by one.
    with torch.inference_mode():
        for n in (2, 1, 3):
            for height, width in [(16, 24), (24, 16), (16, 16), (32, 40), (48, 40), (56, 64)]:
                network(torch.rand(n, 3, height, width))
    # Single windows have their own.
    assert counter.frame_count == 2


def test_what_cannot_be_compiled_is_never_silently_left_plain():
    with torch.inference_mode(), pytest.raises(ModelError, match="compute.compile=false"):
        Compiled(Printing())(torch.rand(1, 3, 8, 8))


def test_unless_asked_for_nothing_is_compiled():
    network = Smooth()
    assert made_ready(network, compiled=False) is network
