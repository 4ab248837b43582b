"""How fast the QuPath overlay is written, beside ``json.dumps`` of the same features.

Run as ``python benchmarks/geojson_speed.py [N_CELLS]``. One core.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ccrl_wsi.outputs.geojson import OverlayChunk, OverlayClass, OverlayOptions, write_overlay
from ccrl_wsi.records import Outlines
from ccrl_wsi.store import cell_uuids

CORNERS = 32
NAMES = ("CCRL cluster", "CCRL distance", "Nucleus: Area µm^2", "Detection probability")


def draw_chunk(n: int) -> OverlayChunk:
    """``n`` round nuclei with 32 corners each."""
    rng = np.random.default_rng(0)
    centre = rng.uniform(100, 80000, (n, 2))
    angle = np.linspace(0, 2 * np.pi, CORNERS + 1)[:-1]
    radius = rng.uniform(12, 16, (n, CORNERS, 1))
    ring = centre[:, None] + radius * np.column_stack([np.cos(angle), np.sin(angle)])
    closed = np.round(np.concatenate([ring, ring[:, :1]], axis=1), 2)
    start = np.arange(n + 1, dtype=np.int64) * (CORNERS + 1)
    return OverlayChunk(
        cell_uuids("benchmark", centre, radius[:, 0, 0]),
        Outlines(closed.reshape(-1, 2), start),
        centre,
        rng.integers(0, 8, n),
        {name: rng.uniform(0, 10, n) for name in NAMES},
    )


def main(n: int) -> None:
    """Print cells per second of both, and their ratio."""
    classes = tuple(OverlayClass(f"C{i:02d}", (31, 119, 180)) for i in range(8))
    options = OverlayOptions(n, classes)
    chunk = draw_chunk(n)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        (path,) = write_overlay(Path(folder), "slide", [chunk], options)
        ours = n / (time.perf_counter() - begin)
        size = path.stat().st_size
        document = json.loads(gzip.decompress(path.read_bytes()))
        begin = time.perf_counter()
        Path(folder, "plain.geojson").write_text(json.dumps(document, indent=2))
        theirs = n / (time.perf_counter() - begin)
    print(f"write_overlay (gzip)   {ours:10,.0f} cells/s, {size / n:.0f} bytes a cell")
    print(f"json.dumps(indent=2)   {theirs:10,.0f} cells/s (features already built)")
    print(f"ratio                  {ours / theirs:10.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
