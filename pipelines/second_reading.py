"""Pixels are read once more before anybody says that they cannot be decoded."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.errors import SlideError
from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.interfaces import SlideReader
from ccrl_wsi.records import SlideInfo

PAUSE_SECONDS = 0.5
"""Long enough for a file server that was away for a moment."""


@dataclass(frozen=True, slots=True)
class SecondReading:
    """A reader that tries again after an error, once."""

    reader: SlideReader

    @property
    def info(self) -> SlideInfo:
        """What the slide says of itself."""
        return self.reader.info

    def read(self, box: Box, grid: PixelGrid) -> ByteArray:
        """As the reader's own.

        Raises
        ------
        SlideError
            If the pixels cannot be decoded the second time either.
        """
        try:
            return self.reader.read(box, grid)
        except SlideError:
            time.sleep(PAUSE_SECONDS)
        return self.reader.read(box, grid)

    def close(self) -> None:
        """Release the file."""
        self.reader.close()
