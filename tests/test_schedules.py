"""Rates over time, against their values at known points."""

from __future__ import annotations

import pytest

from ccrl_wsi.training.learner import Moment
from ccrl_wsi.training.schedules import key_momentum, learning_rate
from ccrl_wsi.training.settings import CcrlScheduleSettings

PAPER = CcrlScheduleSettings()


def at(epoch: float, n_epochs: int = 500, per_epoch: int = 15) -> Moment:
    return Moment(round(epoch * per_epoch), n_epochs * per_epoch, per_epoch)


def test_the_rate_rises_linearly_and_falls_on_a_cosine():
    rate = [learning_rate(at(e), PAPER) for e in (0, 5, 10, 255, 500)]
    assert rate == pytest.approx([0, 0.0005, 0.001, 0.0005, 0], abs=1e-12)
    # A third of the way down, cos(60 degrees).
    third = learning_rate(Moment(10 + 30, 100, 1), PAPER)
    assert third == pytest.approx(0.001 * 0.75)


def test_the_rate_never_leaves_its_range_and_turns_once():
    rate = [learning_rate(Moment(step, 7500, 15), PAPER) for step in range(7500)]
    peak = rate.index(max(rate))
    assert peak == 150
    assert rate[:151] == sorted(rate[:151])
    assert rate[150:] == sorted(rate[150:], reverse=True)
    assert rate[-1] > 0


def test_without_warm_up_the_first_step_has_the_full_rate():
    schedule = CcrlScheduleSettings(warmup_epochs=0)
    assert learning_rate(Moment(0, 10, 5), schedule) == 0.001


def test_a_training_shorter_than_its_warm_up_only_rises():
    rate = [learning_rate(Moment(step, 20, 10), PAPER) for step in range(21)]
    assert rate == pytest.approx([0.001 * step / 100 for step in range(21)])


def test_the_momentum_goes_from_first_to_last_on_a_cosine():
    schedule = CcrlScheduleSettings(momentum=0.99, last_momentum=1.0)
    momentum = [key_momentum(Moment(step, 100, 10), schedule) for step in (0, 50, 100)]
    assert momentum == pytest.approx([0.99, 0.995, 1.0], abs=1e-12)


def test_the_papers_momentum_is_constant_to_the_bit():
    assert {key_momentum(Moment(step, 750, 15), PAPER) for step in range(750)} == {0.999}
