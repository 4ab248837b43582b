"""NuCLS, the corrected single-rater set (Amgad et al., GigaScience 11 (2022) giac037).

A field of view has one name everywhere: ``rgb/<name>.png`` (older releases: ``rgbs``),
``mask/<name>.png``, ``csv/<name>.csv``; the name begins with the slide's, whose second word is the
hospital (TCGA-**A1**-A0SP-DX1_id-...). Folds are by hospital: ``fold_1_train.csv`` and
``fold_1_test.csv`` in ``train_test_splits`` list slides.

Channel 0 of a mask is the class; channels 1 and 2 together name the object, the first of which
is the field of view itself (class 253). NuCLS multiplies the two channels. Products repeat from
object 254 on (1 x 6 = 2 x 3), so objects are kept apart by the pair; up to there the numbers are
those of NuCLS, and the first nucleus is 3.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from ccrl_wsi.arrays import ByteArray, IntArray
from ccrl_wsi.datasets.image_files import (
    check_same_size,
    list_images,
    read_channels,
    read_each,
    read_rgb,
    read_table,
)
from ccrl_wsi.datasets.labelled_image import LabelledImage
from ccrl_wsi.errors import StoreError

MPP = 0.2
CLASSES = ("tumor", "stromal", "sTIL", "other", "apoptotic")
CLASS_OF_CODE = {
    **{1: 0, 6: 0},  # tumor, mitotic figure
    **{2: 1, 7: 1, 5: 1},  # fibroblast, vascular endothelium, macrophage
    **{3: 2, 4: 2},  # lymphocyte, plasma cell
    **{8: 3, 10: 3, 11: 3, 12: 3},  # myoepithelium, neutrophil, ductal epithelium, eosinophil
    9: 4,  # apoptotic body
    99: -1,  # unlabelled
}
"""The five classes of the CCRL paper."""
FIELD_OF_VIEW = 253
GROSS = 0.2
"""Share of a table's nuclei that a mask may have more or less before it is told. Nuclei painted
over by others are missing in masks, so that small differences say nothing."""
GROSS_NUCLEI = 3

log = logging.getLogger("ccrl_wsi")


def read_nucls(
    folder: Path, split: Literal["train", "test", "all"], fold: int
) -> Iterator[LabelledImage]:
    """Fields of view with their nuclei in the five classes of the paper; unlabelled ones have -1.

    Parameters
    ----------
    folder
        Holds ``rgb`` or ``rgbs``, ``mask``, and for a split ``train_test_splits``. Tables in
        ``csv`` are only compared with the masks: a gross difference is logged.
    fold
        1 to 5; not looked at where ``split`` is all.

    Raises
    ------
    StoreError
        If the fold's lists are missing or overlap; with a line for every image that cannot be
        used.
    """
    folder = Path(folder)
    rgb_folder = folder / "rgb" if (folder / "rgb").is_dir() else folder / "rgbs"
    images = list_images(rgb_folder)
    if split != "all":
        images = _of_split(folder, images, split, fold)
    return read_each(images, lambda path: _read_image(folder, path))


def slide_of(stem: str) -> str:
    """The slide a field of view was cut from, by the name of its files."""
    return stem.split("_")[0]


def hospital_of(slide: str) -> str:
    """The hospital a slide comes from: TCGA's code of the tissue source site.

    Raises
    ------
    StoreError
        If ``slide`` is no name of TCGA.
    """
    words = slide.split("-")
    if words[0] != "TCGA" or len(words) < 3:
        raise StoreError(f"{slide!r} is not the name of a TCGA slide, as in TCGA-A1-A0SP-DX1.")
    return words[1]


def _of_split(folder: Path, images: list[Path], split: str, fold: int) -> list[Path]:
    lists = {name: _slides_of_fold(folder, fold, name) for name in ("train", "test")}
    hospitals = {name: {hospital_of(slide) for slide in lists[name]} for name in lists}
    shared = sorted(hospitals["train"] & hospitals["test"])
    if shared:
        raise StoreError(
            f"Fold {fold} of {folder} has the hospital {shared[0]} in train and in test. The "
            "official folds are by hospital: are these the official lists?"
        )
    nowhere = {slide_of(p.stem) for p in images} - lists["train"] - lists["test"]
    if nowhere:
        log.warning(
            "%s: %d slides are in neither list of fold %d and are left out, the first of them %s",
            *(folder, len(nowhere), fold, min(nowhere)),
        )
    found = [path for path in images if slide_of(path.stem) in lists[split]]
    absent = lists[split] - {slide_of(path.stem) for path in found}
    if not found:
        raise StoreError(f"{folder} has no image of the {split} slides of fold {fold}.")
    if absent:
        log.warning(
            "%s: %d of the %d %s slides of fold %d have no image, the first of them %s",
            *(folder, len(absent), len(lists[split]), split, fold, min(absent)),
        )
    return found


def _slides_of_fold(folder: Path, fold: int, split: str) -> set[str]:
    table = folder / "train_test_splits" / f"fold_{fold}_{split}.csv"
    slides = {row["slide_name"] or "" for row in read_table(table, ("slide_name",))}
    if not slides:
        raise StoreError(f"{table} lists no slides. Is the data set whole?")
    return slides


def _read_image(folder: Path, path: Path) -> LabelledImage:
    rgb, file = read_rgb(path), folder / "mask" / f"{path.stem}.png"
    mask = read_channels(file)
    check_same_size(path, rgb, mask)
    labels, codes = _objects(mask)
    ids, label = _classes(file, labels, codes)
    if (folder / "csv").is_dir():
        _compare(folder / "csv" / f"{path.stem}.csv", len(ids))
    slide = slide_of(path.stem)
    return LabelledImage(path.stem, rgb, labels, ids, label, CLASSES, MPP, slide)


def _objects(mask: ByteArray) -> tuple[IntArray, IntArray]:
    """Numbers of the nuclei, the field of view being background, and codes: (h, w) int32 each."""
    codes = mask[..., 0].astype(np.int32)
    pair = np.sort(mask[..., 1:], axis=2).astype(np.int32)  # uint8 would wrap around
    number = (pair[..., 0] - 1) * 256 + pair[..., 1]
    is_nucleus = (pair[..., 0] > 0) & (codes > 0) & (codes != FIELD_OF_VIEW)
    return np.where(is_nucleus, number, 0).astype(np.int32), codes


def _classes(file: Path, labels: IntArray, codes: IntArray) -> tuple[IntArray, IntArray]:
    """Numbers and classes (n,) int32 of the nuclei, ascending."""
    inside = labels > 0
    ids, code = np.divmod(np.unique(labels[inside] * 256 + codes[inside]), 256)
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if len(repeated):
        raise StoreError(f"{file}: the nucleus {repeated[0]} has pixels of several classes.")
    unknown = np.setdiff1d(code, list(CLASS_OF_CODE))
    if len(unknown):
        raise StoreError(f"{file} has the class code {unknown[0]}, which NuCLS does not have.")
    label = np.array([CLASS_OF_CODE[int(value)] for value in code], np.int32)
    return ids.astype(np.int32), label


def _compare(table: Path, n_in_mask: int) -> None:
    rows = read_table(table, ())
    names = [row.get("raw_classification") or row.get("group") or "" for row in rows]
    n_in_table = sum("fov" not in name.lower() for name in names)
    difference = abs(n_in_mask - n_in_table)
    if difference > GROSS_NUCLEI and difference > GROSS * max(n_in_table, n_in_mask):
        log.warning(
            "%s lists %d nuclei, the mask has %d: are they of the same field of view?",
            *(table, n_in_table, n_in_mask),
        )
