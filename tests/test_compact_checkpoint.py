"""Segmenter files: what is written is read, and what is wrong with a file is told."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from ccrl_wsi.errors import ModelError
from ccrl_wsi.nuclei.compact_checkpoint import (
    SEGMENTER_FILE,
    SegmenterHeader,
    load_segmenter,
    read_segmenter_header,
    save_segmenter,
)
from ccrl_wsi.nuclei.compact_network import CompactNetwork

HEADER = SegmenterHeader(name="small", widths=(8, 8, 16), mpp=0.25, training={"data": "drawn"})


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    return CompactNetwork(HEADER.widths).state_dict()


@pytest.mark.parametrize("half", [False, True])
def test_network_and_header_come_back(tmp_path, state, half):
    path = tmp_path / "s.safetensors"

    save_segmenter(path, state, HEADER, half=half)
    header, network = load_segmenter(path)

    assert header == read_segmenter_header(path) == HEADER
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == state[name].dtype
        assert torch.allclose(tensor.float(), state[name].float(), atol=1e-3 if half else 0)
    assert json.loads((tmp_path / "s.json").read_text())["widths"] == [8, 8, 16]


def test_half_the_bits_are_about_half_the_file(tmp_path, state):
    save_segmenter(tmp_path / "whole.safetensors", state, HEADER)
    save_segmenter(tmp_path / "half.safetensors", state, HEADER, half=True)

    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("whole", "half")]
    assert sizes[1] < 0.65 * sizes[0]


def test_equal_segmenters_are_equal_files(tmp_path, state):
    for name in ("a", "b"):
        save_segmenter(tmp_path / f"{name}.safetensors", state, HEADER)

    assert len({p.read_bytes() for p in tmp_path.glob("*.safetensors")}) == 1


def test_numbers_that_16_bits_do_not_hold_are_told_and_nothing_is_written(tmp_path, state):
    large = {**state, "head.0.bias": state["head.0.bias"] + 1e6}

    with pytest.raises(ModelError, match=r"head.0.bias.*half=false"):
        save_segmenter(tmp_path / "s.safetensors", large, HEADER, half=True)

    assert list(tmp_path.iterdir()) == []


def about(version=1, **header):
    header = {**HEADER.model_dump(mode="json"), **header}
    return {SEGMENTER_FILE.entry: json.dumps({"version": version, "header": header})}


def write_foreign(path, kind, state):
    broken = {**state, "head.0.bias": state["head.0.bias"] * torch.nan}
    files = {
        "other tensors": ({"a": torch.zeros(3)}, None),
        "other network": (state, about(widths=[8, 8, 24])),
        "later version": (state, about(version=9)),
        "broken header": (state, {SEGMENTER_FILE.entry: '{"version": 1, "header": {}}'}),
        "impossible widths": (state, about(widths=[-8, 8, 16])),
        "no numbers": (broken, about()),
    }
    if kind in files:
        tensors, metadata = files[kind]
        save_file(dict(tensors), path, metadata=metadata)
    elif kind == "cut off":
        save_segmenter(path, state, HEADER)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "text":
        path.write_text("<html>")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "There is no segmenter"),
        ("other tensors", "no segmenter of ccrl-wsi"),
        ("cut off", "cut off"),
        ("text", "cut off or of another kind"),
        ("other network", "not those of its header"),
        ("later version", "version 9"),
        ("broken header", "header .* is damaged"),
        ("impossible widths", "header .* is damaged"),
        ("no numbers", "head.0.bias that are no numbers"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, state, kind, said):
    path = tmp_path / "s.safetensors"
    write_foreign(path, kind, state)

    with pytest.raises(ModelError, match=said):
        load_segmenter(path)


def test_the_name_must_say_what_the_file_is(tmp_path, state):
    with pytest.raises(ModelError, match="safetensors"):
        save_segmenter(tmp_path / "s.pth", state, HEADER)
