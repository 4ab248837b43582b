"""Assignments and targets of DEC against their formulas, written down as loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccrl_wsi.training.losses.deep_clustering import (
    divergence,
    soft_assignment,
    target_distribution,
)


def slow_assignment(z, centres):
    q = np.zeros((len(z), len(centres)))
    for i in range(len(z)):
        for j in range(len(centres)):
            q[i, j] = 1 / (1 + ((z[i] - centres[j]) ** 2).sum())
        q[i] /= q[i].sum()
    return q


def slow_target(q):
    frequency = [q[:, j].sum() for j in range(q.shape[1])]
    p = np.zeros_like(q)
    for i in range(len(q)):
        for j in range(q.shape[1]):
            p[i, j] = q[i, j] ** 2 / frequency[j]
        p[i] /= p[i].sum()
    return p


def random_case(seed=0, n=7, k=3, d=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(k, d))


def test_assignment_and_target_are_the_formulas():
    z, centres = random_case()
    q = soft_assignment(torch.from_numpy(z), torch.from_numpy(centres))
    assert q.numpy() == pytest.approx(slow_assignment(z, centres))
    assert target_distribution(q).numpy() == pytest.approx(slow_target(q.numpy()))


def test_a_hand_made_target():
    q = torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    # Column sums 1.5 and 0.5: 0.54 and 0.02; 0.24 and 0.32.
    expected = [[0.54 / 0.56, 0.02 / 0.56], [0.24 / 0.56, 0.32 / 0.56]]
    assert target_distribution(q).numpy() == pytest.approx(np.array(expected), rel=1e-5)


def test_the_divergence_is_that_of_kullback_and_leibler():
    z, centres = random_case(1)
    q = slow_assignment(z, centres)
    p = slow_target(q)
    expected = np.mean([sum(p[i] * np.log(p[i] / q[i])) for i in range(len(q))])
    found = divergence(torch.from_numpy(p), torch.from_numpy(q))
    assert float(found) == pytest.approx(expected)
    assert float(divergence(torch.from_numpy(q), torch.from_numpy(q))) == pytest.approx(0)


def test_gradients_are_finite_on_a_centre_and_pull_to_the_nearest():
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [4.0, 0.0]], requires_grad=True)
    q = soft_assignment(z, centres)
    divergence(target_distribution(q).detach(), q).backward()
    assert torch.isfinite(z.grad).all()
    # Going down the gradient is going to the centre at 0, and to the one at 4.
    assert z.grad[1, 0] > 0 > z.grad[2, 0]
