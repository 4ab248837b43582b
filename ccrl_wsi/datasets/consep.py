"""CoNSeP (Graham et al., Med. Image Anal. 58 (2019) 101563): 41 colon images with classes.

``Train/Images/train_1.png`` has its nuclei in ``Train/Labels/train_1.mat``: ``inst_map`` numbers
them, ``inst_type`` says the class of each in ascending order of the numbers, ``type_map`` of each
pixel.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.io

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.datasets.image_files import (
    MPP_40X,
    Tell,
    as_labels,
    check_same_size,
    ids_of,
    list_images,
    read_each,
    read_rgb,
    unreadable,
)
from ccrl_wsi.datasets.labelled_image import LabelledImage
from ccrl_wsi.errors import ConfigError, StoreError

CLASSES = ("misc", "inflammatory", "epithelial", "spindle")
FOLDERS = {"train": ("Train",), "test": ("Test",), "all": ("Train", "Test")}
CLASS_OF_TYPE = {
    "merged": {1: 0, 2: 1, 3: 2, 4: 3},
    "official": {1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 3},
}
"""HoVer-Net's merge, which the CCRL paper takes over: healthy and dysplastic epithelium are one
class; fibroblast, muscle and endothelium another."""
MOST_DISAGREEMENT = 0.01
"""Share of nuclei whose ``inst_type`` and ``type_map`` may differ before the file is refused."""

log = logging.getLogger("ccrl_wsi")


def read_consep(
    folder: Path,
    split: Literal["train", "test", "all"],
    classes: Literal["merged", "official"] = "merged",
    tell: Tell | None = None,
) -> Iterator[LabelledImage]:
    """Images of CoNSeP with its nuclei in the four classes of the paper.

    Parameters
    ----------
    folder
        Holds ``Train/`` and ``Test/``.
    classes
        What the files' types are: the 7 of the release, which are merged here, or 4 merged ones.
        It cannot be seen: 3 and 4 mean different things in the two.

    Raises
    ------
    ConfigError
        If a type above 4 shows that the files are not merged.
    StoreError
        With a line for every image that cannot be used; with ``tell``, see :func:`read_each`.
    """
    seen = 0
    paths = [p for name in FOLDERS[split] for p in list_images(Path(folder) / name / "Images")]
    for image, largest in _read_all(paths, classes, tell):
        seen = max(seen, largest)
        yield image
    if classes == "official" and seen <= max(CLASS_OF_TYPE["merged"]):
        log.warning(
            "%s: no nucleus has a type above 4, as if types were merged already. If they are, "
            "set data.classes=merged: types 3 and 4 mean other things then.",
            folder,
        )


def _read_all(
    paths: list[Path], classes: str, tell: Tell | None
) -> Iterator[tuple[LabelledImage, int]]:
    largest: dict[str, int] = {}

    def read(path: Path) -> LabelledImage:
        image, types = _read_image(path, classes)
        largest[image.name] = int(types.max(initial=0))
        return image

    for image in read_each(paths, read, tell):
        yield image, largest[image.name]


def _read_image(path: Path, classes: str) -> tuple[LabelledImage, IntArray]:
    """An image and the type of each nucleus as the file says it."""
    file = path.parents[1] / "Labels" / f"{path.stem}.mat"
    content = _read_mat(file)
    labels = as_labels(file, content["inst_map"])
    rgb = read_rgb(path)
    check_same_size(path, rgb, labels)
    ids = ids_of(labels)
    types = _types(file, content, labels, ids)
    label = _classes_of(file, types, classes)
    if "type_map" in content and "inst_type" in content:
        _check_against_pixels(file, content, labels, types)
    image = LabelledImage(path.stem, rgb, labels, ids, label, CLASSES, MPP_40X, path.stem)
    return image, types


def _read_mat(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = scipy.io.loadmat(file)
    # scipy reports damage with whatever its parser stumbles over.
    except Exception as error:  # noqa: BLE001
        raise unreadable(file, error) from error
    if "inst_map" not in content:
        raise StoreError(f"{file} has no inst_map. Is it a label file of CoNSeP?")
    if "inst_type" not in content and "type_map" not in content:
        raise StoreError(f"{file} has neither inst_type nor type_map: no nucleus has a class.")
    for name in ("inst_map", "type_map", "inst_type"):
        if name in content and content[name].dtype.kind not in "iuf":
            raise StoreError(f"{file}: {name} holds no numbers. Is the data set whole?")
    return content


def _types(file: Path, content: dict[str, Any], labels: IntArray, ids: IntArray) -> IntArray:
    """The type (n,) of each nucleus: as said of it, else that of most of its pixels."""
    if "inst_type" not in content:
        return _types_of_pixels(file, content, labels, ids)
    types = content["inst_type"].ravel()
    if len(types) != len(ids):
        raise StoreError(f"{file} has {len(ids)} nuclei and {len(types)} types in inst_type.")
    named = content.get("inst_ids")
    if named is not None and not np.array_equal(np.asarray(named).ravel(), ids):
        raise StoreError(f"{file}: inst_ids are not the numbers in inst_map, in ascending order.")
    whole: IntArray = types.astype(np.int32)
    if not np.array_equal(whole, types):
        raise StoreError(f"{file}: inst_type holds fractions; types are whole numbers.")
    return whole


def _types_of_pixels(
    file: Path, content: dict[str, Any], labels: IntArray, ids: IntArray
) -> IntArray:
    """The most frequent ``type_map`` value (n,) among each nucleus' own pixels."""
    type_map = as_labels(file, content["type_map"])
    check_same_size(file, np.empty((*labels.shape, 3), np.uint8), type_map)
    inside = labels > 0
    types, column = np.unique(type_map[inside], return_inverse=True)
    row = np.searchsorted(ids, labels[inside])
    n_pixels = np.bincount(row * len(types) + column, minlength=len(ids) * len(types))
    if not len(ids):
        return np.zeros(0, np.int32)
    most: IntArray = types[n_pixels.reshape(len(ids), len(types)).argmax(axis=1)]
    return most.astype(np.int32)


def _classes_of(file: Path, types: IntArray, classes: str) -> IntArray:
    known = CLASS_OF_TYPE[classes]
    unknown = np.setdiff1d(types, list(known))
    beyond = np.intersect1d(unknown, list(CLASS_OF_TYPE["official"]))
    if len(beyond):
        raise ConfigError(
            f"{file} has nuclei of type {beyond[0]}; merged files have 1 to 4. This is the "
            "release with 7 types: set data.classes=official, which merges them."
        )
    if len(unknown):
        raise StoreError(f"{file} has nuclei of type {unknown[0]}, which CoNSeP does not have.")
    return np.array([known[int(value)] for value in types], np.int32)


def _check_against_pixels(
    file: Path, content: dict[str, Any], labels: IntArray, types: IntArray
) -> None:
    found = _types_of_pixels(file, content, labels, ids_of(labels))
    n_other = int(np.count_nonzero(found != types))
    if n_other > MOST_DISAGREEMENT * len(types):
        raise StoreError(
            f"{file}: inst_type and type_map disagree on {n_other} of {len(types)} nuclei. "
            "Is the data set whole?"
        )
    if n_other:
        log.warning("%s: type_map says otherwise of %d nuclei; inst_type counts.", file, n_other)
