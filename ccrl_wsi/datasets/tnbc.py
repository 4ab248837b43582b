"""TNBC (Naylor et al., IEEE Trans. Med. Imaging 38 (2019) 448): breast cancer, nuclei as masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ccrl_wsi.datasets.image_files import (
    MPP_40X,
    Tell,
    list_images,
    read_each,
    read_rgb,
    without_classes,
)
from ccrl_wsi.datasets.labelled_image import LabelledImage


def read_tnbc(folder: Path, tell: Tell | None = None) -> Iterator[LabelledImage]:
    """``Slide/*.png`` and binary ``Masks/*.png`` of the same name; no classes.

    Nuclei are the 8-connected pieces of the mask. The number before ``_`` is the patient's.

    Raises
    ------
    StoreError
        With a line for every image that cannot be used; with ``tell``, see :func:`read_each`.
    """

    def read(path: Path) -> LabelledImage:
        mask = read_rgb(Path(folder) / "Masks" / path.name).max(axis=2) > 0
        _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        image = without_classes(path, read_rgb(path), labels.astype(np.int32), MPP_40X)
        return replace(image, slide=path.stem.split("_")[0])

    return read_each(list_images(Path(folder) / "Slide"), read, tell)
