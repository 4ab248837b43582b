"""`ccrl-wsi train` from label files to an encoder that a run takes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ccrl_wsi.config_files import config_names, find_config
from ccrl_wsi.embeddings.ccrl_encoder import CcrlEncoder
from ccrl_wsi.embeddings.checkpoint import read_header
from ccrl_wsi.errors import CcrlError, ConfigError, StoreError
from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.training.learner import World
from ccrl_wsi.training.settings import TrainSettings
from ccrl_wsi.training.state_file import load_state
from pipelines import train as train_module
from pipelines import training_run
from pipelines.cli import app
from pipelines.crop_sets import gather_crops
from pipelines.train import train_encoder
from pipelines.train_folder import TrainFolder
from tests.image_folders import save_consep

QUICK = [
    "network.widths=[8, 16]",
    "network.projector=[8, 8]",
    "network.predictor=4",
    "data.size_px=16",
    "loss.queue_size=64",
    "schedule.batch_size=16",
    "schedule.epochs=4",
    "schedule.warmup_epochs=1",
    "compute.log_every_steps=3",
    "compute.device=cpu",
]


@pytest.fixture(scope="module")
def consep(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("consep")
    grid = np.kron(np.arange(49).reshape(7, 7), np.ones((12, 12), np.int32))
    labels = np.pad(grid, 3).astype(np.int32)
    rng = np.random.default_rng(0)
    for name in ("train_1", "train_2"):
        rgb = rng.integers(0, 256, (*labels.shape, 3), np.uint8)
        save_consep(folder, name, labels, rgb, inst_type=[[1 + i % 4] for i in range(48)])
    return folder


def quick(consep: Path, *more: str) -> TrainSettings:
    return load_tree(TrainSettings, [], [*QUICK, f"data.path={consep}", *more])


@pytest.fixture(scope="module")
def trained(consep, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train_encoder(quick(consep), out)
    return out


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_training_leaves_an_encoder_and_its_record(consep, trained):
    header = read_header(trained / "encoder.safetensors")
    assert (header.crop.scale, header.crop.size_px, header.crop.mpp) == (2.0, 16, 0.25)
    assert header.training["settings"]["data"]["split"] == "train"
    assert str(consep) not in header.model_dump_json()
    assert header.training["n_crops"] == 96
    crops = gather_crops(quick(consep).data, 0)
    vectors = CcrlEncoder(trained / "encoder.safetensors", "cpu", 64)(
        crops.crops, crops.measurements
    )
    assert vectors.shape == (96, 16)
    assert vectors.std(axis=0).min() > 0
    assert (trained / "curves.png").read_bytes()[:4] == b"\x89PNG"
    steps = [int(row["step"]) for row in rows_of(trained)]
    assert steps == [0, 3, 6, 9, 12, 15, 18, 21, 23]


def test_the_encoder_is_the_momentum_network_unless_asked_otherwise(consep, trained, tmp_path):
    state = load_state(trained / "state.safetensors").tensors
    found = CcrlEncoder(trained / "encoder.safetensors", "cpu", 64)._network.state_dict()
    for name, tensor in found.items():
        assert torch.equal(tensor, state[f"model/key_encoder.{name}"]), name
    train_encoder(quick(consep, "export.network=query"), tmp_path / "query")
    asked = CcrlEncoder(tmp_path / "query" / "encoder.safetensors", "cpu", 64)._network
    assert torch.equal(asked.stem.weight, state["model/query_encoder.stem.weight"])
    assert not torch.equal(asked.stem.weight, state["model/key_encoder.stem.weight"])


class Interrupted(Exception):
    """Stands for the power going out."""


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    consep, trained, tmp_path, monkeypatch
):
    from ccrl_wsi.training.ccrl_learner import CcrlLearner

    whole = CcrlLearner.step

    def failing(self, rows, moment):
        if moment.step == 14:
            raise Interrupted
        return whole(self, rows, moment)

    out = tmp_path / "run"
    settings = quick(consep, "compute.save_every_minutes=1e-9")
    monkeypatch.setattr(CcrlLearner, "step", failing)
    with pytest.raises(Interrupted):
        train_encoder(settings, out)
    assert 0 < load_state(out / "state.safetensors").step < 14
    monkeypatch.setattr(CcrlLearner, "step", whole)
    train_encoder(settings, out)
    one, other = (load_state(p / "state.safetensors").tensors for p in (trained, out))
    assert all(torch.equal(one[name], other[name]) for name in one)
    encoder = "encoder.safetensors"
    assert CcrlEncoder(out / encoder, "cpu", 8).fingerprint == (
        CcrlEncoder(trained / encoder, "cpu", 8).fingerprint
    )
    same = [{k: v for k, v in row.items() if k != "crops_per_second"} for row in rows_of(out)]
    expected = [{k: v for k, v in r.items() if k != "crops_per_second"} for r in rows_of(trained)]
    assert same == expected


def test_ctrl_c_leaves_a_state_to_go_on_from(consep, tmp_path):
    overrides = [
        *QUICK,
        "schedule.epochs=100000",
        "compute.log_every_steps=1",
        f"data.path={consep}",
    ]
    sets = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "pipelines.cli", "train", "-o", str(tmp_path), *sets]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 4):
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "The same command continues" in said
    assert load_state(tmp_path / "state.safetensors").step > 2


def test_other_settings_or_other_crops_are_refused(consep, trained, tmp_path):
    with pytest.raises(ConfigError, match=r"schedule\.epochs: 4\.0 -> 5\.0"):
        train_encoder(quick(consep, "schedule.epochs=5"), trained)
    other = tmp_path / "consep"
    save_consep(
        other,
        "train_1",
        np.kron(np.arange(36).reshape(6, 6), np.ones((9, 9), np.int32)).astype(np.int32),
        inst_type=[[1]] * 35,
    )
    with pytest.raises(ConfigError, match="the crops are others"):
        train_encoder(quick(other), trained)


def test_a_finished_training_is_not_done_again(consep, trained, monkeypatch):
    from ccrl_wsi.training.ccrl_learner import CcrlLearner

    monkeypatch.setattr(CcrlLearner, "step", lambda *_: pytest.fail("a step was done"))
    before = (trained / "encoder.safetensors").read_bytes()
    train_encoder(quick(consep), trained)
    assert (trained / "encoder.safetensors").read_bytes() == before


def test_a_loss_that_is_no_number_stops_with_a_sentence(consep, tmp_path):
    with pytest.raises(CcrlError, match="Lower schedule.learning_rate"):
        train_encoder(quick(consep, "schedule.learning_rate=1e30"), tmp_path / "run")
    assert not (tmp_path / "run" / "encoder.safetensors").exists()


def test_the_command_trains(consep, tmp_path):
    sets = [word for override in QUICK for word in ("--set", override)]
    asked = ["train", "--data", str(consep), "-o", str(tmp_path / "run"), *sets]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "24 steps on 96 crops" in result.output


@pytest.mark.parametrize("name", [n for n in config_names() if n.startswith("train/")])
def test_training_files_hold_valid_settings(name):
    load_tree(TrainSettings, [find_config(name)])


def test_the_faithful_files_are_the_papers_settings():
    consep, nucls = (
        load_tree(TrainSettings, [find_config(f"train/ccrl_{n}")]) for n in ("consep", "nucls")
    )
    for settings in (consep, nucls):
        assert settings.network == TrainSettings().network
        assert settings.views == TrainSettings().views
        assert settings.loss == TrainSettings().loss
        assert settings.schedule == TrainSettings().schedule
    # Values of the paper's section 3 and, where it lost them, of its authors' next code.
    assert consep.network.widths == (64, 128, 256, 512)
    assert (consep.network.projector, consep.network.predictor) == ((128, 64), 32)
    assert (consep.loss.queue_size, consep.loss.temperature) == (65536, 0.07)
    assert (consep.schedule.batch_size, consep.schedule.epochs) == (1024, 500)
    assert (consep.schedule.momentum, consep.schedule.last_momentum) == (0.999, 0.999)
    assert (consep.data.scale, nucls.data.scale) == (2.0, 1.0)
    beyond = (consep.loss.mask_own, consep.loss.debias, consep.loss.prototypes)
    assert not any(beyond)


def test_torchrun_trains_as_one_process_does(consep, trained, tmp_path):
    overrides = [*QUICK, f"data.path={consep}"]
    sets = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "-m", "pipelines.cli", "train", "-o", str(tmp_path), *sets]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stderr=pipe, text=True, start_new_session=True
    ) as launcher:
        try:
            _, said = launcher.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(launcher.pid, signal.SIGKILL)  # the processes it started, too
            raise
    assert launcher.returncode == 0, said
    crops = gather_crops(quick(consep).data, 0)
    one, two = (
        CcrlEncoder(p / "encoder.safetensors", "cpu", 96)(crops.crops, crops.measurements)
        for p in (trained, tmp_path)
    )
    assert np.abs(one - two).max() < 0.02 * one.std()
    assert len(json.loads((tmp_path / "training.json").read_text())["crops"]) == 16


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("schedule.warmup_epochs=4", "warmup_epochs=4 leaves nothing of schedule.epochs=4"),
        ("schedule.betas=[0.9, 1.0]", "schedule.betas"),
        ("network.widths=[]", "network.widths"),
        ("network.projector=[0, 8]", "network.projector"),
    ],
)
def test_settings_that_cannot_train_are_refused(override, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        load_tree(TrainSettings, [], [*QUICK, override])


def test_processes_that_found_different_states_are_refused(consep, tmp_path, monkeypatch):
    training = train_module._Training(
        quick(consep),
        TrainFolder(tmp_path),
        gather_crops(quick(consep).data, 0),
        "cpu",
        World(0, 2),
    )
    steps = torch.tensor([0, 7])  # what the two processes say
    monkeypatch.setattr(training_run, "gather_rows", lambda mine: steps)
    with pytest.raises(StoreError, match="different states"):
        training._run._resume()
    monkeypatch.setattr(training_run, "gather_rows", lambda mine: torch.cat([mine, mine]))
    assert training._run._resume() == 0
