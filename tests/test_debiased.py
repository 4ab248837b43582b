import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.training.losses.cosines import Cosines, cosines
from ccrl_wsi.training.losses.debiased import debiased
from ccrl_wsi.training.losses.info_nce import info_nce
from tests.test_info_nce import NEVER, as_cosines, drawn


def slow(values, temperature, share):
    """Eqs. 7 and 8 of Chuang et al., term by term."""
    positive, negative, ignored = values
    total = 0.0
    for i in range(len(positive)):
        own = math.exp(positive[i] / temperature)
        others = [
            math.exp(negative[i, j] / temperature)
            for j in range(negative.shape[1])
            if not ignored[i, j]
        ]
        if others:
            g = (sum(others) / len(others) - share * own) / (1 - share)
            own_and_others = own + len(others) * max(g, math.exp(-1 / temperature))
            total -= math.log(own / own_and_others)
    return total / len(positive)


@given(st.integers(0, 10_000), st.floats(0.05, 2), st.floats(0, 0.9))
def test_it_is_the_papers_estimator(seed, temperature, share):
    values = drawn(seed)

    found = debiased(as_cosines(*values), temperature, share)

    assert found.item() == pytest.approx(slow(values, temperature, share), rel=1e-3, abs=1e-4)


@given(st.integers(0, 10_000), st.floats(0.05, 2))
def test_no_share_of_the_same_class_is_plain_contrast(seed, temperature):
    found = as_cosines(*drawn(seed))

    plain = info_nce(found, temperature).item()
    assert debiased(found, temperature, 0.0).item() == pytest.approx(plain, rel=1e-4, abs=1e-5)


@given(st.floats(-1, 1), st.floats(0, 0.95))
def test_negatives_as_near_as_the_positive_are_corrected_to_themselves(cosine, share):
    # (e - share * e) / (1 - share) = e: the closed form is log(1 + N).
    found = Cosines(torch.full((2,), cosine), torch.full((2, 9), cosine))

    assert debiased(found, 0.5, share).item() == pytest.approx(math.log(10), rel=1e-3)


def test_the_floor_is_that_of_the_farthest_negatives():
    # Negatives so far that the estimate would be below what any negative can give.
    found = Cosines(torch.tensor([1.0]), torch.full((1, 9), -0.9))

    expected = math.log1p(9 * math.exp(-2 / 0.5))
    assert debiased(found, 0.5, 0.3).item() == pytest.approx(expected, rel=1e-5)


def test_correction_makes_the_loss_smaller_when_the_positive_is_nearest():
    found = Cosines(torch.tensor([0.9]), torch.tensor([[0.5, 0.2, 0.8]]))

    losses = [debiased(found, 0.5, share).item() for share in (0, 0.1, 0.2, 0.4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_cold_temperatures_stay_finite(share):
    queries = torch.eye(4)[:2].requires_grad_()
    keys = torch.stack([torch.eye(4)[0], -torch.eye(4)[1]])

    loss = debiased(cosines(queries, keys, torch.eye(4)), 1e-3, share)
    loss.backward()

    assert loss.isfinite()
    assert queries.grad.isfinite().all()


def test_a_query_without_negatives_costs_nothing_and_moves_nothing():
    queries = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ignored = torch.tensor([[True] * 4, [False] * 4])
    found = cosines(queries, torch.eye(4)[:2], torch.eye(4), ignored)

    debiased(found, 0.07, 0.3).backward()

    nobody = Cosines(torch.tensor([0.3, -0.2]), torch.full((2, 4), NEVER))
    assert debiased(nobody, 0.07, 0.3) == 0
    assert debiased(Cosines(torch.tensor([0.3]), torch.empty(1, 0)), 0.07, 0.3) == 0
    assert not queries.grad[0].any()
    assert queries.grad[1].any()
    assert queries.grad.isfinite().all()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_gradients_are_those_of_small_differences(share):
    rng = torch.Generator().manual_seed(0)
    point = [torch.rand(s, dtype=torch.float64, generator=rng) for s in ((4,), (4, 5))]
    way = [torch.randn(v.shape, dtype=torch.float64, generator=rng) for v in point]
    here = [v.clone().requires_grad_() for v in point]

    debiased(Cosines(*here), 0.3, share).backward()

    def at(step):
        moved = Cosines(*(v + step * w for v, w in zip(point, way, strict=True)))
        return debiased(moved, 0.3, share)

    slope = sum((v.grad * w).sum() for v, w in zip(here, way, strict=True))
    assert slope.item() == pytest.approx(((at(1e-5) - at(-1e-5)) / 2e-5).item(), rel=1e-6)
