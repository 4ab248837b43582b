import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.training.losses.prototypes import prototype_scattering


def unit(v):
    return v / np.linalg.norm(v)


def slow(queries, keys, assignment, temperature):
    present = sorted({a for a in assignment if a >= 0})
    mu = {
        c: unit(sum(unit(q) for q, a in zip(queries, assignment, strict=True) if a == c))
        for c in present
    }
    nu = {
        c: unit(sum(unit(k) for k, a in zip(keys, assignment, strict=True) if a == c))
        for c in present
    }
    total = 0.0
    for c in present:
        own = math.exp(mu[c] @ nu[c] / temperature)
        others = sum(math.exp(mu[c] @ mu[b] / temperature) for b in present if b != c)
        total -= math.log(own / (own + others))
    return total / max(len(present), 1)


@given(st.integers(0, 10_000), st.integers(2, 9), st.floats(0.1, 2))
def test_it_is_the_formula_over_the_classes_that_are_present(seed, n_classes, temperature):
    rng = np.random.default_rng(seed)
    queries, keys = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    assignment = rng.integers(-1, n_classes, 6)

    found = prototype_scattering(
        torch.tensor(queries), torch.tensor(keys), torch.tensor(assignment), n_classes, temperature
    )

    expected = slow(queries, keys, assignment.tolist(), temperature)
    assert found.item() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_orthogonal_prototypes_give_the_closed_form():
    points = torch.eye(4)[[0, 0, 1, 2, 2]]
    assignment = torch.tensor([4, 4, 7, 1, 1])

    loss = prototype_scattering(points, 3 * points, assignment, 8, 0.5)

    assert loss.item() == pytest.approx(math.log1p(2 * math.exp(-1 / 0.5)), rel=1e-5)


@pytest.mark.parametrize("assignment", [[3, 3, 3], [-1, -1, -1], [9, -1, 9]])
def test_one_class_or_none_costs_nothing(assignment):
    queries = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()

    loss = prototype_scattering(queries, torch.eye(4)[:3], torch.tensor(assignment), 5, 0.5)
    loss.backward()

    assert loss == 0
    assert not queries.grad.any()


def test_cells_of_no_class_do_not_move():
    rng = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(5, 4, generator=rng).requires_grad_(), torch.eye(5, 4)

    prototype_scattering(queries, keys, torch.tensor([0, 1, -1, 1, 2]), 3, 0.5).backward()

    assert not queries.grad[2].any()
    assert queries.grad[[0, 1, 3, 4]].any(dim=1).all()


def test_keys_and_queries_may_be_half_precision_under_autocast():
    rng = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(6, 8, generator=rng).bfloat16() for _ in range(2))
    assignment = torch.tensor([0, 1, 2, 0, 1, 2])

    with torch.autocast("cpu", torch.bfloat16):
        found = prototype_scattering(queries, keys, assignment, 3, 0.5)

    expected = prototype_scattering(queries.float(), keys.float(), assignment, 3, 0.5)
    assert found.dtype == torch.float32
    assert found == expected


def test_opposite_members_have_no_prototype_and_stay_finite():
    queries = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]).requires_grad_()

    loss = prototype_scattering(queries, queries.detach(), torch.tensor([0, 0, 1]), 2, 0.5)
    loss.backward()

    assert loss.isfinite()
    assert queries.grad.isfinite().all()


def test_gradients_are_those_of_small_differences():
    rng = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(6, 4, generator=rng) for _ in range(2))
    direction, step = torch.randn(6, 4, generator=rng), 1e-2
    arguments = (keys, torch.tensor([0, 1, 2, 0, 1, 2]), 4, 0.5)
    queries.requires_grad_()

    prototype_scattering(queries, *arguments).backward()

    with torch.no_grad():
        ahead, back = (
            prototype_scattering(queries + s * direction, *arguments) for s in (step, -step)
        )
    slope = (queries.grad * direction).sum().item()
    assert slope == pytest.approx(((ahead - back) / (2 * step)).item(), rel=1e-2, abs=1e-4)
