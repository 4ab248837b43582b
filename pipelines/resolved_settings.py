"""Settings with what was left open filled in: as the encoder asks, as the machine allows."""

from __future__ import annotations

from ccrl_wsi.config import Settings
from ccrl_wsi.embeddings.encoders import complete_crops, is_light


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
