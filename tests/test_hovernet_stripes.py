"""HoVer-Net in stripes says what TIAToolbox's network says, and needs far less memory for it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from ccrl_wsi.nuclei import hovernet_stripes
from ccrl_wsi.nuclei.hovernet_stripes import InStripes
from tests.drawn_networks import random_hovernet

SIDES = {"fast": (136, 120), "original": (270, 278)}


def built(name):
    return random_hovernet(name, SIDES[name.split("-")[0].removeprefix("hovernet_")])


@pytest.fixture(scope="module")
def network():
    return built("hovernet_fast-pannuke")


def images_for(network, n=1):
    height, width = SIDES[network.mode]
    return (torch.rand(n, height, width, 3) * 255).permute(0, 3, 1, 2)


def alike(some, others):
    assert some.keys() == others.keys()
    return all(torch.allclose(some[name], others[name], rtol=1e-4, atol=1e-4) for name in some)


@pytest.mark.parametrize("stripe_px", [32768, 2000, 1])
def test_stripes_of_any_height_say_what_the_network_says(network, stripe_px, monkeypatch):
    monkeypatch.setattr(hovernet_stripes, "STRIPE_PX", stripe_px)
    with torch.inference_mode():
        images = images_for(network)
        assert alike(InStripes(network)(images), network(images))


def test_so_do_stripes_of_the_original_network(monkeypatch):
    monkeypatch.setattr(hovernet_stripes, "STRIPE_PX", 4000)
    network = built("hovernet_original-kumar")
    with torch.inference_mode():
        images = images_for(network)
        assert alike(InStripes(network)(images), network(images))


def test_several_images_at_once_stay_apart(network):
    with torch.inference_mode():
        images = images_for(network, n=2)
        both = InStripes(network)(images)
        second = InStripes(network)(images[1:])
        assert alike({name: maps[1:] for name, maps in both.items()}, second)


def test_as_a_whole_it_is_the_same_and_can_be_compiled(network):
    # Tracing takes as long as there are layers: two units of each kind will do.
    network = copy.deepcopy(network)
    del network.decoder["tp"], network.decoder["hv"]
    for block in (network.d0, network.d1, network.d2, network.d3):
        del block.units[2:]
    with torch.inference_mode():
        images = images_for(network)
        in_stripes = InStripes(network)(images)
        counter = CompileCounter()
        compiled = torch.compile(InStripes(network), backend=counter, fullgraph=True, dynamic=True)
        assert alike(compiled(images), in_stripes)
    assert counter.frame_count == 1
    torch._dynamo.reset()


class MapsMade(TorchDispatchMode):
    """Notes the bytes of all memory that layers take for their results."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        seen = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        if isinstance(result, torch.Tensor):
            memory = result.untyped_storage()
            if memory.data_ptr() not in seen:
                self.sizes.append(memory.nbytes())
        return result


def test_one_map_is_as_large_as_many_were(network, monkeypatch):
    monkeypatch.setattr(hovernet_stripes, "STRIPE_PX", 1000)
    images = images_for(network)
    largest = 256 * 4 * images[0, 0].numel()
    with torch.inference_mode():
        with MapsMade() as plain:
            network(images)
        with MapsMade() as striped:
            InStripes(network)(images)
    assert sum(size > 0.5 * largest for size in plain.sizes) > 10
    # The sum of the first block, and what each of the units of the second sees narrowed.
    assert sorted(size / largest for size in striped.sizes)[-2] <= 0.5
    assert max(striped.sizes) == largest
