import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ccrl_wsi.training.momentum import follow


def filled(weight, bias=0.0):
    network = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    nn.init.constant_(network[0].weight, weight)
    nn.init.constant_(network[0].bias, bias)
    return network


def test_one_step_is_the_formula():
    key, query = filled(1.0, -2.0), filled(3.0, 4.0)

    follow(key, query, 0.9)

    assert key[0].weight.flatten().tolist() == pytest.approx([1.2, 1.2])
    assert key[0].bias.item() == pytest.approx(-1.4)
    assert query[0].weight.flatten().tolist() == [3.0, 3.0]


@given(st.integers(0, 60), st.floats(0, 1))
def test_many_steps_approach_geometrically(n_steps, momentum):
    key, query = filled(1.0), filled(3.0)

    for _ in range(n_steps):
        follow(key, query, momentum)

    assert key[0].weight[0, 0].item() == pytest.approx(3 - 2 * momentum**n_steps, abs=1e-4)


def test_momentum_one_leaves_and_momentum_zero_copies_exactly():
    key, query = filled(0.1), filled(0.7)

    follow(key, query, 1.0)
    assert torch.equal(key[0].weight, filled(0.1)[0].weight)

    follow(key, query, 0.0)
    assert torch.equal(key[0].weight, query[0].weight)


def test_the_norms_own_statistics_are_not_averaged():
    key, query = filled(1.0), filled(1.0)
    query(torch.randn(8, 2))

    follow(key, query, 0.0)

    assert key[1].running_mean.item() == 0
    assert query[1].running_mean.item() != 0
    assert key[1].num_batches_tracked == 0


def test_nothing_is_recorded_for_gradients():
    key, query = filled(1.0).requires_grad_(False), filled(2.0)

    follow(key, query, 0.5)

    assert all(not p.requires_grad and p.grad_fn is None for p in key.parameters())


def test_networks_with_other_parameters_are_refused():
    with pytest.raises(ValueError, match="2.weight"):
        follow(filled(1.0), nn.Sequential(*filled(1.0), nn.Linear(1, 1, bias=False)), 0.5)
