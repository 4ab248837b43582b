"""Images in which people outlined every nucleus: CoNSeP, MoNuSeg and TNBC as folders on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import scipy.io

from ccrl_wsi.arrays import ByteArray, IntArray
from ccrl_wsi.errors import StoreError

MPP_40X = 0.25


@dataclass(frozen=True, eq=False, slots=True)
class LabelledImage:
    """An image and the nuclei drawn in it.

    Parameters
    ----------
    name
        The file's name without suffix.
    rgb
        (height, width, 3) uint8.
    labels
        (height, width) int32; 0 is background, every nucleus has its own number.
    mpp
        Micrometres per pixel.
    """

    name: str
    rgb: ByteArray
    labels: IntArray
    mpp: float


def read_consep(folder: Path, split: Literal["Train", "Test"]) -> Iterator[LabelledImage]:
    """CoNSeP (Graham et al. 2019): ``<split>/Images/*.png`` and ``<split>/Labels/*.mat``."""
    for image in _images(Path(folder) / split / "Images"):
        labels = _read_instances(Path(folder) / split / "Labels" / f"{image.stem}.mat")
        yield LabelledImage(image.stem, _read_rgb(image), labels, MPP_40X)


def read_monuseg(folder: Path) -> Iterator[LabelledImage]:
    """MoNuSeg (Kumar et al. 2017): ``images/*.png`` and 16-bit ``labels/*.png``."""
    for image in _images(Path(folder) / "images"):
        labels = _read(Path(folder) / "labels" / image.name)
        yield LabelledImage(image.stem, _read_rgb(image), labels.astype(np.int32), MPP_40X)


def read_tnbc(folder: Path) -> Iterator[LabelledImage]:
    """TNBC (Naylor et al. 2018): ``Slide/*.png`` and binary ``Masks/*.png``.

    Nuclei are the 8-connected pieces of the mask.
    """
    for image in _images(Path(folder) / "Slide"):
        mask = _read(Path(folder) / "Masks" / image.name)
        flat = mask if mask.ndim == 2 else mask[..., :3].max(axis=2)
        _, labels = cv2.connectedComponents((flat > 0).astype(np.uint8), connectivity=8)
        yield LabelledImage(image.stem, _read_rgb(image), labels.astype(np.int32), MPP_40X)


def _images(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.png"), key=lambda path: (len(path.stem), path.stem))
    if not found:
        raise StoreError(
            f"No PNG images in {folder}. Name the folder the data set was unpacked to."
        )
    return found


def _read_instances(path: Path) -> IntArray:
    try:
        labels: IntArray = scipy.io.loadmat(path)["inst_map"].astype(np.int32)
    except (OSError, KeyError, ValueError) as error:
        raise StoreError(
            f"Cannot read inst_map of {path}: {error}. Is the data set whole?"
        ) from error
    return labels


def _read_rgb(path: Path) -> ByteArray:
    rgb: ByteArray = np.ascontiguousarray(_read(path)[..., 2::-1])
    return rgb


def _read(path: Path) -> IntArray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise StoreError(f"Cannot read the image {path}. Is the data set whole?")
    return np.asarray(image)
