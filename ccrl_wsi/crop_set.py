"""Nuclei as images, with what is known of each: what encoders learn from and are judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray
from ccrl_wsi.measurement_names import NAMES, has_shapes

UNLABELLED = -1
COUNTED_AT_ONCE = 4096


@dataclass(frozen=True, eq=False, slots=True)
class CropSet:
    """n crops cut by one rule.

    Parameters
    ----------
    crops
        (n, side, side, channels) uint8.
    measurements
        (n, m) float32, columns of ``ccrl_wsi.measurement_names``: ``NAMES``, and ``SHAPE_NAMES``
        after them where they were asked for.
    source
        (n,) int32 index into ``source_names``.
    label
        (n,) int32 index into ``class_names``; ``UNLABELLED`` where nobody said.
    source_names
        The images or slides the crops come from.
    class_names
        Names of the classes; empty where there are none.
    scale, mpp
        The window's side over the nucleus' long side, and micrometres per pixel of the images.
    """

    crops: ByteArray
    measurements: FloatArray
    source: IntArray
    label: IntArray
    source_names: tuple[str, ...]
    class_names: tuple[str, ...]
    scale: float
    mpp: float

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in PER_CROP}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"CropSet fields disagree in length: {lengths}")
        if self.crops.ndim != 4 or self.crops.shape[1] != self.crops.shape[2]:
            raise ValueError(f"crops must be (n, side, side, channels), not {self.crops.shape}")
        if self.measurements.shape[1] != len(NAMES) and not has_shapes(self.measurements):
            raise ValueError(f"{self.measurements.shape[1]} measurements instead of {len(NAMES)}")
        _check_index("source", self.source, 0, len(self.source_names))
        _check_index("label", self.label, UNLABELLED, len(self.class_names))

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def size_px(self) -> int:
        """Side of a crop."""
        return int(self.crops.shape[1])

    @property
    def n_channels(self) -> int:
        """Colour channels of a crop."""
        return int(self.crops.shape[3])

    def where(self, keep: BoolArray | IntArray) -> CropSet:
        """The crops that ``keep`` (mask or row numbers) selects, in its order."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return CropSet(**values | {name: values[name][keep] for name in PER_CROP})

    @staticmethod
    def concat(many: Sequence[CropSet]) -> CropSet:
        """The crops of one or more sets of one rule and the same classes, in order.

        Raises
        ------
        ValueError
            If rule or classes differ.
        """
        rules = {(c.scale, c.mpp, c.crops.shape[1:], c.class_names) for c in many}
        if len(rules) != 1:
            raise ValueError(f"crop sets differ in rule or classes: {sorted(map(str, rules))}")
        names = tuple(dict.fromkeys(name for c in many for name in c.source_names))
        number = {name: i for i, name in enumerate(names)}
        sources = [
            np.array([number[name] for name in c.source_names], np.int32)[c.source] for c in many
        ]
        joined = {name: np.concatenate([getattr(c, name) for c in many]) for name in PER_CROP}
        joined["source"] = np.concatenate(sources).astype(np.int32)
        return CropSet(
            **joined,
            source_names=names,
            class_names=many[0].class_names,
            scale=many[0].scale,
            mpp=many[0].mpp,
        )


def channel_statistics(crops: ByteArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation (channels,) float64 of crops (n, side, side, channels) uint8.

    On a scale of 0..1; the same whatever the order of the crops. A channel that hardly changes
    has the deviation of one grey level, so that dividing by it stays possible.
    """
    counts, level = np.zeros((crops.shape[3], 256), np.int64), np.arange(256) / 255
    # In parts: NumPy counts bytes as numbers eight times as large.
    for start in range(0, len(crops), COUNTED_AT_ONCE):
        part = crops[start : start + COUNTED_AT_ONCE]
        for channel, count in enumerate(counts):
            count += np.bincount(part[..., channel].ravel(), minlength=256)
    n = counts.sum(axis=1)
    mean = counts @ level / n
    variance = (counts * (level - mean[:, None]) ** 2).sum(axis=1) / n
    return mean, np.maximum(np.sqrt(variance), 1 / 255)


PER_CROP = ("crops", "measurements", "source", "label")
"""The fields with one entry a crop."""


def _check_index(name: str, values: IntArray, lowest: int, end: int) -> None:
    if len(values) and not (values.min() >= lowest and values.max() < end):
        raise ValueError(f"{name} must be {lowest}..{end - 1}: {values.min()}..{values.max()}")
