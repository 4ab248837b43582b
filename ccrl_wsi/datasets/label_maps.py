"""Anybody's images: ``images/*``, ``labels/*`` with a number a nucleus, maybe ``types/*.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.datasets.image_files import (
    Tell,
    check_same_size,
    ids_of,
    list_images,
    read_each,
    read_label_map,
    read_rgb,
    read_table,
)
from ccrl_wsi.datasets.labelled_image import LabelledImage
from ccrl_wsi.errors import StoreError

LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
TypesOfImage = Mapping[int, str]


def read_label_maps(folder: Path, mpp: float, tell: Tell | None = None) -> Iterator[LabelledImage]:
    """Images with label maps of the same name, at ``mpp`` um per pixel.

    Where there is a folder ``types``, every image has a table ``types/<name>.csv`` in it with
    the columns id and class and a row for each nucleus; an empty class means unlabelled. The
    classes of all tables, in alphabetical order, are those of the set.

    Raises
    ------
    StoreError
        With a line for every image that cannot be used; with ``tell``, see :func:`read_each`.
    """
    folder = Path(folder)
    images = list_images(folder / "images")
    has_types = (folder / "types").is_dir()
    names = _class_names(folder, images) if has_types else ()

    def read(path: Path) -> LabelledImage:
        labels = read_label_map(_label_file(folder / "labels", path.stem))
        rgb = read_rgb(path)
        check_same_size(path, rgb, labels)
        ids = ids_of(labels)
        label: IntArray = np.full(len(ids), -1, np.int32)
        if has_types:
            table = folder / "types" / f"{path.stem}.csv"
            label = _classes_of(table, _read_types(table), ids, names)
        return LabelledImage(path.stem, rgb, labels, ids, label, names, mpp, path.stem)

    return read_each(images, read, tell)


def _label_file(folder: Path, stem: str) -> Path:
    found = [p for suffix in LABEL_SUFFIXES if (p := folder / f"{stem}{suffix}").is_file()]
    if not found:
        raise StoreError(f"There are no labels for the image {stem} in {folder}.")
    if len(found) > 1:
        raise StoreError(f"{folder} holds two label maps of {stem}. Remove one of them.")
    return found[0]


def _class_names(folder: Path, images: list[Path]) -> tuple[str, ...]:
    """All classes that occur; tables that cannot be read are told when their image is."""
    names: set[str] = set()
    for image in images:
        try:
            names.update(_read_types(folder / "types" / f"{image.stem}.csv").values())
        except StoreError:
            continue
    return tuple(sorted(names - {""}))


def _read_types(table: Path) -> TypesOfImage:
    types: dict[int, str] = {}
    for number, row in enumerate(read_table(table, ("id", "class")), start=2):
        try:
            key = int(row["id"])
        except (TypeError, ValueError):
            raise StoreError(f"{table}, line {number}: id is {row['id']!r}, no number.") from None
        if key in types:
            raise StoreError(f"{table}, line {number}: nucleus {key} is named twice.")
        types[key] = (row["class"] or "").strip()
    return types


def _classes_of(
    table: Path, types: TypesOfImage, ids: IntArray, names: tuple[str, ...]
) -> IntArray:
    missing = [value for value in ids.tolist() if value not in types]
    if missing:
        raise StoreError(
            f"{table} has no class for {len(missing)} of {len(ids)} nuclei, the first of them "
            f"{missing[0]}. Add the rows; leave the class empty where it is unknown."
        )
    strange = sorted(set(types) - set(ids.tolist()))
    if strange:
        raise StoreError(
            f"{table} names nucleus {strange[0]}, which the label map does not have. Are they of "
            "the same image?"
        )
    index = {name: i for i, name in enumerate(names)} | {"": -1}
    return np.array([index[types[value]] for value in ids.tolist()], np.int32)
