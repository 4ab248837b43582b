"""Adam at the step's rate, and its state bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ccrl_wsi.errors import ModelError
from ccrl_wsi.training.learner import Moment
from ccrl_wsi.training.optimisation import Optimisation, autocast_type
from ccrl_wsi.training.schedules import learning_rate
from ccrl_wsi.training.settings import ScheduleSettings

SCHEDULE = ScheduleSettings(learning_rate=0.1, warmup_epochs=1, weight_decay=0.3, betas=(0.8, 0.95))


def a_net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
        return net.to(memory_format=torch.channels_last)


def take_steps(net: nn.Module, optimisation: Optimisation, first: int, end: int) -> None:
    for step in range(first, end):
        x = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(step))
        optimisation.step(net(x).square().mean(), Moment(step, 20, 4))


def test_a_step_is_adam_with_l2_decay_at_the_rate_of_the_moment():
    weight = nn.Parameter(torch.tensor([2.0, -1.0]))
    optimisation = Optimisation([("w", weight)], SCHEDULE)
    w, m, v = np.array([2.0, -1.0]), np.zeros(2), np.zeros(2)
    slope = np.array([0.5, 4.0])
    for step in range(6):
        moment = Moment(step, 20, 4)
        optimisation.step((weight * torch.tensor(slope, dtype=torch.float32)).sum(), moment)
        gradient = slope + 0.3 * w  # decay is part of the gradient: Adam, not AdamW
        m = 0.8 * m + 0.2 * gradient
        v = 0.95 * v + 0.05 * gradient**2
        scale = np.sqrt(v / (1 - 0.95 ** (step + 1))) + 1e-8
        w = w - learning_rate(moment, SCHEDULE) * m / (1 - 0.8 ** (step + 1)) / scale
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-5)


def test_gradients_of_other_losses_do_not_leak_into_a_step():
    plain, disturbed = a_net(), a_net()
    first, second = (Optimisation(n.named_parameters(), SCHEDULE) for n in (plain, disturbed))
    for step in range(4):
        disturbed(torch.ones(1, 3, 3, 3)).sum().backward()
        take_steps(plain, first, step, step + 1)
        take_steps(disturbed, second, step, step + 1)
    for a, b in zip(plain.parameters(), disturbed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loaded_state_goes_on_bit_for_bit():
    net = a_net()
    optimisation = Optimisation(net.named_parameters(), SCHEDULE)
    take_steps(net, optimisation, 0, 3)
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    kept = optimisation.state()
    take_steps(net, optimisation, 3, 8)
    # What was kept is a copy: later steps do not change it.
    assert {float(kept[name]) for name in kept if name.endswith("/step")} == {3.0}

    other = a_net()
    resumed = Optimisation(other.named_parameters(), SCHEDULE)
    take_steps(other, resumed, 5, 6)  # what it had is forgotten
    other.load_state_dict(weights)
    resumed.load_state(kept)
    take_steps(other, resumed, 3, 8)
    for name, tensor in optimisation.state().items():
        assert torch.equal(resumed.state()[name], tensor), name
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_before_the_first_step_there_is_no_state():
    optimisation = Optimisation(a_net().named_parameters(), SCHEDULE)
    assert optimisation.state() == {}
    net = a_net()
    optimisation = Optimisation(net.named_parameters(), SCHEDULE)
    take_steps(net, optimisation, 0, 2)
    optimisation.load_state({})
    assert optimisation.state() == {}


def test_frozen_parameters_are_left_alone():
    net = a_net()
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    optimisation = Optimisation(net.named_parameters(), SCHEDULE)
    take_steps(net, optimisation, 0, 4)
    assert torch.equal(net[0].weight, before)
    assert {name.split("/")[0] for name in optimisation.state()} == {"2.weight", "2.bias"}


def test_a_foreign_state_is_refused():
    net = a_net()
    optimisation = Optimisation(net.named_parameters(), SCHEDULE)
    take_steps(net, optimisation, 0, 1)
    kept = optimisation.state()
    without = {name: t for name, t in kept.items() if name != "2.bias/exp_avg"}
    for state, name in [
        (kept | {"3.bias/step": torch.tensor(1.0)}, "3.bias/step"),
        (kept | {"2.bias/exp_avg": torch.zeros(3)}, "2.bias/exp_avg"),
        (without, "2.bias/exp_avg"),
    ]:
        fresh = Optimisation(a_net().named_parameters(), SCHEDULE)
        with pytest.raises(ModelError, match=name):
            fresh.load_state(state)


def test_autocast_is_off_on_the_cpu_unless_asked_for():
    cpu = torch.device("cpu")
    assert autocast_type("auto", cpu) is None
    assert autocast_type("float32", cpu) is None
    assert autocast_type("bfloat16", cpu) is torch.bfloat16
    net = a_net()
    for precision, expected in [("auto", torch.float32), ("bfloat16", torch.bfloat16)]:
        optimisation = Optimisation(net.named_parameters(), SCHEDULE, precision)
        with optimisation.autocast():
            assert net(torch.ones(2, 3, 3, 3)).dtype == expected


@pytest.mark.gpu
def test_a_loaded_state_goes_on_bit_for_bit_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA")
    weight = nn.Parameter(torch.randn(8, 3, 3, 3).cuda().to(memory_format=torch.channels_last))
    twin = nn.Parameter(weight.detach().clone())
    first, second = (Optimisation([("w", w)], SCHEDULE) for w in (weight, twin))
    for step in range(1, 3):
        first.step(weight.square().sum(), Moment(step, 20, 4))
    twin.data.copy_(weight.data)
    second.load_state({name: tensor.cpu() for name, tensor in first.state().items()})
    for step in range(3, 6):
        first.step(weight.square().sum(), Moment(step, 20, 4))
        second.step(twin.square().sum(), Moment(step, 20, 4))
    assert torch.equal(weight, twin)
    assert all(torch.equal(t, second.state()[name]) for name, t in first.state().items())
