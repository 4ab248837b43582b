"""Slides of drawn cells without pixels: what benchmarks of stores, clusters and overlays share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ccrl_wsi.geometry import Box
from ccrl_wsi.parts import write_part
from ccrl_wsi.records import Cells, Outlines, SlideInfo
from ccrl_wsi.store import StoreDescription, assemble_store

N_DIMENSIONS, CORNERS, PART = 193, 24, 25_000
SIDE_PX = 200_000
MEASURED = ("eccentricity", "haematoxylin_mean")


def draw_cells(n: int, seed: int) -> Cells:
    """``n`` round nuclei anywhere on a large slide, in eight loose groups of embeddings."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(100, SIDE_PX - 200, (n, 2))
    angle = np.linspace(0, 2 * np.pi, CORNERS + 1)
    ring = centre[:, None] + 14 * np.column_stack([np.cos(angle), np.sin(angle)])
    ring[:, -1] = ring[:, 0]
    unknown = np.full(n, np.nan, np.float32)
    middles = np.random.default_rng(7).normal(size=(8, N_DIMENSIONS))
    embedding = rng.standard_normal((n, N_DIMENSIONS), np.float32)
    embedding += middles[rng.integers(0, 8, n)].astype(np.float32)
    return Cells(
        centroid_px=centre,
        outlines=Outlines(
            np.round(ring.reshape(-1, 2), 2), np.arange(n + 1, dtype=np.int64) * (CORNERS + 1)
        ),
        area_um2=rng.uniform(20, 90, n).astype(np.float32),
        probability=unknown,
        nucleus_type=np.zeros(n, np.int16),
        type_probability=unknown,
        is_clipped=np.zeros(n, np.bool_),
        tile=np.zeros((n, 2), np.int32),
        measurements=rng.standard_normal((n, len(MEASURED)), np.float32),
        embedding=embedding,
        crops=np.zeros((0, 32, 32, 3), np.uint8),
    )


def draw_parts(folder: Path, slide_id: str, n: int) -> list[Path]:
    """What the partitions of a slide of ``n`` cells leave."""
    parts = []
    for number, start in enumerate(range(0, n, PART)):
        parts.append(folder / f"{slide_id}-{number:05d}.npz")
        write_part(parts[-1], draw_cells(min(PART, n - start), number), {"fingerprint": "f"})
    return parts


def assemble(folder: Path, slide_id: str) -> Path:
    """The store of the slide whose parts lie in ``folder``."""
    whole = Box(0, 0, SIDE_PX, SIDE_PX)
    slide = SlideInfo(
        Path(f"{slide_id}.svs"), slide_id, 0.25, SIDE_PX, SIDE_PX, whole, (1.0,), "", slide_id
    )
    described = StoreDescription(
        slide, "f", MEASURED, (), "none", "drawn", "e", 0.25,
        notes={"patient": slide_id, "group": None},
    )  # fmt: skip
    store = folder / f"{slide_id}.zarr"
    assemble_store(store, sorted(folder.glob(f"{slide_id}-*.npz")), described)
    return store
