"""What a worker opens or loads once and then keeps: readers, masks and networks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from ccrl_wsi.config import EmbeddingSettings, NucleiSettings, Settings
from ccrl_wsi.interfaces import Encoder, Segmenter, SlideReader
from ccrl_wsi.records import SlideInfo

if TYPE_CHECKING:
    from ccrl_wsi.slides.tissue import Tissue


@lru_cache(maxsize=4)
def reader_of(info: SlideInfo) -> SlideReader:
    """The open slide."""
    from ccrl_wsi.slides.openslide_reader import OpenSlideReader

    return OpenSlideReader(info)


def tissue_of(path: Path) -> Tissue:
    """The tissue mask the driver wrote."""
    return _tissue(path, _stamp(path))


def segmenter_of(settings: Settings) -> Segmenter:
    """The segmenter, on the device asked for."""
    from ccrl_wsi.nuclei.segmenters import weight_file

    stamp = _stamp(weight_file(settings.nuclei))
    with _LOADING:
        return _segmenter(settings.nuclei, settings.compute.device, stamp, settings.compute.compile)


def encoder_of(settings: Settings) -> Encoder:
    """The encoder, on the device asked for."""
    from ccrl_wsi.embeddings.encoders import encoder_file

    file = encoder_file(settings.embedding.encoder) or settings.embedding.weights
    stamp = (0, 0) if file is None else _stamp(file)
    with _LOADING:
        return _encoder(settings.embedding, settings.compute.device, stamp)


_LOADING = Lock()
"""Threads of a worker share its networks: the first loads, the others wait."""


def _stamp(file: Path) -> tuple[int, int]:
    """Changes when a file is replaced: a worker may outlive many runs."""
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4)
def _tissue(path: Path, stamp: tuple[int, int]) -> Tissue:
    from ccrl_wsi.slides.tissue import Tissue

    return Tissue.from_npz(path)


@lru_cache(maxsize=1)
def _segmenter(
    settings: NucleiSettings, device: str, stamp: tuple[int, int], compiled: bool
) -> Segmenter:
    from ccrl_wsi.nuclei.segmenters import make_segmenter

    return make_segmenter(settings, device, compiled=compiled)


@lru_cache(maxsize=1)
def _encoder(settings: EmbeddingSettings, device: str, stamp: tuple[int, int]) -> Encoder:
    from ccrl_wsi.embeddings.encoders import make_encoder

    return make_encoder(settings, device)
