import numpy as np
import pytest
import torch

from ccrl_wsi.training.losses.byol import byol


def test_it_is_the_squared_distance_of_unit_vectors():
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(6, 4)), 9 * rng.normal(size=(6, 4))

    total = 0.0
    for q, k in zip(queries, keys, strict=True):
        total += np.sum((q / np.linalg.norm(q) - k / np.linalg.norm(k)) ** 2)

    assert byol(torch.tensor(queries), torch.tensor(keys)).item() == pytest.approx(total / 6)


@pytest.mark.parametrize(("sign", "loss"), [(3.0, 0.0), (-3.0, 4.0)])
def test_equal_directions_cost_nothing_and_opposite_ones_four(sign, loss):
    queries = torch.eye(4)

    assert byol(queries, sign * queries).item() == loss
    assert byol(queries, queries.roll(1, dims=0)).item() == 2


def test_autocast_does_not_make_it_coarse():
    rng = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(5, 64, generator=rng), torch.randn(5, 64, generator=rng)

    with torch.autocast("cpu", torch.bfloat16):
        found = byol(queries, keys)

    assert found.dtype == torch.float32
    assert found == byol(queries, keys)


def test_gradients_are_those_of_small_differences():
    rng = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(3, 4, generator=rng) for _ in range(2))
    direction, step = torch.randn(3, 4, generator=rng), 1e-2
    queries.requires_grad_()

    byol(queries, keys).backward()

    with torch.no_grad():
        ahead, back = (byol(queries + s * direction, keys) for s in (step, -step))
    slope = (queries.grad * direction).sum().item()
    assert slope == pytest.approx(((ahead - back) / (2 * step)).item(), rel=1e-2)
    # Lengths do not matter, so no query is pulled along itself.
    assert torch.allclose((queries.grad * queries).sum(dim=1), torch.zeros(3), atol=1e-6)
