import numpy as np
import pytest
import torch

from ccrl_wsi.training.losses.cosines import Cosines, cosines, mean_negative, top1, unit

NEVER = -torch.inf


def test_cosines_are_those_of_numpy_whatever_the_lengths():
    rng = np.random.default_rng(0)
    queries, keys, negatives = (5 * rng.normal(size=(n, 4)) for n in (3, 3, 6))

    found = cosines(*(torch.tensor(v) for v in (queries, keys, negatives)))

    for i in range(3):
        length = np.linalg.norm(queries[i])
        own = queries[i] @ keys[i] / (length * np.linalg.norm(keys[i]))
        assert found.positive[i].item() == pytest.approx(own, abs=1e-6)
        for j in range(6):
            cosine = queries[i] @ negatives[j] / (length * np.linalg.norm(negatives[j]))
            assert found.negative[i, j].item() == pytest.approx(cosine, abs=1e-6)


def test_a_mask_removes_exactly_its_pairs():
    rng = torch.Generator().manual_seed(0)
    vectors = [torch.randn(n, 4, generator=rng) for n in (3, 3, 6)]
    ignored = torch.rand(3, 6, generator=rng) < 0.4

    masked, plain = cosines(*vectors, ignored), cosines(*vectors)

    assert ignored.any()
    assert (masked.negative[ignored] == NEVER).all()
    assert torch.equal(masked.negative[~ignored], plain.negative[~ignored])
    assert torch.equal(masked.positive, plain.positive)


def test_autocast_does_not_make_them_coarse():
    rng = torch.Generator().manual_seed(0)
    vectors = [torch.randn(n, 64, generator=rng) for n in (4, 4, 9)]

    with torch.autocast("cpu", torch.bfloat16):
        found = cosines(*vectors)

    assert found.negative.dtype == found.positive.dtype == torch.float32
    assert torch.equal(found.negative, cosines(*vectors).negative)


def test_half_precision_vectors_come_out_at_length_one():
    vectors = unit(torch.full((2, 64), 3.0, dtype=torch.bfloat16))

    assert vectors.dtype == torch.float32
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2), atol=1e-6)


@pytest.mark.parametrize("length", [0.0, 1e-8])
def test_a_vector_without_direction_is_zero_and_gets_no_gradient(length):
    vectors = torch.tensor([[length, 0.0], [3.0, 4.0]], requires_grad=True)

    found = unit(vectors)
    found[:, 1].sum().backward()

    assert found[0].tolist() == [0, 0]
    assert found[1].tolist() == pytest.approx([0.6, 0.8])
    assert vectors.grad[0].tolist() == [0, 0]
    # d(y / r) / dx = -x y / r^3, d(y / r) / dy = x^2 / r^3
    assert vectors.grad[1].tolist() == pytest.approx([-12 / 125, 9 / 125])


def test_what_is_told_of_negatives_counts_only_the_pairs_that_count():
    found = Cosines(
        torch.tensor([0.5, 0.5, 0.5]),
        torch.tensor([[0.1, NEVER], [0.3, 0.8], [NEVER, NEVER]]),
    )

    assert mean_negative(found).item() == pytest.approx((0.1 + 0.3 + 0.8) / 3)
    assert top1(found).item() == pytest.approx(2 / 3)


def test_without_any_negative_everything_is_told_all_the_same():
    found = Cosines(torch.tensor([0.5]), torch.tensor([[NEVER, NEVER]]))

    assert mean_negative(found) == 0
    assert top1(found) == 1
    assert top1(Cosines(torch.tensor([0.5]), torch.empty(1, 0))) == 1


def test_being_as_near_as_a_negative_is_no_success():
    assert top1(Cosines(torch.tensor([0.5]), torch.tensor([[0.5]]))) == 0
