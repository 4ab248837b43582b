"""The segmenter's learner: it learns, resumes bit for bit, and shares batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccrl_wsi.nuclei.compact_network import CompactNetwork
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.segment_learner import SegmentLearner, draw_noise
from ccrl_wsi.training.segment_settings import FieldViewSettings
from tests.drawn_fields import drawn_fields, small_settings

PLAIN_VIEWS = ("views.p_stain=0", "views.p_jitter=0", "views.p_blur=0", "views.p_noise=0")


def learner(*overrides, world=None, fields=None):
    settings = small_settings(*overrides)
    torch.manual_seed(0)
    network = CompactNetwork(settings.network.widths)
    return SegmentLearner(
        drawn_fields() if fields is None else fields, network, settings, "cpu", world or World()
    )


def steps(a_learner, first, last, n_steps=40):
    rows = np.arange(4)
    return [
        {k: float(v) for k, v in a_learner.step(rows, Moment(s, n_steps, 4)).items()}
        for s in range(first, last)
    ]


def test_it_learns_drawn_tissue():
    found = steps(learner(*PLAIN_VIEWS, "schedule.learning_rate=0.01"), 0, 40)

    assert set(found[0]) == {"loss", "entropy", "depth", "offset", "dice"}
    assert np.mean([m["loss"] for m in found[-4:]]) < 0.7 * found[0]["loss"]
    assert np.mean([m["dice"] for m in found[-4:]]) > 0.7


def test_resumed_it_is_the_same_training_bit_for_bit():
    whole, first, second = learner(), learner(), learner()
    steps(whole, 0, 6)
    steps(first, 0, 3)

    second.load_state({name: t.clone() for name, t in first.state().items()})
    steps(second, 3, 6)

    a, b = whole.state(), second.state()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_kept_is_the_running_mean_of_weights():
    a = learner("export.average=0.5")
    expected = {n: p.detach().clone() for n, p in a.average.named_parameters()}
    for step in range(14):
        a.step(np.arange(4), Moment(step, 20, 4))
        memory = min(0.5, (1 + step) / (10 + step))
        for name, p in a.network.named_parameters():
            expected[name] = memory * expected[name] + (1 - memory) * p.detach()

    for name, p in a.average.named_parameters():
        assert torch.allclose(p, expected[name], atol=1e-6)
    statistics = dict(a.network.named_buffers())
    assert all(torch.equal(b, statistics[n]) for n, b in a.average.named_buffers())
    assert not a.average.training


def test_each_process_makes_its_own_share_of_the_same_views():
    rows, moment = np.arange(4), Moment(3, 10, 4)
    noisy = ("views.p_noise=1", "views.noise=0.1")
    alone = learner(*noisy)
    pair = [learner(*noisy, world=World(r, 2)) for r in (0, 1)]

    whole = alone._views(rows, moment)
    parts = [p._views(rows, moment) for p in pair]

    for number in range(3):
        assert torch.allclose(whole[number], torch.cat([p[number] for p in parts]), atol=1e-6)


def test_views_stay_light_and_maps_their_range():
    pixels, maps, weight = learner()._views(np.arange(4), Moment(5, 10, 4))

    assert pixels.shape == (4, 3, 64, 64)
    assert 0 <= pixels.min() <= pixels.max() <= 1
    assert 0 <= maps[:, :2].min() <= maps[:, :2].max() <= 1
    assert maps[:, 2:].abs().max() <= 1.1  # a stretch makes some directions longer
    assert set(weight.unique().tolist()) <= {0.0, 1.0}


def test_fields_of_another_resolution_are_brought_to_the_networks():
    fields = drawn_fields()
    coarse = type(fields)(
        fields.rgb, fields.targets, fields.mpp * 2, fields.source, fields.source_names, 1
    )
    views = (*PLAIN_VIEWS, "views.zoom=[1, 1]", "views.stretch=1")
    moment = Moment(0, 10, 4)

    same, finer = (learner(*views, fields=f)._views(np.arange(4), moment) for f in (fields, coarse))

    # A pixel of the network is half a pixel of these fields: nuclei are twice as wide in views.
    assert finer[1][:, 1].max() > 0.9
    edges = [
        float((maps[:, 0].diff(dim=2).abs() > 0.2).float().mean()) for maps in (same[1], finer[1])
    ]
    assert edges[1] < edges[0]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_noise_is_drawn_for_its_share_of_views(share):
    sigma = draw_noise(FieldViewSettings(p_noise=share, noise=0.1), 2000, rng_for(1, "n"))

    assert (sigma > 0).mean() == pytest.approx(share, abs=0.04)
    assert sigma.max() <= 0.1
