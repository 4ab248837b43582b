"""Settings with what was left open filled in: as the encoder asks, as the machine allows."""

from __future__ import annotations

from ccrl_wsi.config import Settings
from ccrl_wsi.embeddings.encoders import check_encoder, complete_crops, is_light
from ccrl_wsi.nuclei.segmenters import check_segmenter


def resolved(settings: Settings) -> Settings:
    """The settings with all numbers that decide cells: how crops are cut is as the encoder asks.

    Fingerprints, plans and stores are made of these.

    Raises
    ------
    ConfigError, ModelError
        If there is no such encoder.
    """
    crops = complete_crops(settings.crops, settings.embedding)
    return settings.model_copy(update={"crops": crops})


def check_networks(settings: Settings) -> None:
    """Refuse segmenters and encoders that a run would refuse. Loads none, and needs no slide.

    Raises
    ------
    ConfigError, ModelError
        If there is no such network, or it works at another resolution or with other crops.
    """
    done = resolved(settings)
    check_encoder(done.embedding, done.crops, done.tiles.mpp)
    check_segmenter(done.nuclei, done.tiles.mpp)


def with_device(settings: Settings) -> Settings:
    """``compute.device=auto`` made to cpu where no network runs, or one that is no burden there.

    A GPU would gain little: every core finds nuclei, and workers would share the GPU's memory.
    So a computer with GPUs gives the same bytes as one without.

    Raises
    ------
    ConfigError, ModelError
        If there is no such encoder.
    """
    if settings.compute.device != "auto" or settings.nuclei.segmenter != "watershed":
        return settings
    if not is_light(settings.embedding):
        return settings
    compute = settings.compute.model_copy(update={"device": "cpu"})
    return settings.model_copy(update={"compute": compute})
