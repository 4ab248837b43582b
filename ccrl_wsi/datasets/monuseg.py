"""MoNuSeg (Kumar et al., IEEE Trans. Med. Imaging 36 (2017) 1550): nuclei of many organs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ccrl_wsi.datasets.image_files import (
    MPP_40X,
    Tell,
    list_images,
    read_each,
    read_label_map,
    read_rgb,
    without_classes,
)
from ccrl_wsi.datasets.labelled_image import LabelledImage


def read_monuseg(folder: Path, tell: Tell | None = None) -> Iterator[LabelledImage]:
    """``images/*.png`` and 16-bit ``labels/*.png`` of the same name; no classes.

    Raises
    ------
    StoreError
        With a line for every image that cannot be used; with ``tell``, see :func:`read_each`.
    """

    def read(path: Path) -> LabelledImage:
        labels = read_label_map(Path(folder) / "labels" / path.name)
        return without_classes(path, read_rgb(path), labels, MPP_40X)

    return read_each(list_images(Path(folder) / "images"), read, tell)
