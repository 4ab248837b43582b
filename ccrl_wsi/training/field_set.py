"""Fields: square pieces of images with drawn nuclei, as a segmenter is trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray, IntArray
from ccrl_wsi.training.field_targets import FULL, make_targets

OUTSIDE, UNSURE, SURE = 0, 0, FULL
"""How much a pixel counts: nothing beyond the image, or where nobody knows what it is."""


@dataclass(frozen=True, eq=False, slots=True)
class FieldSet:
    """n fields of one side.

    Parameters
    ----------
    rgb
        (n, side, side, 3) uint8; beyond the image its mirror image.
    targets
        (n, side, side, 5) uint8: inside, depth, offset x, offset y (see
        :class:`ccrl_wsi.training.field_targets.Targets`) and how much the pixel counts.
    mpp
        (n,) um per pixel.
    source
        (n,) int32 index into ``source_names``: the image, or the slide or patient it is of.
    source_names
        Sources by index.
    n_nuclei
        Of the images the fields were cut from.
    """

    rgb: ByteArray
    targets: ByteArray
    mpp: FloatArray
    source: IntArray
    source_names: tuple[str, ...]
    n_nuclei: int

    def __len__(self) -> int:
        return len(self.rgb)

    @classmethod
    def concat(cls, parts: Sequence[FieldSet]) -> FieldSet:
        """All fields, one part after the other; equal names are one source.

        Raises
        ------
        ValueError
            If there is none, or sides differ.
        """
        names = tuple(dict.fromkeys(name for part in parts for name in part.source_names))
        index = {name: i for i, name in enumerate(names)}
        of = [np.array([index[name] for name in p.source_names], np.int32) for p in parts]
        return cls(
            rgb=np.concatenate([part.rgb for part in parts]),
            targets=np.concatenate([part.targets for part in parts]),
            mpp=np.concatenate([part.mpp for part in parts]),
            source=np.concatenate([o[p.source] for o, p in zip(of, parts, strict=True)]),
            source_names=names,
            n_nuclei=sum(part.n_nuclei for part in parts),
        )


def cut_fields(
    rgb: ByteArray,
    labels: IntArray,
    mpp: float,
    source: str,
    *,
    side_px: int,
    unsure: IntArray | None = None,
) -> FieldSet:
    """Cut an image into as few fields as cover it, overlapping where they must.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8.
    labels
        (h, w) with a number a nucleus.
    mpp
        Um per pixel.
    source
        What the fields are called together.
    side_px
        Side of a field.
    unsure
        (h, w) above 0 where it is not known what there is; None: nowhere.
    """
    height, width = labels.shape
    made = make_targets(labels)
    counts = np.full(labels.shape, SURE, np.uint8)
    if unsure is not None:
        counts[unsure > 0] = UNSURE
    targets = np.dstack([made.inside, made.depth, made.offset, counts])
    rgb = _reach(rgb, side_px, cv2.BORDER_REFLECT_101)
    targets = np.dstack(
        [_reach(t, side_px, cv2.BORDER_CONSTANT) for t in np.moveaxis(targets, 2, 0)]
    )
    corners = list(_corners(height, width, side_px))
    parts = [np.s_[top : top + side_px, left : left + side_px] for top, left in corners]
    n = len(parts)
    n_nuclei = len(np.unique(labels[labels > 0]))
    return FieldSet(
        rgb=np.stack([rgb[part] for part in parts]),
        targets=np.stack([targets[part] for part in parts]),
        mpp=np.full(n, mpp),
        source=np.zeros(n, np.int32),
        source_names=(source,),
        n_nuclei=n_nuclei,
    )


def _reach(image: ByteArray, side_px: int, border: int) -> ByteArray:
    """``image`` made at least ``side_px`` high and wide, at its lower and right edge."""
    missing = [max(0, side_px - n) for n in image.shape[:2]]
    if not any(missing):
        return image
    while any(missing):  # a mirror image is no longer than the image
        step = [min(m, n - 1) if n > 1 else m for m, n in zip(missing, image.shape, strict=False)]
        kind = border if min(image.shape[:2]) > 1 else cv2.BORDER_REPLICATE
        kind = border if border == cv2.BORDER_CONSTANT else kind
        image = cv2.copyMakeBorder(image, 0, step[0], 0, step[1], kind)
        missing = [m - s for m, s in zip(missing, step, strict=True)]
    return image


def _corners(height: int, width: int, side_px: int) -> Iterator[tuple[int, int]]:
    for top in _starts(height, side_px):
        for left in _starts(width, side_px):
            yield top, left


def _starts(length: int, side_px: int) -> list[int]:
    """As few starts as cover ``length``, evenly spread."""
    n = max(1, -(-length // side_px))
    last = max(0, length - side_px)
    return [round(i * last / max(n - 1, 1)) for i in range(n)]
