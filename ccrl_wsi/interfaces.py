"""What can be exchanged: readers, segmenters and encoders, as protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.device_work import TileOnGpu
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


Maps: TypeAlias = Mapping[str, np.ndarray]
"""What a network says of each pixel of an image, by name: each (height, width, ...)."""


class Prediction(Protocol):
    """Maps of one image that a device may still be working on."""

    @property
    def tile(self) -> TileOnGpu | None:
        """The image's pixels, where a GPU still has them; None on CPU cores."""
        ...

    def wait(self) -> Maps:
        """The maps, as soon as they are there. May be called from any thread.

        When a GPU was at them is told to who listens there (``device_work.listening``).
        """
        ...


@runtime_checkable
class NetworkSegmenter(Segmenter, Protocol):
    """A segmenter in two parts, for a device that shall not wait for the host.

    Calling it is one part after the other: ``segment(predict(rgb, mpp).wait())``.
    """

    @property
    def device(self) -> str:
        """Where the network is, as PyTorch names it."""
        ...

    def predict(self, rgb: ByteArray, mpp: float) -> Prediction:
        """The network's part. Returns before a GPU has done it."""
        ...

    def segment(self, maps: Maps) -> Segmentation:
        """The host's part. May be called from several threads at once."""
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
