"""A training's state comes back bit for bit, or with one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ccrl_wsi.errors import ModelError
from ccrl_wsi.training.state_file import FORMAT, load_state, save_state

ABOUT = {"settings": {"seed": 3}, "name": "Zelle ä"}


def a_state() -> dict[str, torch.Tensor]:
    shared = torch.randn(4, 3, 5, 5)
    return {
        "conv": shared.to(memory_format=torch.channels_last),
        "tied": shared,
        "tied too": shared,
        "transposed": torch.arange(6).reshape(2, 3).T,
        "scalar": torch.tensor(7.0),
        "count": torch.tensor(2**40),
        "half": torch.randn(3).to(torch.bfloat16),
        "empty": torch.zeros(0, 4),
    }


def test_what_was_saved_comes_back(tmp_path):
    state, path = a_state(), tmp_path / "new" / "state.safetensors"
    save_state(path, 41, state, ABOUT)
    loaded = load_state(path)
    assert (loaded.step, loaded.about) == (41, ABOUT)
    assert loaded.tensors.keys() == state.keys()
    for name, tensor in state.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_equal_states_are_equal_files(tmp_path):
    state = a_state()
    for name in "ab":
        save_state(tmp_path / name, 1, state, ABOUT)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_save_that_fails_leaves_the_older_state(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    save_state(path, 1, {"x": torch.ones(2)}, {})

    write = Path.write_bytes

    def full(file, content):
        write(file, b"half a")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ModelError, match=r"state\.safetensors.*No space left"):
        save_state(path, 2, {"x": torch.zeros(2)}, {})
    assert load_state(path).step == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("keep", [0, 5, 30, 200, -1])
def test_a_cut_off_file_is_named(tmp_path, keep):
    path = tmp_path / "state.safetensors"
    save_state(path, 1, a_state(), ABOUT)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"state\.safetensors is damaged"):
        load_state(path)


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no training state"):
        load_state(tmp_path / "absent")
    pickle = tmp_path / "state.pt"
    torch.save({"x": torch.ones(2)}, pickle)
    with pytest.raises(ModelError, match="damaged or no such file"):
        load_state(pickle)
    for metadata, sentence in [
        ({}, "not the state of a training"),
        ({FORMAT: "{"}, "damaged"),
        ({FORMAT: '{"version": 1}'}, "damaged"),
        ({FORMAT: "[]"}, "damaged"),
        ({FORMAT: '{"version": 9, "step": 1, "about": {}}'}, "version 9"),
    ]:
        save_file({"x": torch.ones(2)}, tmp_path / "other", metadata=metadata)
        with pytest.raises(ModelError, match=sentence):
            load_state(tmp_path / "other")
