"""The learner: steps, resuming, and two processes that are one."""

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from ccrl_wsi.crop_set import CropSet, channel_statistics
from ccrl_wsi.embeddings.network import PreActResNet18
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.measurement_names import NAMES
from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.training.batch_normalisation import over_all_processes
from ccrl_wsi.training.batches import Batches
from ccrl_wsi.training.ccrl_learner import CcrlLearner
from ccrl_wsi.training.ccrl_model import CcrlModel
from ccrl_wsi.training.distributed import gather_rows, join_world, leave_world
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.settings import TrainSettings

TINY = [
    "network.widths=[4, 8]",
    "network.projector=[8, 6]",
    "network.predictor=4",
    "loss.queue_size=20",
    "schedule.batch_size=12",
    "schedule.momentum=0.9",
    "schedule.warmup_epochs=0",
    "compute.log_every_steps=2",
    "compute.device=cpu",
]
STILL = [f"views.p_{name}=0" for name in ("jitter", "grey", "blur", "flip", "rotate")]


def settings_of(*overrides: str) -> TrainSettings:
    return load_tree(TrainSettings, [], [*TINY, *overrides])


def drawn_crops(n=40, side=12, channels=3, seed=0) -> CropSet:
    rng = np.random.default_rng(seed)
    tint = rng.integers(0, 200, (n, 1, 1, channels))
    crops = (tint + rng.integers(0, 56, (n, side, side, channels))).astype(np.uint8)
    nothing = np.zeros((n, len(NAMES)), np.float32)
    source = (np.arange(n) % 4).astype(np.int32)
    label = np.full(n, -1, np.int32)
    return CropSet(crops, nothing, source, label, ("a", "b", "c", "d"), (), 2.0, 0.25)


ALONE = World()


def make_learner(settings: TrainSettings, crops: CropSet, world: World = ALONE) -> CcrlLearner:
    widths = settings.network.widths

    def backbone() -> nn.Module:
        return PreActResNet18(crops.n_channels, widths)

    parts = settings.network, settings.loss, settings.seed
    model = CcrlModel(backbone, widths[-1], *parts, gather_rows)
    over_all_processes(model, "cpu")
    return CcrlLearner(crops, model, settings, "cpu", world)


def go(learner: CcrlLearner, settings: TrainSettings, crops: CropSet, steps: range, n: int = 6):
    schedule = settings.schedule
    batches = Batches(crops.source, schedule.batch_size, settings.seed, schedule.balance)
    readings = []
    for step in steps:
        moment = Moment(step, n, batches.steps_per_epoch)
        readings.append(learner.step(batches.rows(step), moment))
    return readings


