"""A part is whole or it is not there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ccrl_wsi.errors import StoreError
from ccrl_wsi.parts import part_manifest, read_part, read_part_fields, write_part
from ccrl_wsi.records import Outlines
from tests.drawn_cells import draw_cells


def assert_same_cells(a, b):
    for field in dataclasses.fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, Outlines):
            np.testing.assert_array_equal(left.xy, right.xy)
            np.testing.assert_array_equal(left.start, right.start)
        else:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("n", "crop_side"), [(0, 0), (1, 0), (50, 0), (7, 16)])
def test_a_part_gives_back_its_cells(tmp_path, n, crop_side):
    cells = draw_cells(n, crop_side=crop_side)
    write_part(tmp_path / "p.npz", cells, {"fingerprint": "f"})
    assert_same_cells(read_part(tmp_path / "p.npz"), cells)


def test_the_header_tells_counts_and_notes_without_arrays(tmp_path):
    write_part(tmp_path / "p.npz", draw_cells(5), {"fingerprint": "f", "tiles": 4})
    header = part_manifest(tmp_path / "p.npz")
    assert (header["n_cells"], header["fingerprint"], header["tiles"]) == (5, "f", 4)


def test_fields_can_be_read_alone(tmp_path):
    cells = draw_cells(5)
    write_part(tmp_path / "p.npz", cells, {"fingerprint": "f"})
    found = read_part_fields(tmp_path / "p.npz", ["area_um2"])
    np.testing.assert_array_equal(found["area_um2"], cells.area_um2)


def test_equal_cells_give_equal_bytes_and_no_other_file(tmp_path):
    for name in ("a", "b"):
        write_part(tmp_path / name, draw_cells(9), {"fingerprint": "f"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_part_cut_short_at_any_byte_is_never_taken_for_whole(tmp_path):
    write_part(tmp_path / "whole", draw_cells(2, n_dimensions=2), {"fingerprint": "f"})
    whole = (tmp_path / "whole").read_bytes()
    cut = tmp_path / "cut"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(StoreError):
            part_manifest(cut)


def test_a_changed_byte_in_an_array_is_noticed_when_reading(tmp_path):
    path = tmp_path / "p"
    write_part(path, draw_cells(50), {"fingerprint": "f"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(StoreError, match="not a whole part"):
        read_part(path)


def test_an_absent_part_and_a_foreign_file_are_told_apart(tmp_path):
    with pytest.raises(StoreError, match="There is no part"):
        part_manifest(tmp_path / "absent")
    np.savez(tmp_path / "foreign.npz", a=np.ones(3))
    with pytest.raises(StoreError, match="not a whole part"):
        part_manifest(tmp_path / "foreign.npz")


def test_pickled_arrays_are_refused(tmp_path):
    cells = draw_cells(2)
    write_part(tmp_path / "p", cells, {"fingerprint": "f"})
    strange = dataclasses.replace(cells, area_um2=np.array([{}, {}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        write_part(tmp_path / "q", strange, {"fingerprint": "f"})
    assert not (tmp_path / "q").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StoreError, match="Cannot write"):
        write_part(tmp_path / "absent" / "p", draw_cells(1), {"fingerprint": "f"})
