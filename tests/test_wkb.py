"""Outlines as well-known binary, beside shapely."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.polygons import to_polygons
from ccrl_wsi.records import Outlines
from ccrl_wsi.store.shapes import OutlineWriter, iterate_outlines
from ccrl_wsi.store.wkb import decode_outlines, encode_outlines
from tests.drawn_cells import draw_outlines

finite = st.floats(-1e7, 1e7)
rings = st.lists(
    st.lists(st.tuples(finite, finite), min_size=3, max_size=8).map(lambda r: np.array([*r, r[0]])),
    max_size=6,
)


def joined(many):
    one_each = [Outlines(ring, np.array([0, len(ring)])) for ring in many]
    return Outlines.concat(one_each)


def assert_same(found, expected):
    np.testing.assert_array_equal(found.xy, expected.xy)
    np.testing.assert_array_equal(found.start, expected.start)


@given(rings)
def test_bytes_are_those_of_shapely_and_come_back(many):
    outlines = joined(many)
    encoded = encode_outlines(outlines)
    encoded.validate(full=True)
    assert encoded.to_pylist() == shapely.to_wkb(to_polygons(outlines), byte_order=1).tolist()
    assert_same(decode_outlines(encoded), outlines)


@given(rings, st.integers(0, 3), st.integers(0, 3))
def test_slices_hold_their_own_rows(many, first, n):
    outlines = joined(many)
    rows = np.arange(len(outlines))[first : first + n]
    assert_same(decode_outlines(encode_outlines(outlines)[first : first + n]), outlines.where(rows))


@pytest.mark.parametrize("how", ["big-endian", "with a hole", "in three dimensions", "long"])
def test_what_other_programs_write_is_read_too(how):
    rng = np.random.default_rng(0)
    outlines = draw_outlines(rng.uniform(100, 900, (5, 2)), rng)
    polygons = to_polygons(outlines)
    if how == "with a hole":
        polygons[2] = shapely.difference(polygons[2], shapely.buffer(polygons[2], -3))
    if how == "in three dimensions":
        polygons = shapely.force_3d(polygons)
    wkb = shapely.to_wkb(polygons, byte_order=0 if how == "big-endian" else 1)
    kind = pa.large_binary() if how == "long" else pa.binary()
    found = decode_outlines(pa.array(wkb, kind))
    areas = shapely.area(shapely.polygons(shapely.get_exterior_ring(shapely.force_2d(polygons))))
    np.testing.assert_allclose(shapely.area(to_polygons(found)), areas)


def test_read_rings_may_be_changed():
    outlines = decode_outlines(encode_outlines(joined([np.zeros((4, 2))])))
    outlines.xy[:] = 1
    assert outlines.xy.sum() == 8


def test_memory_of_reading_outlines_does_not_grow_with_the_file(tmp_path):
    path, n_groups, group = tmp_path / "shapes.parquet", 40, 256
    rng = np.random.default_rng(1)
    outlines = draw_outlines(rng.uniform(0, 9e4, (group, 2)), rng)
    with OutlineWriter(path, group) as writer:
        for _ in range(n_groups):
            writer.append(outlines)
    before, held = pa.total_allocated_bytes(), []
    for read in iterate_outlines(path, group):
        assert len(read) == group
        held.append(pa.total_allocated_bytes() - before)
    assert len(held) == n_groups
    assert max(held) < 4 * outlines.xy.nbytes
