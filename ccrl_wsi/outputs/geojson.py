"""The overlay QuPath opens: one detection for each nucleus, coloured by cluster.

Written after QuPath's own reading code (0.4 and later): ``objectType`` lies inside
``properties``, a classification has a name and a colour, measurements are numbers, ids are UUIDs,
coordinates have at most two decimals, and one invalid ring would fail the whole file.

Text is laid out for many cells at once (:mod:`ccrl_wsi.outputs.byte_rows`); a Python loop over
numbers would take longer than everything before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray
from ccrl_wsi.errors import StoreError
from ccrl_wsi.outputs.byte_rows import (
    decimals,
    join,
    number_words,
    text,
    to_bytes,
    to_lines,
    word,
)
from ccrl_wsi.outputs.sound_rings import sound_hundredths
from ccrl_wsi.records import Outlines

_HEAD = b'{"type":"FeatureCollection","features":['
_TAIL = b"\n]}\n"
# Level 1 is several times faster than the default, for files a tenth larger.
_GZIP_LEVEL = 1
_BLOCK = 4 << 20  # bytes of text packed at once, however the cells come
_MEASUREMENT_DECIMALS = 4
# Beyond it, a float64 times 10**4 no longer fits an int64.
_LARGEST_MEASUREMENT = 1e14
_ROWS_AT_ONCE = 8192
_AROUND_RING = '"Polygon","coordinates":[', "]]"


@dataclass(frozen=True, slots=True)
class OverlayClass:
    """A class of objects as QuPath shows it: name and red, green, blue (0..255)."""

    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class OverlayOptions:
    """What holds for the whole overlay.

    Parameters
    ----------
    n_cells
        Number of cells that will come.
    classes
        What ``OverlayChunk.class_index`` points to.
    origin_px
        Level-0 x, y of what QuPath shows as (0, 0): the scanned area's corner, or (0, 0).
    points_above
        With more cells than this, centroids are written instead of outlines.
    split_above
        With more cells than this, the overlay goes to numbered files of at most this many.
    """

    n_cells: int
    classes: tuple[OverlayClass, ...] = ()
    origin_px: tuple[int, int] = (0, 0)
    points_above: int = 1_000_000
    split_above: int = 2_000_000


@dataclass(frozen=True, slots=True)
class OverlayChunk:
    """Some cells of an overlay.

    Parameters
    ----------
    uuid
        n ids.
    outlines, centroid_px
        n rings and (n, 2), in level-0 pixels.
    class_index
        (n,) index into the classes; -1 for none.
    measurements
        Name to (n,) values. Values that are not finite are left out.
    """

    uuid: Sequence[str]
    outlines: Outlines
    centroid_px: FloatArray
    class_index: IntArray
    measurements: Mapping[str, FloatArray]

    def part(self, start: int, stop: int) -> OverlayChunk:
        """Cells ``start`` to ``stop``."""
        return OverlayChunk(
            self.uuid[start:stop],
            self.outlines.where(np.arange(start, min(stop, len(self.uuid)))),
            self.centroid_px[start:stop],
            self.class_index[start:stop],
            {name: values[start:stop] for name, values in self.measurements.items()},
        )


def write_overlay(
    folder: Path, name: str, chunks: Iterable[OverlayChunk], options: OverlayOptions
) -> list[Path]:
    """Write ``<name>.geojson.gz``, or numbered parts of it, and return what was written.

    Files appear under their names when all are complete; those of an earlier overlay of the same
    name go. Equal cells give equal bytes.
    """
    is_split = options.n_cells > options.split_above
    limit = options.split_above if is_split else max(1, options.n_cells)
    temporary: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = _Files(folder, name, temporary)
        with files:
            for chunk in _cut(chunks, limit):
                files.write(features(chunk, options), n=len(chunk.uuid), limit=limit)
        return _rename(folder, name, temporary, is_split=is_split)
    except OSError as error:
        raise StoreError(
            f"Cannot write the overlay of {name} to {folder}: {error.strerror or error}."
        ) from error
    finally:
        for file in temporary:
            file.unlink(missing_ok=True)


def features(chunk: OverlayChunk, options: OverlayOptions) -> bytes:
    """GeoJSON features of ``chunk``, each on its own line and each with a comma before it."""
    with_points = options.n_cells > options.points_above
    before, after = ('"Point","coordinates":', "]") if with_points else _AROUND_RING
    heads, tails = _heads(chunk.uuid, before), _tails(chunk, options, after)
    if with_points:
        xy = np.asarray(chunk.centroid_px) - np.asarray(options.origin_px)
        pairs = join([text(b"["), decimals(xy[:, 0], 2), text(b","), decimals(xy[:, 1], 2)])
        return to_bytes(join([heads, pairs, tails]))
    return _interleave(heads, sound_hundredths(chunk.outlines, options.origin_px), tails)


class _Files:
    """The file being written, and the ones before it."""

    def __init__(self, folder: Path, name: str, temporary: list[Path]) -> None:
        self._folder = folder
        self._name = name
        self._paths = temporary
        self._n_written = 0
        self._waiting = bytearray()
        self._file: BinaryIO

    def __enter__(self) -> _Files:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, lines: bytes, *, n: int, limit: int) -> None:
        """Add ``n`` features, in a new file if this one is full."""
        if self._n_written == limit:
            self._close()
            self._open()
        self._waiting += lines[1:] if self._n_written == 0 else lines
        self._n_written += n
        n_whole = len(self._waiting) // _BLOCK * _BLOCK
        for start in range(0, n_whole, _BLOCK):
            self._file.write(_packed(bytes(self._waiting[start : start + _BLOCK])))
        del self._waiting[:n_whole]

    def _open(self) -> None:
        path = self._folder / f".{self._name}.{len(self._paths) + 1:03d}.tmp"
        self._paths.append(path)
        self._file = path.open("wb")
        self._waiting = bytearray(_HEAD)
        self._n_written = 0

    def _close(self) -> None:
        with self._file:
            self._file.write(_packed(bytes(self._waiting + _TAIL)))


def _packed(content: bytes) -> bytes:
    """A gzip member without name and time; several make one file, by the format's rule.

    libdeflate takes half of zlib's time for a tenth less, but packs whole blocks only.
    """
    from imagecodecs import gzip_encode

    return bytes(gzip_encode(content, level=_GZIP_LEVEL))


def _cut(chunks: Iterable[OverlayChunk], limit: int) -> Iterator[OverlayChunk]:
    """The chunks in pieces of limited memory that never reach over the end of a file."""
    n_in_file = 0
    for chunk in chunks:
        start = 0
        while start < len(chunk.uuid):
            stop = min(start + _ROWS_AT_ONCE, start + limit - n_in_file, len(chunk.uuid))
            yield chunk.part(start, stop)
            n_in_file = (n_in_file + stop - start) % limit
            start = stop


def _rename(folder: Path, name: str, temporary: list[Path], *, is_split: bool) -> list[Path]:
    suffixes = [f".part-{i:03d}" for i in range(1, len(temporary) + 1)] if is_split else [""]
    paths = [folder / f"{name}{suffix}.geojson.gz" for suffix in suffixes]
    for source, path in zip(temporary, paths, strict=True):
        source.replace(path)
    for path in folder.iterdir():
        if is_overlay_of(path.name, name) and path not in paths:
            path.unlink()
    return paths


def is_overlay_of(file_name: str, name: str) -> bool:
    """Whether a file is the overlay ``name``, or a part of it."""
    if file_name == f"{name}.geojson.gz":
        return True
    number = file_name.removeprefix(f"{name}.part-").removesuffix(".geojson.gz")
    return number.isdigit() and file_name == f"{name}.part-{number}.geojson.gz"


def _heads(uuids: Sequence[str], geometry: str) -> ByteArray:
    ids = np.array(uuids, dtype="S36").view(np.uint8).reshape(len(uuids), 36)
    start = f'","geometry":{{"type":{geometry}'
    return join([text(b',\n{"type":"Feature","id":"'), ids, text(start.encode())])


def _tails(chunk: OverlayChunk, options: OverlayOptions, closing: str) -> ByteArray:
    """What follows the coordinates, for each cell."""
    labels = [
        json.dumps({"name": c.name, "color": list(c.color)}, separators=(",", ":"))
        for c in options.classes
    ]
    # Index -1 takes the last, empty label.
    table = np.array([*(f',"classification":{label}'.encode() for label in labels), b""])
    rows = table.view(np.uint8).reshape(len(table), -1)
    return join(
        [
            text(f'{closing}}},"properties":{{"objectType":"detection"'.encode()),
            rows[np.asarray(chunk.class_index)],
            text(b',"measurements":{'),
            _measurements(chunk.measurements, len(chunk.uuid)),
            text(b"}}}"),
        ]
    )


def _measurements(measurements: Mapping[str, FloatArray], n: int) -> ByteArray:
    blocks: list[ByteArray] = [np.zeros((n, 0), np.uint8)]
    is_first = np.ones(n, np.bool_)
    for name, values in measurements.items():
        number = np.asarray(values, np.float64)
        is_written: BoolArray = np.abs(number) < _LARGEST_MEASUREMENT
        block = join(
            [
                text(b"," + json.dumps(name, ensure_ascii=False).encode() + b":"),
                decimals(np.where(is_written, number, 0), _MEASUREMENT_DECIMALS),
            ]
        )
        block[is_first, 0] = 0
        block[~is_written] = 0
        is_first &= ~is_written
        blocks.append(block)
    return join(blocks)


def _interleave(heads: ByteArray, rings: Outlines, tails: ByteArray) -> bytes:
    """Head, ring (in hundredths) and tail of each cell, one after the other."""
    x, y = rings.xy.T.astype(np.int64)
    between = np.full(len(x), word(b",["))
    between[rings.start[:-1]] = word(b"[[")
    corners = np.stack([between, *number_words(x, 2, b","), *number_words(y, 2, b"]")], axis=1)
    lengths = _lengths(corners)
    ends = np.concatenate([[0], np.cumsum(lengths)])[rings.start].tolist()
    text_of_rings, head, tail = to_bytes(corners.view(np.uint8)), to_lines(heads), to_lines(tails)
    pieces: list[bytes] = []
    for i, (start, stop) in enumerate(pairwise(ends)):
        pieces += (head[i], text_of_rings[start:stop], tail[i])
    return b"".join(pieces)


def _lengths(words: IntArray) -> IntArray:
    """Characters in each row of ``words`` (n, k) uint32: (n,)."""
    # Characters are below 128: adding 127 carries into a byte's top bit, not beyond it.
    tops = (words + np.uint32(0x7F7F7F7F)) & np.uint32(0x80808080)
    lengths: IntArray = np.bitwise_count(tops).sum(axis=1, dtype=np.int64)
    return lengths
