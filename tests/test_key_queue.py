from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.training.key_queue import NO_ROW, KeyQueue


def numbered(start, n):
    """n keys and rows that say their own number."""
    rows = torch.arange(start, start + n)
    return torch.stack([rows, -rows], dim=1).float(), rows


def oldest_first(queue):
    order = (torch.arange(len(queue)) + queue.cursor) % len(queue)
    return list(zip(queue.keys[order][:, 0].tolist(), queue.rows[order].tolist(), strict=True))


@given(st.integers(1, 9), st.lists(st.integers(0, 25), max_size=8))
def test_any_pushes_leave_what_a_deque_would_hold(size, pushes):
    queue = KeyQueue(size, 2, seed=0)
    twin = deque(oldest_first(queue), maxlen=size)
    start = 0

    for n in pushes:
        queue.push(*numbered(start, n))
        twin.extend((float(i), i) for i in range(start, start + n))
        start += n

    assert oldest_first(queue) == list(twin)


def test_a_push_that_wraps_around_is_as_written_by_hand():
    queue = KeyQueue(5, 2, seed=0)

    queue.push(*numbered(0, 3))
    queue.push(*numbered(3, 3))

    assert queue.rows.tolist() == [5, 1, 2, 3, 4]
    assert queue.keys.tolist() == [[5, -5], [1, -1], [2, -2], [3, -3], [4, -4]]
    assert queue.cursor == 1


def test_it_begins_with_random_unit_vectors_of_nobody():
    queue = KeyQueue(4000, 8, seed=3)

    assert torch.allclose(queue.keys.norm(dim=1), torch.ones(4000), atol=1e-6)
    # The mean of 4000 independent directions is this short.
    assert queue.keys.mean(dim=0).norm() < 0.05
    assert (queue.rows == NO_ROW).all()
    assert queue.keys.dtype == torch.float32


def test_the_beginning_depends_on_the_seed_alone():
    torch.manual_seed(0)
    one = KeyQueue(6, 3, seed=3)
    torch.manual_seed(1)

    assert torch.equal(one.keys, KeyQueue(6, 3, seed=3).keys)
    assert not torch.equal(one.keys, KeyQueue(6, 3, seed=4).keys)


def test_everything_is_in_the_saved_state():
    queue, other = KeyQueue(5, 2, seed=0), KeyQueue(5, 2, seed=1)
    queue.push(*numbered(0, 7))

    other.load_state_dict(queue.state_dict())
    for q in (queue, other):
        q.push(*numbered(7, 4))

    assert oldest_first(other) == oldest_first(queue)
    assert list(queue.parameters()) == []


def test_keys_come_in_without_gradient_and_as_32_bit_floats():
    queue = KeyQueue(4, 2, seed=0)
    keys = torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True)

    queue.push(keys * 2, torch.tensor([1, 2], dtype=torch.int32))

    assert not queue.keys.requires_grad
    assert queue.keys.dtype == torch.float32
    assert queue.rows[:2].tolist() == [1, 2]


def test_a_pushed_tensor_can_be_reused():
    queue = KeyQueue(4, 2, seed=0)
    keys, rows = numbered(1, 2)

    queue.push(keys, rows)
    keys.zero_()

    assert np.array_equal(queue.keys[:2, 0], [1, 2])


@pytest.mark.parametrize(("keys", "rows"), [((3, 2), (4,)), ((3, 5), (3,)), ((3, 2), (3, 1))])
def test_keys_of_another_shape_are_refused(keys, rows):
    queue = KeyQueue(4, 2, seed=0)

    with pytest.raises(ValueError, match="do not fit a queue of 2 dimensions"):
        queue.push(torch.zeros(keys), torch.zeros(rows, dtype=torch.int64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_push_never_waits_for_the_gpu():
    queue = KeyQueue(10, 2, seed=0).cuda()
    keys, rows = (t.cuda() for t in numbered(0, 7))
    queue.push(keys, rows)  # the first call loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            queue.push(keys, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert queue.cursor == 1
