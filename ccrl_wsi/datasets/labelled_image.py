"""An image in which every nucleus is outlined and, where known, named."""

from __future__ import annotations

from dataclasses import dataclass

from ccrl_wsi.arrays import ByteArray, IntArray


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
        (height, width) int32; 0 is background, every nucleus has its own number. Gaps are allowed.
    ids, label
        (n,) int32 the numbers that occur in ``labels``, ascending, and the class of each: an index
        into ``class_names``, or -1 where it is unlabelled.
    class_names
        Empty where the data set names no classes.
    mpp
        Micrometres per pixel.
    slide
        The slide the image was cut from, where the data set says so; else the image's name.
    """

    name: str
    rgb: ByteArray
    labels: IntArray
    ids: IntArray
    label: IntArray
    class_names: tuple[str, ...]
    mpp: float
    slide: str
