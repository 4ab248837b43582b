"""What can be exchanged: readers, segmenters and encoders, as protocols."""

from __future__ import annotations

from typing import Protocol

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.records import Segmentation, SlideInfo


class SlideReader(Protocol):
    """An open slide. Safe to read from several threads."""

    @property
    def info(self) -> SlideInfo:
        """What the slide says of itself."""
        ...

    def read(self, box: Box, grid: PixelGrid) -> ByteArray:
        """Pixels of ``box`` (grid pixels): (height, width, 3) uint8 RGB, white outside the slide.

        A pixel's value does not depend on the box it is read with.

        Raises
        ------
        SlideError
            If the file cannot be decoded there.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class Segmenter(Protocol):
    """RGB image in, nuclei out. Holds its network; called once per tile.

    A nucleus must come out the same in every tile that sees it whole with its surroundings: nothing
    is normalised by the image.
    """

    @property
    def name(self) -> str:
        """As it is chosen and recorded."""
        ...

    @property
    def type_names(self) -> tuple[str, ...]:
        """Names of the nucleus types, by index; empty where the segmenter has none."""
        ...

    def __call__(self, rgb: ByteArray, mpp: float) -> Segmentation:
        """Nuclei of ``rgb`` (height, width, 3) uint8 at ``mpp`` micrometres per pixel."""
        ...


class Encoder(Protocol):
    """Cell in, vector out. Holds its network; called with many cells at once."""

    @property
    def name(self) -> str:
        """As it is chosen and recorded."""
        ...

    @property
    def n_dimensions(self) -> int:
        """Length d of an embedding."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes an embedding: weights, normalisation, crop rule."""
        ...

    @property
    def standardise(self) -> bool:
        """Whether dimensions have different units, so that clustering must scale them first."""
        ...

    def __call__(self, crops: ByteArray, measurements: FloatArray) -> FloatArray:
        """Embeddings (n, d) float32 of ``crops`` (n, side, side, 3) uint8.

        ``measurements`` (n, m) are those of ``ccrl_wsi.measurement_names``.
        """
        ...
