"""Which settings decide cells, which decide clusters and overlays, and a hash of the first."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ccrl_wsi.config import Settings

CELL_SECTIONS = ("tissue", "tiles", "nuclei", "crops", "embedding")
"""The sections that decide which cells there are and what their vectors are."""

NOT_IN_CELLS = {
    "tissue": ("regions",),
    "tiles": ("align_to_file",),
    "nuclei": ("weights", "batch_size"),
    "embedding": ("encoder", "weights", "batch_size", "precision"),
}
"""Of those, what does not: batches, and what is asked of the slide or the file instead."""

CELLS_VERSION = 1
"""Raised when the same settings give other cells, so that old and new ones are never mixed."""


def cell_settings(settings: Settings) -> dict[str, Any]:
    """The settings that decide which cells there are and what their vectors are, as plain JSON.

    The pixel size, cores aligned to a file's tiles, drawn regions and networks are not among them:
    a slide's identity and the models' fingerprints hold their content.
    """
    tree = settings.model_dump(mode="json")
    kept = {name: tree[name] for name in CELL_SECTIONS}
    for section, names in NOT_IN_CELLS.items():
        for name in names:
            del kept[section][name]
    # What suits the device changes rounding only: results of the earlier default stay valid.
    kept["nuclei"]["window_px"] = kept["nuclei"]["window_px"] or 1024
    return {"version": CELLS_VERSION, **kept}


def late_settings(settings: Settings) -> dict[str, Any]:
    """The settings that decide clusters and overlays, as plain JSON."""
    return settings.model_dump(mode="json", include={"seed", "clusters", "overlay"})


def fingerprint(settings: Settings, extra: str = "") -> str:
    """Sixteen hex digits that change with any of :func:`cell_settings`, and with ``extra``.

    Raises
    ------
    ValueError
        If the crops' rule is left to the encoder: it must be among what is hashed.
    """
    _ = settings.crops.rule
    text = json.dumps([cell_settings(settings), extra], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
