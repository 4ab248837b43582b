"""What a worker opens or loads once and then keeps: readers, masks and networks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ccrl_wsi.config import Settings
from ccrl_wsi.interfaces import Encoder, Segmenter, SlideReader
from ccrl_wsi.records import SlideInfo

if TYPE_CHECKING:
    from ccrl_wsi.slides.tissue import Tissue


@lru_cache(maxsize=4)
def reader_of(info: SlideInfo) -> SlideReader:
    """The open slide."""
    from ccrl_wsi.slides.openslide_reader import OpenSlideReader

    return OpenSlideReader(info)


@lru_cache(maxsize=4)
def tissue_of(path: Path) -> Tissue:
    """The tissue mask the driver wrote."""
    from ccrl_wsi.slides.tissue import Tissue

    return Tissue.from_npz(path)


@lru_cache(maxsize=1)
def segmenter_of(settings: Settings) -> Segmenter:
    """The segmenter, on the device asked for."""
    from ccrl_wsi.nuclei.segmenters import make_segmenter

    return make_segmenter(settings.nuclei, settings.compute.device)


@lru_cache(maxsize=1)
def encoder_of(settings: Settings) -> Encoder:
    """The encoder, on the device asked for."""
    from ccrl_wsi.embeddings.encoders import make_encoder

    return make_encoder(settings.embedding, settings.compute.device)
