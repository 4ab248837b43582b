"""How fast the QuPath overlay is written, beside ``json.dumps`` of the same features.

    python benchmarks/geojson_speed.py [--cells N]         # half a minute

``write_overlay`` turns outlines, ids, classes and four measurements into packed GeoJSON;
``json.dumps`` is given features that are built already, with and without packing. Core-seconds,
medians of turns.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from measured import Table, in_turns

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


def main() -> None:
    """Print cells per core-second of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=50_000)
    n = parser.parse_args().cells
    options = OverlayOptions(n, tuple(OverlayClass(f"C{i:02d}", (31, 119, 180)) for i in range(8)))
    chunk = draw_chunk(n)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (path,) = write_overlay(folder, "slide", [chunk], options)
        document = json.loads(gzip.decompress(path.read_bytes()))
        works = {
            "write_overlay, packed": lambda: write_overlay(folder, "slide", [chunk], options),
            "json.dumps": lambda: (folder / "plain").write_text(json.dumps(document)),
            "json.dumps, packed by zlib at level 1": lambda: (folder / "packed").write_bytes(
                gzip.compress(json.dumps(document).encode(), 1)
            ),
        }
        found = {k: median(v) for k, v in in_turns(works, clock=time.process_time).items()}
        files = (path, folder / "plain", folder / "packed")
        sizes = [file.stat().st_size / n for file in files]
    table = Table(
        f"Overlay of {n:,} cells with {CORNERS} corners",
        ("path", "cells per core-s", "ours is faster by", "bytes a cell"),
    )
    ours = found["write_overlay, packed"]
    for (what, seconds), size in zip(found.items(), sizes, strict=True):
        table.row(what, float(n / seconds), seconds / ours, float(size))
    table.publish("geojson_speed")


if __name__ == "__main__":
    main()
