"""The training loop: resumed trainings are equal, nothing broken is saved, stops are orderly."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.training.batches import Batches
from ccrl_wsi.training.learner import World
from ccrl_wsi.training.loop import Hooks, train
from ccrl_wsi.training.state_file import load_state, save_state
from ccrl_wsi.training.stop_signals import StopSignals
from tests.tiny_learner import BATCH, N_IMAGES, TinyLearner


class Recorder:
    """A learner that only writes down; ``loss`` may be told by step."""

    def __init__(self, losses=None, at_step=None):
        self.rows, self.losses, self.at_step = {}, losses or {}, at_step or {}
        self.tensor = torch.zeros(2)

    def step(self, rows, moment):
        self.rows[moment.step] = rows.tolist()
        self.at_step.get(moment.step, lambda: None)()
        self.tensor = self.tensor + 1
        part = torch.tensor(float(moment.step), requires_grad=True)
        return {"part": part, "loss": torch.tensor(self.losses.get(moment.step, 0.5))}

    def state(self):
        return {"count": torch.tensor(3), "weights": self.tensor}

    def load_state(self, state):
        self.tensor = state["weights"]


class Notes:
    def __init__(self, **settings):
        self.saved, self.readings, self.steps = [], [], []
        self.hooks = Hooks(
            on_step=lambda moment: self.steps.append(moment.step),
            on_reading=self.readings.append,
            save=lambda step, state: self.saved.append((step, state["weights"].clone())),
            **settings,
        )

    @property
    def saved_at(self):
        return [step for step, _ in self.saved]


def batches(n=N_IMAGES, size=BATCH):
    return Batches(np.zeros(n, int), size, seed=7)


def press(number=signal.SIGINT):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_a_resumed_training_is_the_same_training(tmp_path, stop):
    whole = TinyLearner()
    train(whole, batches(), 10)

    path = tmp_path / "state.safetensors"
    first = TinyLearner()
    # Stopped by Ctrl-C, so that rates, which depend on the whole length, are the same.
    stopping = Hooks(
        on_step=lambda m: press()() if m.step == stop - 1 else None,
        save=lambda step, state: save_state(path, step, state, {}),
    )
    with pytest.raises(KeyboardInterrupt):
        train(first, batches(), 10, hooks=stopping)
    saved = load_state(path)
    assert saved.step == stop
    second = TinyLearner()
    second.load_state(saved.tensors)
    train(second, batches(), 10, start_step=saved.step)

    expected, got = whole.state(), second.state()
    assert expected.keys() == got.keys()
    assert any(name.endswith("/step") for name in expected)
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name
    assert not torch.equal(expected["net/0.weight"], first.state()["net/0.weight"])


def test_every_step_gets_its_rows_once():
    learner, notes = Recorder(), Notes()
    train(learner, batches(), 12, start_step=3, hooks=notes.hooks)
    assert learner.rows == {step: batches().rows(step).tolist() for step in range(3, 12)}
    assert notes.steps == list(range(3, 12))
    assert notes.saved_at == [12]


def test_readings_come_at_their_steps_whenever_the_training_began():
    for start, expected in [(0, [0, 4, 8, 10]), (5, [8, 10]), (8, [8, 10])]:
        notes = Notes(log_every_steps=4)
        train(Recorder({8: 0.25}), batches(), 11, start_step=start, hooks=notes.hooks)
        assert [r.moment.step for r in notes.readings] == expected
        last = notes.readings[-2]
        assert last.metrics == {"part": 8.0, "loss": 0.25}
        assert last.moment.epoch == pytest.approx(8 / 5)
        assert last.crops_per_second > 0


def test_time_to_save_is_asked_at_readings():
    notes = Notes(log_every_steps=4, save_every_s=0.0)
    train(Recorder(), batches(), 11, hooks=notes.hooks)
    assert notes.saved_at == [1, 5, 9, 11]
    for step, weights in notes.saved:
        assert weights.tolist() == [step, step]


def test_saves_are_as_far_apart_as_asked(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("ccrl_wsi.training.loop.time.monotonic", lambda: clock[0])

    class Slow(Recorder):
        def step(self, rows, moment):
            clock[0] += 10.0
            return super().step(rows, moment)

    notes = Notes(log_every_steps=2, save_every_s=35.0)
    write = notes.hooks.save

    def save_slowly(step, state):
        clock[0] += 1000.0
        write(step, state)

    train(Slow(), batches(), 14, hooks=replace(notes.hooks, save=save_slowly))
    # Readings after 1, 3, 5... steps of 10 s: 50 s, then 40 s each; saving itself does not count.
    assert notes.saved_at == [5, 9, 13, 14]
    assert {r.crops_per_second for r in notes.readings} == {BATCH / 10}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_stops_at_the_next_reading_unsaved(bad):
    notes = Notes(log_every_steps=4, save_every_s=0.0)
    learner = Recorder({6: bad, 7: 1.0})
    with pytest.raises(
        ModelError, match=r"loss is -?(nan|inf) at step 6 \(epoch 1.20\).*learning_"
    ):
        train(learner, batches(), 50, hooks=notes.hooks)
    assert max(learner.rows) == 8
    assert notes.saved_at == [1, 5]


def test_a_loss_that_is_no_number_is_found_before_a_stop_saves():
    notes = Notes(log_every_steps=100)
    learner = Recorder({2: float("nan")}, {3: press()})
    with pytest.raises(ModelError, match="at step 2"):
        train(learner, batches(), 50, hooks=notes.hooks)
    assert notes.saved == []


def test_a_state_that_is_not_finite_is_never_saved():
    # Its loss was fine: the step itself broke it.
    notes = Notes(log_every_steps=1, save_every_s=0.0)
    learner = Recorder()

    def break_it():
        learner.tensor = torch.tensor([1.0, float("nan")])

    learner.at_step = {3: break_it}
    with pytest.raises(ModelError, match=r"'weights' of the state.*after step 3"):
        train(learner, batches(), 50, hooks=notes.hooks)
    assert notes.saved_at == [1, 2, 3]


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_finishes_the_step_and_saves(number, error):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    notes = Notes(log_every_steps=100)
    with pytest.raises(error) as caught:
        train(Recorder(at_step={5: press(number)}), batches(), 50, hooks=notes.hooks)
    assert notes.saved_at == [6]
    assert notes.steps[-1] == 5
    assert error is not SystemExit or caught.value.code == 143
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_in_the_last_step_is_followed_after_saving_once():
    notes = Notes()
    with pytest.raises(KeyboardInterrupt):
        train(Recorder(at_step={9: press()}), batches(), 10, hooks=notes.hooks)
    assert notes.saved_at == [10]


def test_a_second_signal_stops_at_once():
    notes = Notes()

    def twice():
        press()()
        press()()
        pytest.fail("still here")

    with pytest.raises(KeyboardInterrupt):
        train(Recorder(at_step={5: twice}), batches(), 50, hooks=notes.hooks)
    assert notes.saved == []


def test_of_several_processes_a_second_signal_does_not_stop_one_alone():
    heard = []

    def press_twice():
        with StopSignals(at_once_when_repeated=False) as stop:
            press()()
            press()()
            heard.append(stop.asked)

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert heard == [True]


def test_an_error_of_the_learner_comes_through_and_nothing_is_saved():
    def fail():
        raise RuntimeError("out of memory")

    notes = Notes()
    with pytest.raises(RuntimeError, match="out of memory"):
        train(Recorder(at_step={1: fail}), batches(), 10, hooks=notes.hooks)
    assert notes.saved == []


def test_training_works_in_a_thread_where_no_signals_are_heard():
    notes = Notes()
    run = partial(train, Recorder(), batches(), 3, hooks=notes.hooks)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert notes.saved_at == [3]


def test_a_finished_training_has_nothing_to_do_and_more_than_that_is_an_error():
    notes = Notes()
    train(Recorder(), batches(), 5, start_step=5, hooks=notes.hooks)
    assert (notes.saved, notes.steps) == ([], [])
    with pytest.raises(ConfigError, match=r"6 steps are done.*5 asked for.*schedule\.epochs"):
        train(Recorder(), batches(), 5, start_step=6)


def test_a_batch_that_cannot_be_shared_says_what_to_set():
    with pytest.raises(ConfigError, match=r"batch_size=8 .* by 3 processes.*multiple of 3"):
        train(Recorder(), batches(), 5, world=World(0, 3))


def test_only_the_first_process_speaks_and_saves():
    notes = Notes()
    train(Recorder(), batches(), 5, world=World(1, 2), hooks=notes.hooks)
    assert (notes.saved, notes.steps, notes.readings) == ([], [], [])


def test_a_job_that_ignores_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        notes = Notes()
        train(Recorder(at_step={5: press()}), batches(), 10, hooks=notes.hooks)
        assert notes.saved_at == [10]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