FORMS = {
    "faithful": [],
    "symmetric": ["loss.symmetric=true", "loss.batch_negatives=true", "loss.mask_own=true"],
    "debiased": ["loss.debias=0.2"],
    "byol": ["loss.kind=byol"],
    "prototypes": ["loss.prototypes=3"],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_resumed_training_is_the_same_training(form):
    settings, crops = settings_of(*FORMS[form]), drawn_crops()
    whole = make_learner(settings, crops)
    go(whole, settings, crops, range(6))
    begun = make_learner(settings, crops)
    go(begun, settings, crops, range(2))
    kept = {name: tensor.clone() for name, tensor in begun.state().items()}
    # Step 2 is inside an epoch: pseudo-classes must come out of the state.
    resumed = make_learner(settings, crops)
    resumed.load_state(kept)
    go(resumed, settings, crops, range(2, 6))
    expected = whole.state()
    assert expected.keys() == resumed.state().keys()
    for name, tensor in resumed.state().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("form", FORMS)
def test_training_lowers_the_loss(form):
    settings = settings_of(*FORMS[form], *STILL, "views.cropped=none", "schedule.batch_size=40")
    crops = drawn_crops()
    learner = make_learner(settings, crops)
    losses = [float(m["loss"]) for m in go(learner, settings, crops, range(40), 40)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_names_of_readings_are_told_at_every_read_step():
    settings, crops = settings_of(), drawn_crops()
    readings = go(make_learner(settings, crops), settings, crops, range(6))
    extra = {"uniformity", "spread", "effective_rank"}
    assert [extra <= reading.keys() for reading in readings] == [
        True,
        False,
        True,
        False,
        True,
        True,
    ]
    assert all({"loss", "alignment"} <= reading.keys() for reading in readings)


class Witness(CcrlModel):
    """Keeps the views it was given."""

    seen: list[tuple[torch.Tensor, torch.Tensor]]

    def forward(self, first, second, rows, assignment=None):
        self.__dict__.setdefault("seen", []).append((first.clone(), second.clone()))
        return super().forward(first, second, rows, assignment)


@pytest.mark.parametrize(
    ("cropped", "are_whole"), [("one", [1, 0]), ("both", [0, 0]), ("none", [1, 1])]
)
def test_only_the_local_view_is_cut(cropped, are_whole):
    settings, crops = settings_of(f"views.cropped={cropped}", *STILL), drawn_crops()
    model = Witness(
        lambda: PreActResNet18(3, (4, 8)), 8, settings.network, settings.loss, settings.seed
    )
    learner = CcrlLearner(crops, model, settings, "cpu", World())
    rows = np.arange(12)
    learner.step(rows, Moment(0, 6, 3))
    pixels = torch.from_numpy(crops.crops[rows]).permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.from_numpy(v).float().view(1, -1, 1, 1) for v in channel_statistics(crops.crops)
    )
    whole = (pixels - mean) / std
    equal = [torch.allclose(view, whole, atol=1e-6) for view in model.seen[0]]
    assert equal == [bool(x) for x in are_whole]


def test_the_key_network_follows_and_is_not_optimised():
    settings, crops = settings_of("schedule.momentum=1", "schedule.last_momentum=1"), drawn_crops()
    learner = make_learner(settings, crops)
    before = [p.clone() for p in learner.model.key_encoder.parameters()]
    asked = [p.clone() for p in learner.model.query_encoder.parameters()]
    go(learner, settings, crops, range(2))
    after = list(learner.model.key_encoder.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    now = learner.model.query_encoder.parameters()
    assert not all(torch.equal(a, b) for a, b in zip(asked, now, strict=True))
    assert not any("key_" in name for name in learner.state() if name.startswith("optimiser/"))


def test_more_prototypes_than_crops_are_refused():
    crops = drawn_crops()
    settings = settings_of(f"loss.prototypes={len(crops) + 1}")
    with pytest.raises(ConfigError, match=f"loss.prototypes={len(crops)} or less"):
        make_learner(settings, crops)


def test_pseudo_classes_of_lost_numbers_are_one_sentence():
    settings, crops = settings_of("loss.prototypes=3"), drawn_crops()
    learner = make_learner(settings, crops)
    with torch.no_grad():
        next(learner.model.key_encoder.parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match="no longer finite at step 0 .*learning_rate"):
        go(learner, settings, crops, range(1))


def test_statistics_of_channels():
    crops = np.zeros((2, 2, 2, 2), np.uint8)
    crops[0, ..., 0] = 255
    crops[..., 1] = 51
    mean, std = channel_statistics(crops)
    np.testing.assert_allclose(mean, [0.5, 0.2])
    np.testing.assert_allclose(std, [0.5, 1 / 255])


def test_colour_changes_are_refused_for_crops_without_colour():
    with pytest.raises(ConfigError, match="views.p_grey=0"):
        make_learner(settings_of(), drawn_crops(channels=2))


def _two_processes(rank: int, folder: str, form: list[str]) -> None:
    import os

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    world = join_world("cpu")
    settings, crops = settings_of(*form), drawn_crops()
    learner = make_learner(settings, crops, world)
    go(learner, settings, crops, range(3))
    torch.save(learner.state(), f"{folder}/{rank}.pt")
    leave_world()


NOISE = (
    *("query_projector.0.bias", "query_projector.3.bias", "predictor.0.bias"),
    *("key_projector.0.bias", "key_projector.3.bias"),
    *("query_projector.1.running_mean", "predictor.1.running_mean", "key_projector.1.running_mean"),
)
"""Biases before a normalisation, and the means it takes off. The biases' true gradient is zero:
Adam steps along the noise of rounding, to no effect."""


def test_two_processes_train_as_one_would(tmp_path, monkeypatch, free_port):
    form = "symmetric"
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port))
    mp.spawn(_two_processes, (str(tmp_path), FORMS[form]), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    settings, crops = settings_of(*FORMS[form]), drawn_crops()
    alone = make_learner(settings, crops)
    go(alone, settings, crops, range(3))
    for name, tensor in alone.state().items():
        assert torch.equal(first[name], second[name]), name
        if any(part in name for part in NOISE):
            continue
        torch.testing.assert_close(first[name], tensor, atol=1e-3, rtol=1e-3, msg=name)


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
