"""CRCHistoPhenotypes (Sirinukunwattana et al., IEEE TMI 35 (2016) 1196): colon nuclei as points.

``Classification/img1/img1.bmp`` (500 x 500 px at 20x) has its nuclei in ``img1_epithelial.mat``,
``img1_fibroblast.mat``, ``img1_inflammatory.mat`` and ``img1_others.mat``, each with ``detection``:
a row x, y per nucleus, counted from 1 as MATLAB does. Where there is a file
``Detection/img1/img1_detection.mat``, it has the points of all nuclei; those that no class names
are unlabelled.

The set has no official parts. Here images of odd numbers are for training, the others for testing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.io
from scipy.spatial import cKDTree

from ccrl_wsi.arrays import ByteArray, FloatArray, IntArray
from ccrl_wsi.datasets.image_files import read_rgb, unreadable
from ccrl_wsi.errors import StoreError

CLASSES = ("epithelial", "fibroblast", "inflammatory", "others")
MPP = 0.55
"""Of the slides at 20x, as the authors give it."""
NUCLEUS_PX = 13.5
"""A nucleus' diameter where nobody drew it: twice this is the authors' patch of 27 px."""
PART = ("test", "train")
"""By the remainder of an image's number."""
SAME_POINT_PX = 3.0
"""How far a class' point may lie from the same nucleus' point in ``Detection``."""


@dataclass(frozen=True, eq=False, slots=True)
class PointImage:
    """An image whose nuclei are known by a point each.

    Parameters
    ----------
    rgb
        (height, width, 3) uint8.
    xy
        (n, 2) float64 in pixels; the centre of the first pixel is 0.5, 0.5.
    label
        (n,) int32 index into ``CLASSES``, or -1.
    """

    name: str
    rgb: ByteArray
    xy: FloatArray
    label: IntArray


def read_crc(folder: Path, split: Literal["train", "test", "all"]) -> Iterator[PointImage]:
    """The images of a part, in the order of their numbers.

    Parameters
    ----------
    folder
        Holds ``Classification/``; or is that folder.

    Raises
    ------
    StoreError
        If there are no such images, or a file is missing or damaged.
    """
    root = folder / "Classification" if (folder / "Classification").is_dir() else folder
    numbers = sorted(
        int(found[1])
        for path in root.iterdir()
        if path.is_dir() and (found := re.fullmatch(r"img(\d+)", path.name))
    )
    if not numbers:
        raise StoreError(
            f"There are no folders img1, img2 ... in {root}. Name the folder that "
            "CRCHistoPhenotypes was unpacked to."
        )
    wanted = [number for number in numbers if split == "all" or PART[number % 2] == split]
    if not wanted:
        raise StoreError(
            f"{root} has no image for split={split}: odd numbers are for training, even ones for "
            "testing."
        )
    for number in wanted:
        yield _read_image(root, f"img{number}")


def windows_around(xy: FloatArray, scale: float) -> IntArray:
    """Square windows (n, 4) int64 left, top, side, side centred on points ``xy`` (n, 2).

    ``scale`` is the side over ``NUCLEUS_PX``. Windows may reach outside the image.
    """
    side = max(math.ceil(scale * NUCLEUS_PX - 1e-9), 1)
    corner = np.round(xy - side / 2).astype(np.int64)
    return np.concatenate([corner, np.full((len(xy), 2), side, np.int64)], axis=1)


def _read_image(root: Path, name: str) -> PointImage:
    rgb = read_rgb(root / name / f"{name}.bmp")
    points = [_read_points(root / name / f"{name}_{of}.mat") for of in CLASSES]
    xy = np.concatenate(points)
    label = np.repeat(np.arange(len(CLASSES), dtype=np.int32), [len(some) for some in points])
    all_points = root.parent / "Detection" / name / f"{name}_detection.mat"
    if all_points.is_file():
        others = _read_points(all_points)
        far = np.ones(len(others), dtype=bool)
        if len(xy) and len(others):
            far = cKDTree(xy).query(others)[0] > SAME_POINT_PX
        xy = np.concatenate([xy, others[far]])
        label = np.concatenate([label, np.full(int(far.sum()), -1, np.int32)])
    _check_inside(root / name, rgb, xy)
    return PointImage(name, rgb, xy, label)


def _read_points(file: Path) -> FloatArray:
    """Points (n, 2), the first pixel's centre at 0.5, 0.5."""
    try:
        content: dict[str, Any] = scipy.io.loadmat(file)
    # scipy reports damage with whatever its parser stumbles over.
    except Exception as error:  # noqa: BLE001
        raise unreadable(file, error) from error
    if "detection" not in content:
        raise StoreError(f"{file} has no `detection`. Is it a file of CRCHistoPhenotypes?")
    found = np.asarray(content["detection"])
    if found.size == 0:
        return np.zeros((0, 2))
    if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iuf":
        raise StoreError(f"{file}: `detection` is {found.shape}, not a row x, y per nucleus.")
    points: FloatArray = found.astype(np.float64) - 0.5
    return points


def _check_inside(place: Path, rgb: ByteArray, xy: FloatArray) -> None:
    height, width = rgb.shape[:2]
    is_inside = ((xy >= -1) & (xy <= np.array([width, height]) + 1)).all(axis=1)
    if not is_inside.all():
        x, y = xy[~is_inside][0]
        raise StoreError(
            f"{place}: the point {x:.1f}, {y:.1f} is outside the image of {width} x {height} px. "
            "Are x and y in this order?"
        )
