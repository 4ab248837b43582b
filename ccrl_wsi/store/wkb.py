"""Outlines as well-known binary and back, without a geometry object in between.

A polygon of one ring is its byte order, its type, the number of its rings and of the ring's
vertices, and the vertices' x and y (OGC 06-103r4, section 8.2).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import shapely

from ccrl_wsi.arrays import BoolArray, ByteArray, IntArray
from ccrl_wsi.polygons import from_polygons
from ccrl_wsi.records import Outlines

_HEADER = np.dtype([("order", "u1"), ("type", "<u4"), ("n_rings", "<u4"), ("n_vertices", "<u4")])
_LITTLE_ENDIAN, _POLYGON = 1, 3
_VERTEX_BYTES = 16


def encode_outlines(outlines: Outlines) -> pa.Array:
    """The n outlines as an Arrow array of binary values, little-endian."""
    header = np.zeros(len(outlines), _HEADER)
    header["order"], header["type"], header["n_rings"] = _LITTLE_ENDIAN, _POLYGON, 1
    header["n_vertices"] = np.diff(outlines.start)
    # Pieces are copies: the garbage collector would go through a million views again and again.
    heads, vertices = header.tobytes(), outlines.xy.astype("<f8", copy=False).tobytes()
    pieces: list[bytes] = []
    edges = pairwise((outlines.start * _VERTEX_BYTES).tolist())
    for place, (start, stop) in zip(range(0, len(heads), _HEADER.itemsize), edges, strict=True):
        pieces += (heads[place : place + _HEADER.itemsize], vertices[start:stop])
    ends = outlines.start * _VERTEX_BYTES + np.arange(len(outlines) + 1) * _HEADER.itemsize
    buffers = [None, pa.py_buffer(ends.astype(np.int32).tobytes()), pa.py_buffer(b"".join(pieces))]
    return pa.Array.from_buffers(pa.binary(), len(outlines), buffers)


def decode_outlines(wkb: pa.Array) -> Outlines:
    """The outer rings of an Arrow array of polygons; any well-known binary will do."""
    if len(wkb) == 0:
        return Outlines.concat([])
    if wkb.type != pa.binary() or wkb.null_count:
        return _by_shapely(wkb)
    _, offsets, content = wkb.buffers()
    ends = np.frombuffer(offsets, np.int32)[wkb.offset : wkb.offset + len(wkb) + 1].astype(np.int64)
    every = np.frombuffer(content, np.uint8)
    if not _are_as_written(every, ends).all():
        return _by_shapely(wkb)
    base, whole = int(ends[0]), every[ends[0] : ends[-1]].tobytes()
    edges = pairwise((ends - base).tolist())
    rings = [whole[start + _HEADER.itemsize : stop] for start, stop in edges]
    xy = np.frombuffer(bytearray().join(rings), "<f8").reshape(-1, 2)
    counts = (np.diff(ends) - _HEADER.itemsize) // _VERTEX_BYTES
    return Outlines(xy, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _by_shapely(wkb: pa.Array) -> Outlines:
    return from_polygons(shapely.from_wkb(wkb.to_numpy(zero_copy_only=False)))


def _are_as_written(content: ByteArray, ends: IntArray) -> BoolArray:
    """Which values are polygons of one ring as :func:`encode_outlines` writes them: (n,)."""
    length = np.diff(ends)
    if length.min() < _HEADER.itemsize:
        return np.zeros(len(length), np.bool_)
    bytes_of_head = content[ends[:-1, None] + np.arange(_HEADER.itemsize)]
    head = np.ascontiguousarray(bytes_of_head).view(_HEADER).ravel()
    fits: BoolArray = (
        (head["order"] == _LITTLE_ENDIAN)
        & (head["type"] == _POLYGON)
        & (head["n_rings"] == 1)
        & (length == _HEADER.itemsize + head["n_vertices"].astype(np.int64) * _VERTEX_BYTES)
    )
    return fits
