"""Reading images, label maps and tables so that every unusable file is told in one sentence."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

from ccrl_wsi.arrays import AnyArray, ByteArray, IntArray
from ccrl_wsi.datasets.labelled_image import LabelledImage
from ccrl_wsi.errors import StoreError

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
TIFF = (".tif", ".tiff")
JPEG = (".jpg", ".jpeg")
MPP_40X = 0.25
# Pillow, tifffile, its codecs, OpenCV and NumPy report damage in all these ways.
_DAMAGE = (OSError, ValueError, LookupError, EOFError, TypeError, RuntimeError, cv2.error)
log = logging.getLogger("ccrl_wsi")

_LARGEST_ID = np.iinfo(np.int32).max


Tell = Callable[[str], None]
"""Takes the sentence about an unusable file."""


def read_each(
    paths: Iterable[Path], read: Callable[[Path], LabelledImage], tell: Tell | None = None
) -> Iterator[LabelledImage]:
    """The images of a set, one after the other.

    From the first unusable file on, nothing more is handed out; the rest is only looked at, so
    that one error names all files to be mended. With ``tell``, unusable files are told to it and
    left out instead.

    Raises
    ------
    StoreError
        With one line for every unusable file; never with ``tell``.
    """
    problems: list[str] = []
    for path in paths:
        try:
            image = read(path)
        except StoreError as error:
            if tell is None:
                problems.append(str(error))
            else:
                tell(str(error))
            continue
        if not problems:
            yield image
    if problems:
        title = [f"{len(problems)} images cannot be used:"] if len(problems) > 1 else []
        raise StoreError("\n".join([*title, *problems]))


def list_images(folder: Path) -> list[Path]:
    """The images in ``folder``, in natural order: test_2 comes before test_10.

    Raises
    ------
    StoreError
        If there is none, or two differ in nothing but the suffix.
    """
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [p for p in there if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    if not found:
        raise StoreError(
            f"There are no images in {folder}. Name the folder the data set was unpacked to."
        )
    twice = [stem for stem, n in Counter(path.stem for path in found).items() if n > 1]
    if twice:
        raise StoreError(f"{folder} holds two images named {twice[0]}. Remove one of them.")
    return sorted(found, key=lambda path: (len(path.stem), path.stem))


def read_rgb(path: Path) -> ByteArray:
    """Colours (h, w, 3) uint8; grey images get three equal channels, alpha is dropped.

    Raises
    ------
    StoreError
        If the file is unreadable or not 8 bits deep.
    """
    pixels = _read_bytes(path)
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return _three_channels(path, pixels)


def read_channels(path: Path) -> ByteArray:
    """The three channels (h, w, 3) uint8 of a file in which they are numbers, not colours.

    Raises
    ------
    StoreError
        If the file is unreadable, grey, or not 8 bits deep.
    """
    return _three_channels(path, _read_bytes(path))


def read_label_map(path: Path) -> IntArray:
    """Numbers of nuclei (h, w) int32 from a .png, .tif or .npy file.

    Raises
    ------
    StoreError
        If the file is unreadable or holds anything but whole numbers from 0.
    """
    values = _read_any(path)
    if values.dtype.kind not in "iu":
        raise StoreError(
            f"{path} holds {values.dtype} values; a label map holds whole numbers, one a nucleus. "
            "Save it as 16-bit or 32-bit integers."
        )
    return as_labels(path, values)


def as_labels(path: Path, values: AnyArray) -> IntArray:
    """``values`` of the file ``path`` as (h, w) int32.

    Raises
    ------
    StoreError
        If they are not whole numbers from 0, or not an image of one channel.
    """
    if values.ndim != 2:
        raise StoreError(
            f"{path} has the shape {values.shape}; a label map has one channel. Save the numbers "
            "of the nuclei, not colours."
        )
    if values.size and not (values.min() >= 0 and values.max() <= _LARGEST_ID):
        raise StoreError(
            f"{path} has numbers from {values.min()} to {values.max()}; nuclei are numbered from "
            "1, and 0 is background."
        )
    labels: IntArray = values.astype(np.int32, order="C")  # MATLAB stores columns
    if values.dtype.kind == "f" and not np.array_equal(labels, values):
        raise StoreError(f"{path} holds fractions; nuclei have whole numbers.")
    return labels


def ids_of(labels: IntArray) -> IntArray:
    """The numbers that occur in ``labels``, ascending, without 0: (n,) int32."""
    ids = np.unique(labels)
    return ids[ids > 0].astype(np.int32)


def check_same_size(path: Path, rgb: ByteArray, labels: AnyArray) -> None:
    """Refuse labels that were drawn on an image of another size.

    Raises
    ------
    StoreError
        If heights or widths differ.
    """
    if rgb.shape[:2] != labels.shape[:2]:
        height, width = rgb.shape[:2]
        raise StoreError(
            f"{path} is {width} x {height} px, its labels are {labels.shape[1]} x "
            f"{labels.shape[0]} px. Are they of the same image?"
        )


def without_classes(path: Path, rgb: ByteArray, labels: IntArray, mpp: float) -> LabelledImage:
    """The image ``path`` with nuclei that have no class.

    Raises
    ------
    StoreError
        If the sizes of ``rgb`` and ``labels`` differ.
    """
    check_same_size(path, rgb, labels)
    ids = ids_of(labels)
    unlabelled = np.full(len(ids), -1, np.int32)
    return LabelledImage(path.stem, rgb, labels, ids, unlabelled, (), mpp, path.stem)


def read_table(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Rows of the CSV file ``path`` by column name.

    Raises
    ------
    StoreError
        If it is unreadable, or one of ``columns`` is not there.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            names = list(reader.fieldnames or [])
    except FileNotFoundError:
        raise StoreError(f"There is no table {path}. Is the data set whole?") from None
    except (OSError, ValueError, csv.Error) as error:
        raise unreadable(path, error) from error
    missing = [name for name in columns if name not in names]
    if missing:
        raise StoreError(
            f"{path} has no column {missing[0]}; it has: {', '.join(names) or 'nothing'}."
        )
    return rows


def unreadable(path: Path, error: Exception | None = None) -> StoreError:
    """The error of a file that is absent or damaged."""
    if not path.is_file():
        return StoreError(f"There is no file {path}. Is the data set whole?")
    reason = f" ({str(error).splitlines()[0]})" if error is not None and str(error) else ""
    return StoreError(f"{path} cannot be read{reason}. Is the data set whole?")


def _read_any(path: Path) -> AnyArray:
    """What the file holds, with channels last and in the order red, green, blue."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if suffix in TIFF:
            return _read_tiff(path)
        if suffix in JPEG:
            # OpenCV fills up a file that is cut off, and says nothing.
            with Image.open(path) as image:
                return np.asarray(image if image.mode == "L" else image.convert("RGB"))
        # Pillow would take away half of 16 bits, and says nothing.
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except _DAMAGE as error:
        raise unreadable(path, error) from error
    if pixels is None:
        raise unreadable(path)
    is_coloured = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if is_coloured and pixels.shape[2] == 4 and (pixels[..., 3] < np.iinfo(pixels.dtype).max).any():
        log.warning("%s: its transparency is left out of account.", path)
    values: AnyArray = pixels[..., 2::-1] if is_coloured else pixels
    return values


def _read_tiff(path: Path) -> AnyArray:
    values: AnyArray = np.asarray(tifffile.imread(path))
    if not values.size:
        raise ValueError("it holds no image")  # tifffile says nothing of a lost directory
    return values


def _read_bytes(path: Path) -> ByteArray:
    pixels = _read_any(path)
    if pixels.dtype != np.uint8:
        raise StoreError(
            f"{path} has {pixels.dtype} pixels; colours have 8 bits. Save it with 8 bits."
        )
    return pixels


def _three_channels(path: Path, pixels: ByteArray) -> ByteArray:
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise StoreError(f"{path} has the shape {pixels.shape}; it should have three channels.")
    return np.ascontiguousarray(pixels[..., :3])
