"""Names of devices."""

from __future__ import annotations

import pytest
import torch

from ccrl_wsi.devices import move_to, resolve_device
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
