"""Changing some rows of a batch."""

from __future__ import annotations

import numpy as np
import torch

from ccrl_wsi.training.view_change import Change, make_changes
from tests.drawn_views import noise


def scaled(pixels, numbers):
    return pixels * numbers[:, :1, None, None] + numbers[:, 1:, None, None]


def change(rows, numbers):
    return Change(np.array(rows, int), np.array(numbers, float).reshape(len(rows), 2), scaled)


def test_rows_get_their_own_numbers_one_change_after_the_other():
    pixels = noise(5)
    changes = [
        change([3, 0], [(2, 1), (3, 0)]),
        change([], []),
        change([0, 1, 2, 3, 4], [(1, i) for i in range(5)]),
    ]
    expected = pixels.clone()
    expected[3] = expected[3] * 2 + 1
    expected[0] = expected[0] * 3
    expected += torch.arange(5.0).view(5, 1, 1, 1)
    torch.testing.assert_close(make_changes(pixels, changes), expected)


def test_all_rows_in_another_order():
    pixels = noise(3)
    seen = make_changes(pixels, [change([2, 0, 1], [(1, 2), (1, 0), (1, 1)])])
    torch.testing.assert_close(seen, pixels + torch.arange(3.0).view(3, 1, 1, 1))


def test_what_is_given_is_never_written_to():
    pixels = noise(4)
    before = pixels.clone()
    for changes in ([], [change([1], [(0, 0)])], [change(range(4), [(0, 0)] * 4)]):
        seen = make_changes(pixels, changes)
        assert torch.equal(pixels, before)
        assert seen.data_ptr() != pixels.data_ptr()
