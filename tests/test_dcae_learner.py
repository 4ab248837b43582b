"""The auto-encoder with clusters: two parts of a training, targets, going on after a stop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccrl_wsi.embeddings.dcae_network import DcaeEncoder
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.training.batches import Batches
from ccrl_wsi.training.dcae_learner import AutoEncoder, DcaeLearner, make_decoder
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.losses.deep_clustering import soft_assignment, target_distribution
from ccrl_wsi.training.settings import TrainSettings
from tests.drawn_crops import coloured_crops

CROPS = coloured_crops(36, side=16)
TINY = [
    "method=dcae",
    "dcae.n_dimensions=4",
    "dcae.n_clusters=3",
    "dcae.widths=[8, 8, 8]",
    "dcae.pretrain_epochs=2",
    "dcae.update_every_steps=3",
    "schedule.epochs=4",
    "schedule.batch_size=12",
    "schedule.learning_rate=0.01",
    "schedule.warmup_epochs=0",
]
N_STEPS = 12


def make_learner(*overrides):
    settings = load_tree(TrainSettings, [], [*TINY, *overrides])
    torch.manual_seed(0)
    encoder = DcaeEncoder(3, 16, 4, settings.dcae.n_clusters, (8, 8, 8))
    model = AutoEncoder(encoder, make_decoder(3, 16, 4, (8, 8, 8)))
    return DcaeLearner(CROPS, model, settings, "cpu", World())


def go(learner, steps, n_steps=N_STEPS):
    batches = Batches(CROPS.source, 12, 0)
    moments = [Moment(step, n_steps, batches.steps_per_epoch) for step in steps]
    return [learner.step(batches.rows(moment.step), moment) for moment in moments]


@pytest.mark.parametrize("size_px", [16, 32, 40])
def test_the_decoder_draws_images_of_the_crops_size(size_px):
    encoder = DcaeEncoder(3, size_px, 5, 2, (8, 8, 8))
    images = torch.randn(2, 3, size_px, size_px)
    decoder = make_decoder(3, size_px, 5, (8, 8, 8))
    assert decoder(encoder(images)).shape == images.shape
    with pytest.raises(ValueError, match="multiple of 8"):
        DcaeEncoder(3, 20)


def test_reconstruction_is_learned():
    metrics = go(make_learner("dcae.pretrain_epochs=100", "schedule.epochs=101"), range(60), 60)
    first, last = (float(m["loss"].detach()) for m in (metrics[0], metrics[-1]))
    assert last < 0.8 * first


def test_reconstruction_comes_first_then_clusters_are_placed():
    learner = make_learner()
    metrics = go(learner, range(N_STEPS))
    assert [set(m) == {"loss", "reconstruction"} for m in metrics] == [True] * 6 + [False] * 6
    for m in metrics[6:]:
        whole = m["reconstruction"] + 0.1 * m["clustering"]
        torch.testing.assert_close(m["loss"], whole)
    assert learner.model.encoder.centres.abs().sum() > 0


def test_the_target_is_that_of_all_crops_at_its_last_renewal():
    learner = make_learner()
    go(learner, range(9))
    with torch.no_grad():
        q = soft_assignment(learner._embed(), learner.model.encoder.centres)
    learner._renew_target()
    torch.testing.assert_close(learner._target, target_distribution(q))
    before = learner._target.clone()
    go(learner, [10, 11])  # between renewals, which are at steps 6 and 9
    assert torch.equal(before, learner._target)


@pytest.mark.parametrize("stop", [4, 8])
def test_a_resumed_training_is_the_same_training(stop):
    """Stopped before the clusters are placed, and after."""
    whole = make_learner()
    go(whole, range(N_STEPS))
    first, second = make_learner(), make_learner()
    go(first, range(stop))
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    metrics = go(second, range(stop, N_STEPS))
    found, expected = second.state(), whole.state()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert "label_change" in metrics[-1]


def test_its_own_clusters_are_the_nearest_centres():
    encoder = DcaeEncoder(3, 16, 4, 3, (8, 8, 8))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        encoder.centres.copy_(torch.from_numpy(rng.normal(size=(3, 4))))
    vectors = torch.from_numpy(rng.normal(size=(20, 4)).astype(np.float32))
    with torch.no_grad():
        found = encoder.own_clusters(vectors).argmax(dim=1)
        by_q = soft_assignment(vectors, encoder.centres).argmax(dim=1)
    assert torch.equal(found, by_q)


def test_more_clusters_than_crops_are_refused():
    with pytest.raises(ConfigError, match=r"dcae\.n_clusters=36 or less"):
        make_learner("dcae.n_clusters=40")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("dcae.pretrain_epochs=4", "leaves nothing of schedule.epochs=4"),
        ("export.unit_length=true", "set export.unit_length=false"),
        ("dcae.widths=[8, 0, 8]", r"dcae\.widths"),
    ],
)
def test_settings_that_leave_no_clusters_are_refused(override, told):
    with pytest.raises(ConfigError, match=told):
        load_tree(TrainSettings, [], [*TINY, override])
    load_tree(TrainSettings, [], ["dcae.pretrain_epochs=600"])  # ccrl does not look at it
