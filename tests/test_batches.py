"""Batches are a function of the step alone, complete, and fair to slides where asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.training.batches import Batches


def epoch_of(batches: Batches, epoch: int) -> np.ndarray:
    n = batches.steps_per_epoch
    return np.concatenate([batches.rows(step) for step in range(epoch * n, (epoch + 1) * n)])


def test_an_epoch_shows_every_crop_once_but_those_left_over():
    batches = Batches(np.zeros(23, int), 5, seed=1)
    assert batches.steps_per_epoch == 4
    first, second = epoch_of(batches, 0), epoch_of(batches, 1)
    for rows in (first, second):
        assert rows.shape == (20,)
        assert len(set(rows)) == 20
        assert set(rows) <= set(range(23))
    assert first.tolist() != second.tolist()
    left_over = {tuple(set(range(23)) - set(epoch_of(batches, e))) for e in range(6)}
    assert len(left_over) > 1


@pytest.mark.parametrize("balance", ["none", "slides"])
def test_a_step_has_its_rows_whatever_was_asked_before(balance):
    source = np.arange(40) % 3
    forwards = Batches(source, 6, seed=4, balance=balance)
    expected = [forwards.rows(step).tolist() for step in range(18)]
    backwards = Batches(source, 6, seed=4, balance=balance)
    assert [backwards.rows(step).tolist() for step in reversed(range(18))] == expected[::-1]
    assert Batches(source, 6, seed=5, balance=balance).rows(0).tolist() != expected[0]


def test_changing_the_rows_one_got_does_not_change_the_batch():
    batches = Batches(np.zeros(10, int), 5, seed=0)
    before = batches.rows(0)
    batches.rows(0)[:] = -1
    np.testing.assert_array_equal(batches.rows(0), before)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=7).filter(lambda s: sum(s) > 3),
    share=st.floats(0.05, 1),
    seed=st.integers(0, 99),
)
def test_every_slide_is_drawn_equally_often(sizes, share, seed):
    source = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    batches = Batches(source, max(1, int(share * len(source))), seed, "slides")
    n_slides = sum(size > 0 for size in sizes)
    rows = epoch_of(batches, seed)
    slides = source[rows]
    counts = np.unique(slides, return_counts=True)[1]
    assert len(rows) == batches.steps_per_epoch * batches.batch_size
    if len(rows) >= n_slides:
        assert len(counts) == n_slides
    assert counts.max() - counts.min() <= 1
    for step in range(batches.steps_per_epoch):
        batch = source[rows[step * batches.batch_size : (step + 1) * batches.batch_size]]
        in_batch = np.bincount(batch, minlength=len(sizes))[np.array(sizes) > 0]
        assert in_batch.max() - in_batch.min() <= 2
    for slide, size in enumerate(sizes):
        times = np.bincount(rows[slides == slide], minlength=len(source))[source == slide]
        assert size == 0 or times.max() - times.min() <= 1  # none again before all have come


def test_an_epoch_of_balanced_batches_comes_in_random_order():
    batches = Batches(np.repeat([0, 1], 50), 10, seed=0, balance="slides")
    rows = epoch_of(batches, 0)
    assert rows.tolist() != epoch_of(batches, 1).tolist()
    assert np.diff(rows[rows < 50]).tolist() != [1] * (np.sum(rows < 50) - 1)


def test_too_few_crops_say_what_to_set():
    with pytest.raises(ConfigError, match=r"7 crops.*batch of 8.*schedule.batch_size=7 or less"):
        Batches(np.zeros(7, int), 8, seed=0)
    with pytest.raises(ConfigError, match="0 crops.*Give more images"):
        Batches(np.zeros(0, int), 8, seed=0)
    assert Batches(np.zeros(8, int), 8, seed=0).steps_per_epoch == 1


def test_epochs_become_steps():
    batches = Batches(np.zeros(45, int), 10, seed=0)
    assert [batches.n_steps(e) for e in (500, 1.5, 0.01)] == [2000, 6, 1]
