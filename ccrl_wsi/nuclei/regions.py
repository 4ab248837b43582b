"""Where each nucleus lies: boxes, pixel counts and exact sums of coordinates."""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
from scipy import ndimage

from ccrl_wsi.arrays import BoolArray, IntArray
from ccrl_wsi.config import NucleiSettings


@dataclass(frozen=True, eq=False, slots=True)
class Regions:
    """The pixels of n nuclei, summed up. Frame: the image they were found in.

    Parameters
    ----------
    label
        (n,) int32 number in the label image.
    boxes
        (n, 4) int64 left, top, width, height of the tight bounding box.
    n_pixels
        (n,) int64 number of pixels.
    coordinate_sums
        (n, 2) int64 sums of the pixels' columns and rows. Whole numbers, so that two tiles
        which see the same nucleus agree on its centre to the last bit.
    touches_border
        (n, 4) bool: reaches the left, top, right, bottom border of the image.
    """

    label: IntArray
    boxes: IntArray
    n_pixels: IntArray
    coordinate_sums: IntArray
    touches_border: BoolArray

    def __len__(self) -> int:
        return len(self.label)

    def where(self, keep: BoolArray | IntArray) -> Regions:
        """The nuclei that ``keep`` (mask or row numbers) selects, in its order."""
        return Regions(*(getattr(self, field.name)[keep] for field in fields(self)))


def find_regions(labels: IntArray) -> Regions:
    """Box, area and coordinate sums of every nucleus of ``labels`` (h, w) int32, 1..n.

    Raises
    ------
    ValueError
        If a number between 1 and n is missing.
    """
    places = ndimage.find_objects(labels)
    n = len(places)
    boxes = np.zeros((n, 4), np.int64)
    moments = np.zeros((n, 3), np.int64)
    for i, place in enumerate(places):
        if place is None:
            raise ValueError(f"labels must be 1..{n} without gaps; {i + 1} is missing")
        rows, columns = place
        mask = (labels[place] == i + 1).view(np.uint8)
        found = cv2.moments(mask, binaryImage=True)  # exact: whole numbers far below 2^53
        boxes[i] = columns.start, rows.start, mask.shape[1], mask.shape[0]
        moments[i] = found["m00"], found["m10"], found["m01"]
    n_pixels = moments[:, 0]
    sums = moments[:, 1:] + boxes[:, :2] * n_pixels[:, None]
    label = np.arange(1, n + 1, dtype=np.int32)
    return Regions(label, boxes, n_pixels, sums, _touches_border(boxes, labels.shape))


def _touches_border(boxes: IntArray, shape: tuple[int, ...]) -> BoolArray:
    left, top, width, height = boxes.T
    sides = [left == 0, top == 0, left + width == shape[1], top + height == shape[0]]
    return np.stack(sides, axis=1)


def of_plausible_size(labels: IntArray, mpp: float, settings: NucleiSettings) -> IntArray:
    """``labels`` without objects that a run would drop for their area."""
    area_um2 = np.bincount(labels.ravel()) * mpp**2
    keep = (area_um2 >= settings.min_area_um2) & (area_um2 <= settings.max_area_um2)
    keep[0] = False
    kept: IntArray = np.where(keep[labels], labels, 0).astype(np.int32)
    return kept
