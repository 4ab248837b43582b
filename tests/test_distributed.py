"""Two processes on the CPU train as one would on the same batch, and stop together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.training.batch_normalisation import GlobalBatchNorm, over_all_processes
from ccrl_wsi.training.distributed import (
    average_gradients,
    gather_rows,
    join_world,
    leave_world,
    sum_over_processes,
)
from ccrl_wsi.training.learner import World
from tests.two_processes import everything

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("normalised", "cumulated", "trained", "gathered", "interrupted", "broken")


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes found, by name: [of the first, of the second]."""
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.two_processes", str(folder)]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env=told | {"RANK": str(r), "LOCAL_RANK": str(r)},
            stderr=subprocess.PIPE, text=True,
        )
        for r in range(2)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0, 0], "\n".join(errors)
    return {name: [torch.load(folder / f"{r}-{name}.pt") for r in range(2)] for name in NAMES}


@pytest.fixture(scope="module")
def alone():
    return everything(World())


@pytest.mark.parametrize("name", ["normalised", "cumulated"])
def test_normalisation_is_that_of_the_whole_batch(together, alone, name):
    first, second = together[name]
    expected = alone[name]
    assert any("running_var" in key for key in expected)
    assert first.keys() == second.keys() == expected.keys()
    for key, tensor in expected.items():
        scale = max(1.0, tensor.abs().max().item())
        for found in (first[key], second[key]):
            assert found.shape == tensor.shape
            assert (found - tensor).abs().max().item() / scale < 1e-5, key


def test_two_processes_train_as_one(together, alone):
    first, second = together["trained"]
    start = everything_at_start()
    for key, tensor in alone["trained"].items():
        torch.testing.assert_close(first[key], tensor, atol=2e-4, rtol=2e-3, msg=key)
        if key in start and tensor.is_floating_point():
            # They have come a long way compared with how close they are.
            assert (tensor - start[key]).abs().max() > 0.01, key
        # Losses are spoken of by the first only; all else is the same, the queue to the bit.
        if key != "losses":
            assert torch.equal(first[key], second[key]), key
    assert len(first["losses"]) == 4
    assert len(second["losses"]) == 0


def everything_at_start():
    from tests.tiny_learner import TinyLearner

    return TinyLearner().state()


def test_a_stop_asked_of_one_process_stops_both_after_the_same_step(together):
    first, second = together["interrupted"]
    assert first["saved"].tolist() == [9]
    assert second["saved"].tolist() == []
    assert first["done"] == second["done"] == 9


def test_a_broken_loss_of_one_process_stops_both_unsaved(together):
    first, second = together["broken"]
    assert first["saved"].tolist() == [1, 5]
    assert first["in step 5"]
    assert second["in step 5"]


def test_rows_are_gathered_in_the_order_of_processes(together):
    for found in together["gathered"]:
        assert found["floats"].tolist() == [[0, 1, 2], [3, 4, 5], [10, 11, 12], [13, 14, 15]]
        assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5], [10, 13], [11, 14], [12, 15]]
        assert found["integers"].tolist() == [0, 7, 1, 7]
        assert not found["floats"].requires_grad


def test_alone_nothing_is_shared(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert join_world("cpu") == World(0, 1)
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(rows).data_ptr() == rows.data_ptr()
    assert not gather_rows(rows).requires_grad
    assert torch.equal(sum_over_processes(rows), rows)
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), 3.0)
    average_gradients([weight])
    assert weight.grad.tolist() == [3, 3]
    norm = nn.BatchNorm1d(3)
    assert over_all_processes(norm, "cpu") is norm
    leave_world()


def test_one_process_of_torchrun_is_alone(monkeypatch):
    told = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    for name, value in (told | {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    assert join_world("cpu") == World(0, 1)
    assert not torch.distributed.is_initialized()


def test_half_of_torchruns_variables_are_an_error(monkeypatch):
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not.*torchrun"):
        join_world("cpu")


@pytest.mark.parametrize(
    ("device", "sentence"),
    [("cuda:0", "names one GPU for 2 processes"), ("cuda", "sees 1.*nproc-per-node=1")],
)
def test_each_process_needs_its_own_gpu(monkeypatch, device, sentence):
    told = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    for name, value in (told | {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=sentence):
        join_world(device)


def test_the_global_norm_alone_is_the_plain_one():
    plain, ours = nn.BatchNorm2d(3), GlobalBatchNorm(3)
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain(x), ours(x))
    assert plain.state_dict().keys() == ours.state_dict().keys()
    assert torch.equal(plain.running_var, ours.running_var)
    with pytest.raises(ValueError, match=r"\(n, c, ...\)"):
        ours(torch.zeros(3))
