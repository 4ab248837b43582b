"""Which parts of a thumbnail are stained: the ``otsu`` method of finding tissue.

1. Blur, so that a nucleus or a grain of noise decides nothing.
2. Chroma = largest - smallest of red, green, blue, over 255. Glass, dust, black borders and
   black ink are grey and have none, however dark; saturation would be unstable there.
3. Green and blue ink is dropped: it is redder nowhere than it is green, as H&E always is.
4. Otsu's threshold on the chroma, kept between a floor (a slide that is all glass has no tissue)
   and a ceiling (a slide that is all tissue has no glass to tell it from).
5. Drop specks, fill holes, widen.
"""

from __future__ import annotations

import cv2
import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray
from ccrl_wsi.config import TissueSettings
from ccrl_wsi.geometry import um_to_px

BLUR_UM = 8.0

# How much greener than red ink is, of 255. Haematoxylin reaches about -10, green ink 40 and more.
INK_EXCESS = 12


def find_stained(rgb: ByteArray, mpp: float, settings: TissueSettings) -> BoolArray:
    """Tissue in ``rgb`` (height, width, 3) uint8 at ``mpp``: boolean (height, width)."""
    blurred = cv2.GaussianBlur(rgb, (0, 0), max(BLUR_UM / mpp, 0.5))
    red, green, blue = cv2.split(blurred)
    chroma = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
    is_ink = cv2.subtract(green, red) > INK_EXCESS
    mask = (chroma > 255 * _threshold(chroma[~is_ink], settings)) & ~is_ink
    mask = _without_small(mask, settings.min_area_um2 / mpp**2)
    mask = ~_without_small(~mask, settings.max_hole_um2 / mpp**2) if mask.any() else mask
    return _widened(mask, um_to_px(settings.margin_um, mpp))


def _threshold(chroma: ByteArray, settings: TissueSettings) -> float:
    if not chroma.size:
        return settings.max_chroma
    otsu, _ = cv2.threshold(chroma.reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return min(max(otsu / 255, settings.min_chroma), settings.max_chroma)


def _without_small(mask: BoolArray, min_area_px: float) -> BoolArray:
    """The mask without connected parts smaller than ``min_area_px``."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    is_kept = stats[:, cv2.CC_STAT_AREA] >= min_area_px
    is_kept[0] = False
    kept: BoolArray = is_kept[labels]
    return kept


def _widened(mask: BoolArray, radius: int) -> BoolArray:
    if radius == 0:
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    wide: BoolArray = cv2.dilate(mask.astype(np.uint8), disc).astype(np.bool_)
    return wide
