"""The segmenters, by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.devices import resolve_device
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.interfaces import Segmenter
from ccrl_wsi.nuclei.weights import cached_weights

SEGMENTERS = (
    "hovernet_fast-pannuke",
    "hovernet_fast-monusac",
    "hovernet_original-consep",
    "hovernet_original-kumar",
    "compact",
    "watershed",
)

WITHOUT_DOWNLOAD = ("compact", "watershed")
"""The segmenters that are there after the installation, and meant for CPU cores."""


def make_segmenter(settings: NucleiSettings, device: str, *, compiled: bool = False) -> Segmenter:
    """The segmenter ``settings.segmenter`` names, with its network on ``device`` (or ``auto``).

    The networks of ``compact`` and HoVer-Net may be ``compiled``.

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
    if name == "compact":
        from ccrl_wsi.nuclei.compact import load_compact

        return load_compact(settings, resolve_device(device), compiled=compiled)
    if name in SEGMENTERS:
        from ccrl_wsi.nuclei.hovernet import load_hovernet

        return load_hovernet(settings, resolve_device(device), compiled=compiled)
    if ":" in name:
        from ccrl_wsi.nuclei.modelabc import load_modelabc

        return load_modelabc(settings, resolve_device(device))
    raise ConfigError(_no_such_segmenter(name))


def _no_such_segmenter(name: str) -> str:
    return (
        f"nuclei.segmenter={name}: choose {', '.join(SEGMENTERS)}, "
        "or package.module:Class of a TIAToolbox ModelABC."
    )


def check_segmenter(settings: NucleiSettings, mpp: float) -> None:
    """Find out, before any slide is opened, whether the segmenter works at ``mpp``.

    Raises
    ------
    ConfigError
        If no segmenter has that name, or its network was trained at another resolution.
    ModelError
        If the weights of ``compact`` cannot be read.
    """
    if settings.segmenter not in SEGMENTERS and ":" not in settings.segmenter:
        raise ConfigError(_no_such_segmenter(settings.segmenter))
    if settings.segmenter == "compact":
        from ccrl_wsi.nuclei.compact import check_compact

        check_compact(settings, mpp)
    elif settings.segmenter in SEGMENTERS and settings.segmenter != "watershed":
        from ccrl_wsi.nuclei.hovernet import check_mpp

        check_mpp(settings.segmenter, mpp)


def weight_file(settings: NucleiSettings) -> Path:
    """Where the weights lie that ``settings`` mean, or would lie if there were any."""
    if settings.weights is not None:
        return settings.weights
    if settings.segmenter == "compact":
        from ccrl_wsi.nuclei.compact import BUNDLED

        return BUNDLED
    return cached_weights(settings.segmenter)


def segmenter_fingerprint(settings: NucleiSettings) -> str:
    """Changes with the segmenter's name and with the content of its weight file.

    Asked for after the segmenter was made, so that a download has happened by then.

    Raises
    ------
    ModelError
        If the weight file cannot be read.
    """
    weights = weight_file(settings)
    if settings.weights is None and not weights.is_file():
        return settings.segmenter
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"Cannot read the weight file {weights}: {error.strerror}. "
            "Check --set nuclei.weights=FILE."
        ) from error
    return f"{settings.segmenter} {digest[:16]}"
