"""The segmenters, by name."""

from __future__ import annotations

import hashlib

from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.interfaces import Segmenter

SEGMENTERS = (
    "hovernet_fast-pannuke",
    "hovernet_fast-monusac",
    "hovernet_original-consep",
    "hovernet_original-kumar",
    "watershed",
)


def make_segmenter(settings: NucleiSettings, device: str) -> Segmenter:
    """The segmenter ``settings.segmenter`` names, with its network on ``device``.

    Raises
    ------
    ConfigError
        If no segmenter has that name.
    ModelError
        If its weights or its code cannot be loaded.
    """
    name = settings.segmenter
    if name == "watershed":
        from ccrl_wsi.nuclei.watershed import Watershed

        return Watershed(settings.watershed)
    if name in SEGMENTERS:
        from ccrl_wsi.nuclei.hovernet import load_hovernet

        return load_hovernet(settings, device)
    if ":" in name:
        from ccrl_wsi.nuclei.modelabc import load_modelabc

        return load_modelabc(settings, device)
    raise ConfigError(
        f"nuclei.segmenter={name}: choose {', '.join(SEGMENTERS)}, "
        "or package.module:Class of a TIAToolbox ModelABC."
    )


def segmenter_fingerprint(settings: NucleiSettings) -> str:
    """Changes with the segmenter's name and with the content of a local weight file.

    Raises
    ------
    ModelError
        If the weight file cannot be read.
    """
    if settings.weights is None:
        return settings.segmenter
    try:
        with settings.weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"Cannot read the weight file {settings.weights}: {error.strerror}. "
            "Check --set nuclei.weights=FILE."
        ) from error
    return f"{settings.segmenter} {digest[:16]}"
