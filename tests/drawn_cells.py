"""Cells with known values, for tests of what is done with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ccrl_wsi.geometry import Box
from ccrl_wsi.records import Cells, Outlines, SlideInfo
from ccrl_wsi.store import StoreDescription

MEASUREMENTS = ("perimeter_um", "solidity")
TYPES = ("background", "neoplastic", "inflammatory")


def draw_cells(n, *, seed=0, n_dimensions=4, crop_side=0, extent_px=20000.0):
    """``n`` cells with polygons of 8 to 24 corners around random centres."""
    rng = np.random.default_rng(seed)
    centroid = rng.uniform(20, extent_px, (n, 2))
    outlines = draw_outlines(centroid, rng)
    side = crop_side or 8
    return Cells(
        centroid_px=centroid,
        outlines=outlines,
        area_um2=rng.uniform(10, 200, n).astype(np.float32),
        probability=rng.uniform(0, 1, n).astype(np.float32),
        nucleus_type=rng.integers(0, len(TYPES), n).astype(np.int16),
        type_probability=np.full(n, np.nan, np.float32),
        is_clipped=rng.random(n) < 0.1,
        tile=rng.integers(0, 9, (n, 2)).astype(np.int32),
        measurements=rng.normal(size=(n, len(MEASUREMENTS))).astype(np.float32),
        embedding=rng.normal(size=(n, n_dimensions)).astype(np.float32),
        crops=rng.integers(0, 255, (n if crop_side else 0, side, side, 3)).astype(np.uint8),
    )


def draw_outlines(centroid, rng):
    """One star-shaped closed ring around each of the (n, 2) centres, to two decimals."""
    corners = rng.integers(8, 25, len(centroid))
    rings = []
    for centre, k in zip(centroid, corners, strict=True):
        angle = np.linspace(0, 2 * np.pi, k, endpoint=False)
        radius = rng.uniform(9, 12, k)[:, None]
        ring = centre + radius * np.column_stack([np.cos(angle), np.sin(angle)])
        rings.append(np.round(np.vstack([ring, ring[:1]]), 2))
    start = np.concatenate([[0], np.cumsum([len(r) for r in rings])]).astype(np.int64)
    return Outlines(np.concatenate(rings) if rings else np.zeros((0, 2)), start)


def describe_store(slide_id="S01", **changes):
    """A description that fits :func:`draw_cells`."""
    slide = SlideInfo(
        path=Path("slides") / f"{slide_id}.svs",
        slide_id=slide_id,
        mpp=0.25,
        width_px=30000,
        height_px=30000,
        bounds_px=Box(0, 0, 30000, 30000),
        level_downsamples=(1.0, 4.0),
        vendor="aperio",
        content_key="abc123",
    )
    values = {
        "slide": slide,
        "fingerprint": "f00d",
        "measurement_names": MEASUREMENTS,
        "type_names": TYPES,
        "segmenter": "watershed",
        "encoder": "morphology",
        "encoder_fingerprint": "beef",
        "mpp": 0.25,
        "settings": {"tiles": {"mpp": 0.25}},
        "versions": {"python": "3.11"},
    }
    return StoreDescription(**{**values, **changes})
