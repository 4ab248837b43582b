"""How fast the hand-made features of the paper's baselines are: nuclei a second on one core.

    python benchmarks/baseline_features.py

On drawn nuclei of 10 to 40 px. Outlines are traced before the clock starts: a run has them anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from ccrl_wsi.embeddings.manual import Manual
from ccrl_wsi.nuclei.boundary_shapes import measure_boundaries
from ccrl_wsi.nuclei.outlines import trace_outlines

ASKED = 1000
"""Nuclei a second that were asked for."""
N_SIDE, PITCH = 40, 48


def drawn_labels() -> np.ndarray:
    """1,600 ellipses of random size, shape and direction, apart from each other."""
    rng = np.random.default_rng(0)
    labels = np.zeros((N_SIDE * PITCH, N_SIDE * PITCH), np.int32)
    for number in range(N_SIDE**2):
        row, column = divmod(number, N_SIDE)
        centre = (column * PITCH + PITCH // 2, row * PITCH + PITCH // 2)
        axes = tuple(rng.integers(5, 21, 2).tolist())
        cv2.ellipse(labels, centre, axes, rng.uniform(0, 180), 0, 360, number + 1, cv2.FILLED)
    return labels


def report(name: str, n: int, act: Callable[[], object]) -> None:
    """Print the rate of the processor time that ``act`` takes."""
    act()
    start = time.process_time()
    act()
    rate = n / (time.process_time() - start)
    print(
        f"{name:14s} {rate:9,.0f} nuclei/s/core, {rate / ASKED:.1f} times the {ASKED:,} asked for"
    )


def main() -> None:
    """Measure both."""
    cv2.setNumThreads(1)
    outlines = trace_outlines(drawn_labels())
    crops = np.random.default_rng(1).integers(0, 256, (len(outlines), 32, 32, 3), dtype=np.uint8)
    with threadpool_limits(1):
        report("morphological", len(outlines), lambda: measure_boundaries(outlines, 0.25))
        report("manual", len(crops), lambda: Manual()(crops, np.zeros((len(crops), 0))))


if __name__ == "__main__":
    main()
