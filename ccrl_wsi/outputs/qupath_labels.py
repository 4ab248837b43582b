"""Classes that a person gave to cells in QuPath, read from its GeoJSON and joined to cells.

QuPath writes a FeatureCollection, an array of features or a single one, also gzipped. It leaves out
of its own counts classes whose name ends with an asterisk, such as ``Ignore*``; so do we.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ccrl_wsi.arrays import AnyArray, BoolArray, FloatArray, IntArray
from ccrl_wsi.errors import LabelError
from ccrl_wsi.qupath_classes import class_of, is_ignored

_CLUSTER_NAME = re.compile(r"C\d\d")
"""The class our overlays come with: what nobody has changed is no label."""

_SEPARATOR = re.compile(r"[\s,:]*")


@dataclass(frozen=True, eq=False, slots=True)
class LabelledObjects:
    """Objects of a file that a person gave a class.

    Parameters
    ----------
    ids
        n ids in lower case; empty where there is none.
    labels
        n names of classes.
    areas
        (n,) shapely geometries in pixels of the file; None for objects without an area.
    n_others
        Objects without a class, with one that ends with ``*``, or with the name of a cluster.
    """

    ids: list[str]
    labels: list[str]
    areas: AnyArray
    n_others: int

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False, slots=True)
class JoinedLabels:
    """A label for each of a slide's n cells, and what became of the objects.

    Parameters
    ----------
    names
        Labels in alphabetical order.
    code
        (n,) int16 index into ``names``, -1 for none.
    n_by_id, n_by_area
        Cells that got their label by their id, and by lying in an area.
    n_unmatched
        Objects that gave no cell its place: unknown id, and no area around a cell.
    n_conflicts
        Cells that were given different labels.
    """

    names: tuple[str, ...]
    code: IntArray
    n_by_id: int
    n_by_area: int
    n_unmatched: int
    n_conflicts: int


def read_labelled_objects(path: Path) -> LabelledObjects:
    """The objects of a GeoJSON file (also .gz) that have a class of a person.

    Raises
    ------
    LabelError
        If the file is missing, damaged or something else.
    """
    ids, labels, shapes, n_others = [], [], [], 0
    for feature in _features(_text(path), path):
        label = _label(feature)
        if label is None:
            n_others += 1
            continue
        ids.append(str(feature.get("id") or "").lower())
        labels.append(label)
        shapes.append(_area(feature.get("geometry"), path))
    areas = np.empty(len(shapes), dtype=object)
    areas[:] = shapes
    return LabelledObjects(ids, labels, areas, n_others)


def join_labels(
    objects: LabelledObjects, uuids: Sequence[str], centroid_px: FloatArray
) -> JoinedLabels:
    """Give labels to cells: by id, else to all cells whose centroid lies in the object's area.

    An id counts more than an area, a smaller area more than a larger one around it, and of two
    objects with one id the later. Areas are only asked of objects whose id is no cell's.

    Parameters
    ----------
    uuids, centroid_px
        n ids, and (n, 2) in pixels of the file.
    """
    names = tuple(sorted(set(objects.labels)))
    label = np.array([names.index(name) for name in objects.labels], np.int16)
    row_of = {uuid: row for row, uuid in enumerate(uuids)}
    row = np.array([row_of.get(name, -1) for name in objects.ids], np.int64)
    code, in_conflict = _by_area(objects, label, row < 0, centroid_px)
    is_used = code.used
    by_id = np.full(len(uuids), -1, np.int16)
    for number in np.flatnonzero(row >= 0).tolist():
        cell = row[number]
        in_conflict[cell] |= by_id[cell] not in (-1, label[number])
        by_id[cell] = label[number]
    has_id = by_id >= 0
    joined = np.where(has_id, by_id, code.label)
    return JoinedLabels(
        names,
        joined,
        n_by_id=int(has_id.sum()),
        n_by_area=int((~has_id & (code.label >= 0)).sum()),
        n_unmatched=int(((row < 0) & ~is_used).sum()),
        n_conflicts=int(in_conflict.sum()),
    )


@dataclass(frozen=True, eq=False, slots=True)
class _AreaLabels:
    label: IntArray
    used: BoolArray


def _by_area(
    objects: LabelledObjects, label: IntArray, is_asked: BoolArray, centroid_px: FloatArray
) -> tuple[_AreaLabels, BoolArray]:
    """Labels of cells in areas, which objects hold a cell, and cells in areas of two labels."""
    code = np.full(len(centroid_px), -1, np.int16)
    in_conflict = np.zeros(len(centroid_px), np.bool_)
    used = np.zeros(len(objects), np.bool_)
    asked = np.flatnonzero(is_asked & ~shapely.is_missing(objects.areas))
    if not len(asked) or not len(centroid_px):
        return _AreaLabels(code, used), in_conflict
    # Largest first: a smaller area within it is written over it.
    asked = asked[np.argsort(-shapely.area(objects.areas[asked]), kind="stable")]
    tree = shapely.STRtree(shapely.points(centroid_px))
    order, cells = tree.query(objects.areas[asked], predicate="intersects")
    for start, stop in _runs(order):
        number, inside = asked[order[start]], cells[start:stop]
        in_conflict[inside] |= (code[inside] >= 0) & (code[inside] != label[number])
        code[inside] = label[number]
        used[number] = True
    return _AreaLabels(code, used), in_conflict


def _runs(values: IntArray) -> Iterator[tuple[int, int]]:
    """Start and stop of each run of equal neighbours of ascending ``values``."""
    edges = np.flatnonzero(np.diff(values, prepend=-1, append=-1)).tolist()
    yield from zip(edges[:-1], edges[1:], strict=True)


def _text(path: Path) -> str:
    if path.suffix == ".zip":
        raise LabelError(f"{path} is an archive: unpack it, and give the .geojson in it.")
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise LabelError(f"There is no file {path}.") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise LabelError(f"{path} cannot be read ({error}). Export it from QuPath again.") from None


def _features(text: str, path: Path) -> Iterator[dict[str, Any]]:
    """Features one by one: a million of them at once as Python objects would fill the memory."""
    start = _next(text, 0)
    try:
        if text[start : start + 1] == "{":
            start = _place_of_features(text, start + 1)
        if text[start : start + 1] == "[":
            yield from _listed(text, start + 1)
        else:
            yield from _with_children(json.loads(text))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise LabelError(
            f"{path} is not GeoJSON as QuPath writes it ({error}). Export it again: File > Export "
            "objects as GeoJSON."
        ) from None


def _next(text: str, start: int) -> int:
    """Where the next value or closing bracket is."""
    return _SEPARATOR.match(text, start).end()  # type: ignore[union-attr]  # it matches nothing too


def _place_of_features(text: str, start: int) -> int:
    """Where the value of the outermost ``features`` begins; the end where there is none."""
    decoder = json.JSONDecoder()
    start = _next(text, start)
    while text[start : start + 1] not in ("}", ""):
        key, start = decoder.raw_decode(text, start)
        start = _next(text, start)
        if key == "features":
            return start
        _, start = decoder.raw_decode(text, start)
        start = _next(text, start)
    return len(text)


def _listed(text: str, start: int) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    while True:
        start = _next(text, start)
        if text[start : start + 1] == "]":
            return
        feature, start = decoder.raw_decode(text, start)
        yield from _with_children(feature)


def _with_children(feature: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if feature.get("type") != "Feature":
        raise ValueError(f"an object of type {feature.get('type')!r} instead of a Feature")
    properties = feature.get("properties") or {}
    if not isinstance(properties, dict):
        raise ValueError("properties that are no object")
    yield feature
    for child in feature.get("childObjects") or properties.get("childObjects") or ():
        yield from _with_children(child)


def _label(feature: dict[str, Any]) -> str | None:
    name = class_of(feature)
    is_none = not name or is_ignored(name) or _CLUSTER_NAME.fullmatch(name) is not None
    return None if is_none else name


def _area(geometry: dict[str, Any] | None, path: Path) -> shapely.Geometry | None:
    """The object's area; None for points and lines."""
    if not isinstance(geometry, dict) or geometry.get("type") not in ("Polygon", "MultiPolygon"):
        return None
    try:
        shape = shapely.geometry.shape(geometry)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        shapely.errors.ShapelyError,
    ) as error:
        raise LabelError(f"{path} has an object with a broken outline ({error}).") from None
    return shape if shape.is_valid else shapely.make_valid(shape)
