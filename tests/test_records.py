"""Records keep their rows together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ccrl_wsi.records import Cells, Outlines, Partition, Segmentation
from tests.drawn_cells import draw_cells


def assert_rows(picked: Cells, cells: Cells, rows: list[int]) -> None:
    for field in dataclasses.fields(Cells):
        left, right = getattr(picked, field.name), getattr(cells, field.name)
        if isinstance(left, Outlines):
            assert len(left) == len(rows)
            for i, row in enumerate(rows):
                np.testing.assert_array_equal(left.ring(i), right.ring(row))
        elif len(right) == 0:
            assert left.shape == right.shape
        else:
            np.testing.assert_array_equal(left, right[rows])


@pytest.mark.parametrize("crop_side", [0, 16])
def test_chosen_rows_are_taken_from_every_field_in_their_order(crop_side):
    cells = draw_cells(6, crop_side=crop_side)
    assert_rows(cells.where(np.array([4, 0, 5])), cells, [4, 0, 5])
    mask = np.array([True, False, False, True, True, False])
    assert_rows(cells.where(mask), cells, [0, 3, 4])
    assert_rows(cells.where(np.zeros(6, bool)), cells, [])


def test_cells_that_are_parted_and_joined_are_the_same():
    cells = draw_cells(7, crop_side=16)
    none = Cells.empty(cells.measurements.shape[1], cells.embedding.shape[1], 16)
    parts = [none, cells.where(np.arange(3)), none, cells.where(np.arange(3, 7))]
    assert_rows(Cells.concat(parts), cells, list(range(7)))


def test_fields_of_different_length_are_refused():
    cells = draw_cells(4)
    with pytest.raises(ValueError, match="disagree in length"):
        dataclasses.replace(cells, area_um2=cells.area_um2[:3])
    with pytest.raises(ValueError, match="1 crops for 4 cells"):
        dataclasses.replace(cells, crops=np.zeros((1, 8, 8, 3), np.uint8))


def test_no_outlines_join_to_no_outlines():
    assert len(Outlines.concat([])) == 0
    assert len(Outlines.concat([Outlines.concat([]), draw_cells(2).outlines])) == 2


def test_nuclei_without_types_have_type_0_and_unknown_probabilities():
    found = Segmentation.untyped(np.array([[0, 1], [2, 2]]))
    assert found.n_nuclei == 2
    assert found.labels.dtype == np.int32
    assert found.nucleus_type.tolist() == [0, 0]
    assert np.isnan(found.probability).all()
    assert np.isnan(found.type_probability).all()


def test_names_of_partitions_sort_in_grid_order():
    names = [Partition(number, ()).name for number in (0, 9, 10, 123456)]
    assert names == sorted(names)
