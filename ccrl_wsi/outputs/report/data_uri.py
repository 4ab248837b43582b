"""Pictures inside the page."""

from __future__ import annotations

import base64
import io

from ccrl_wsi.arrays import ByteArray

QUALITY = 82


def data_uri(picture: ByteArray, quality: int = QUALITY) -> str:
    """``picture`` (h, w, 3 or 4) uint8 as a WebP that an ``img`` can show."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
