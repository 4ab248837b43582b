"""The GAN: who learns when, what it draws, going on after a stop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccrl_wsi.embeddings.infogan_network import InfoganCritic
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.training.batches import Batches
from ccrl_wsi.training.infogan_learner import Gan, Generator, InfoganLearner
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.settings import TrainSettings
from tests.drawn_crops import coloured_crops

CROPS = coloured_crops(24, side=32)
TINY = [
    "method=infogan",
    "infogan.n_codes=3",
    "infogan.noise=2",
    "infogan.width=4",
    "infogan.critic_steps=2",
    "schedule.epochs=1",
    "schedule.batch_size=6",
    "schedule.warmup_epochs=0",
]
PARTS = ("generator.", "critic.trunk.", "critic.code.", "score_layer.")


def make_learner(crops=CROPS, *overrides):
    settings = load_tree(TrainSettings, [], [*TINY, *overrides])
    torch.manual_seed(0)
    model = Gan(InfoganCritic(3, 4, 3), Generator(5, 3, 4), 4)
    return InfoganLearner(crops, model, settings, "cpu", World())


def go(learner, steps):
    batches = Batches(CROPS.source, 6, 0)
    return [learner.step(batches.rows(step), Moment(step, 4, 4)) for step in steps]


def changed_parts(learner, act):
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    act()
    now = dict(learner.model.named_parameters())
    changed = [name for name in before if not torch.equal(before[name], now[name])]
    return {part for part in PARTS if any(name.startswith(part) for name in changed)}


def test_the_generator_draws_images_in_the_range_of_pixels():
    images = Generator(5, 3, 4)(torch.randn(2, 5))
    assert images.shape == (2, 3, 32, 32)
    assert images.abs().max() <= 1


def test_an_odd_step_is_the_critics_an_even_one_teaches_all():
    learner = make_learner()
    assert changed_parts(learner, lambda: go(learner, [1])) == {"critic.trunk.", "score_layer."}
    assert changed_parts(learner, lambda: go(learner, [2])) == set(PARTS)
    metrics = go(learner, [0, 1])
    assert set(metrics[0]) == {"loss", "wasserstein", "penalty", "generator", "code"}
    assert set(metrics[1]) == {"loss", "wasserstein", "penalty"}
    loss = 10 * metrics[1]["penalty"] - metrics[1]["wasserstein"]
    torch.testing.assert_close(metrics[1]["loss"], loss)


def test_the_generator_learns_to_be_taken_for_real(monkeypatch):
    """The critic as it is, one step of the generator: what it draws from the same numbers."""
    learner = make_learner(CROPS, "schedule.learning_rate=0.001")
    monkeypatch.setattr(learner._optimisers["code"], "step", lambda loss, moment: None)
    latent, _ = learner._latent(64, np.random.default_rng(0))
    model = learner.model

    def taken_for_real():
        with torch.no_grad():
            return float(model.score(model.generator(latent)).mean())

    before = taken_for_real()
    metrics = learner._teach_generator(64, np.random.default_rng(0), Moment(0, 4, 4))
    assert float(metrics["generator"].detach()) == pytest.approx(-before, abs=1e-5)
    assert taken_for_real() > before


def test_the_code_that_was_asked_for_is_learned(monkeypatch):
    learner = make_learner(CROPS, "schedule.learning_rate=0.01")
    monkeypatch.setattr(learner._optimisers["generator"], "step", lambda loss, moment: None)
    latent, code = learner._latent(48, np.random.default_rng(5))
    assert torch.equal(latent[:, :3], torch.eye(3)[code])

    def surprise():
        """Cross-entropy of the category asked for, by hand."""
        with torch.no_grad():
            found = learner.model.code(learner.model.generator(latent)).double()
        told = found[torch.arange(48), code] - torch.logsumexp(found, dim=1)
        return -float(told.mean())

    before = surprise()
    for step in range(0, 60, 2):
        learner._teach_generator(24, np.random.default_rng(step), Moment(step, 100, 4))
    assert surprise() < before - 0.2  # of ln 3 at the start


def test_the_surprise_at_the_code_is_its_cross_entropy(monkeypatch):
    learner = make_learner()
    for optimiser in learner._optimisers.values():
        monkeypatch.setattr(optimiser, "step", lambda loss, moment: None)
    scores = torch.tensor([2.0, 0.0, -1.0])
    monkeypatch.setattr(learner.model, "code", lambda images: scores.expand(len(images), 3))
    metrics = learner._teach_generator(24, np.random.default_rng(0), Moment(0, 4, 4))
    rng = np.random.default_rng(0)
    learner._latent(24, rng)  # those of the generator's own step
    asked = learner._latent(24, rng)[1].numpy()
    shares = np.exp([2.0, 0.0, -1.0]) / np.exp([2.0, 0.0, -1.0]).sum()
    assert float(metrics["code"]) == pytest.approx(-np.log(shares)[asked].mean(), rel=1e-5)


def test_the_code_changes_generator_trunk_and_code_but_not_the_score():
    optimisers = make_learner()._optimisers
    learnt = {part: set(optimiser._parameters) for part, optimiser in optimisers.items()}
    assert {name.split(".")[0] for name in learnt["generator"]} == {"generator"}
    assert not any(name.startswith("score_layer") for name in learnt["code"])
    assert any(name.startswith("critic.trunk") for name in learnt["code"] & learnt["critic"])
    assert not any(name.startswith("critic.code") for name in learnt["critic"])


def test_a_resumed_training_is_the_same_training():
    whole = make_learner()
    go(whole, range(4))
    first, second = make_learner(), make_learner()
    go(first, range(3))
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    go(second, [3])
    found, expected = second.state(), whole.state()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_critic_is_an_encoder_of_images_alone():
    critic = InfoganCritic(3, 4, 3).eval()
    images = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        together = critic(images)
        alone = torch.cat([critic(image[None]) for image in images])
        assert critic.own_clusters(together).shape == (5, 3)
    assert together.shape == (5, 4)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_crops_of_another_size_are_refused():
    with pytest.raises(ConfigError, match=r"data\.size_px=32"):
        make_learner(coloured_crops(24, side=16))
