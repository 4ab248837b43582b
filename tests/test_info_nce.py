import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.training.losses.cosines import Cosines, cosines
from ccrl_wsi.training.losses.info_nce import info_nce

NEVER = -torch.inf


def drawn(seed, n=5, m=7):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, n), rng.uniform(-1, 1, (n, m)), rng.random((n, m)) < 0.3


def slow(positive, negative, ignored, temperature):
    """Eq. 2, term by term."""
    total = 0.0
    for i in range(len(positive)):
        own = math.exp(positive[i] / temperature)
        others = [
            math.exp(negative[i, j] / temperature)
            for j in range(negative.shape[1])
            if not ignored[i, j]
        ]
        total -= math.log(own / (own + sum(others)))
    return total / len(positive)


def as_cosines(positive, negative, ignored):
    negative = torch.tensor(negative, dtype=torch.float32)
    return Cosines(
        torch.tensor(positive, dtype=torch.float32),
        negative.masked_fill(torch.tensor(ignored), NEVER),
    )


@given(st.integers(0, 10_000), st.floats(0.05, 2))
def test_it_is_equation_two(seed, temperature):
    values = drawn(seed)

    found = info_nce(as_cosines(*values), temperature)

    assert found.item() == pytest.approx(slow(*values, temperature), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("n_negatives", [1, 30])
def test_orthogonal_negatives_give_the_closed_form(n_negatives, temperature):
    queries = torch.eye(64)[:3]
    negatives = torch.eye(64)[10 : 10 + n_negatives]

    loss = info_nce(cosines(queries, 2 * queries, negatives), temperature)

    expected = math.log1p(n_negatives * math.exp(-1 / temperature))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_knowing_nothing_costs_the_logarithm_of_the_choices():
    same = torch.ones(2, 4)

    loss = info_nce(cosines(same, same, torch.ones(9, 4)), 0.07)

    assert loss.item() == pytest.approx(math.log(10), rel=1e-5)


def test_cold_temperatures_stay_finite():
    queries = torch.eye(4)[:1].requires_grad_()

    loss = info_nce(cosines(queries, -torch.eye(4)[:1], torch.eye(4)[:1]), 1e-3)
    loss.backward()

    assert loss.item() == pytest.approx(2000)
    assert queries.grad.isfinite().all()


def test_a_query_without_negatives_costs_nothing_and_moves_nothing():
    queries = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    keys, negatives = torch.eye(4)[:2], torch.eye(4)
    ignored = torch.tensor([[True] * 4, [False] * 4])

    info_nce(cosines(queries, keys, negatives, ignored), 0.07).backward()

    assert info_nce(cosines(queries, keys, negatives, ~ignored | ignored), 0.07) == 0
    assert info_nce(cosines(queries, keys, torch.empty(0, 4)), 0.07) == 0
    assert not queries.grad[0].any()
    assert queries.grad[1].any()
    assert queries.grad.isfinite().all()


def test_gradients_are_those_of_small_differences():
    rng = torch.Generator().manual_seed(0)
    point = [torch.rand(s, dtype=torch.float64, generator=rng) for s in ((3,), (3, 5))]
    way = [torch.randn(v.shape, dtype=torch.float64, generator=rng) for v in point]
    here = [v.clone().requires_grad_() for v in point]

    info_nce(Cosines(*here), 0.3).backward()

    def at(step):
        moved = Cosines(*(v + step * w for v, w in zip(point, way, strict=True)))
        return info_nce(moved, 0.3)

    slope = sum((v.grad * w).sum() for v, w in zip(here, way, strict=True))
    assert slope.item() == pytest.approx(((at(1e-5) - at(-1e-5)) / 2e-5).item(), rel=1e-6)
