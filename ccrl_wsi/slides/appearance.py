"""Whether a slide looks as if it were stained with haematoxylin and eosin."""

from __future__ import annotations

import cv2
import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray

# Of 255: darker than this is no transmitted light; glass is paler than the second.
DARK = 64
PALE = 225
MAX_DARK_SHARE = 0.5

# Of 255: what has less chroma has no hue; what is greener than red or blue is not H&E.
MIN_CHROMA = 12
MIN_PURPLE_SHARE = 0.6
MIN_COLOURED_SHARE = 0.2


def he_warning(rgb: ByteArray) -> str | None:
    """A sentence if a thumbnail (height, width, 3) uint8 does not look like H&E, else None.

    H&E is bright, coloured, and nowhere greener than red and blue. Glass says nothing.
    """
    pixels = cv2.blur(rgb, (3, 3)).reshape(-1, 3).astype(np.int16)
    brightness = pixels.mean(axis=1)
    if np.mean(brightness < DARK) > MAX_DARK_SHARE:
        return _warning("most of it is black, as in fluorescence")
    content = pixels[(brightness < PALE) & (brightness >= DARK)]
    return _colour_warning(content) if len(content) else None


def _colour_warning(content: FloatArray) -> str | None:
    chroma = content.max(axis=1) - content.min(axis=1)
    is_coloured = chroma >= MIN_CHROMA
    if is_coloured.mean() < MIN_COLOURED_SHARE:
        return _warning("it is grey")
    red, green, blue = content[is_coloured].T
    purple_share = np.mean((green <= red) & (green <= blue))
    if purple_share < MIN_PURPLE_SHARE:
        return _warning(f"only {purple_share:.0%} of what is coloured is pink or purple")
    return None


def _warning(reason: str) -> str:
    return (
        f"The slide does not look like H&E: {reason}. "
        "Nuclei found on it, and their clusters, may mean nothing."
    )
