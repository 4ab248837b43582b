"""The course of a training as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ccrl_wsi.arrays import FloatArray

PANELS = {
    "loss": "Loss",
    "dice": "Dice: overlap of found and drawn pixels of a batch",
    "alignment": "Alignment: cosine of a query and its key",
    "uniformity": "Uniformity: log potential of all pairs",
    "spread": "Collapse: sd of a dimension (0: collapsed)",
}
"""Columns of the metrics that are drawn where they are found, and what they are called."""


def draw_curves(metrics: Mapping[str, FloatArray], path: Path) -> None:
    """Write a PNG of loss and what else of ``PANELS`` was measured, over epochs.

    Parameters
    ----------
    metrics
        What :func:`ccrl_wsi.training.metric_log.read_metrics` gave. Columns that are not there
        have no panel.
    path
        The picture; its folder is made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in PANELS if name in metrics]
    # Without pyplot: its figures would outlive us, and its backend is the user's to choose.
    figure = Figure(figsize=(4.5 * max(len(names), 1), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), number)
        epoch, values = metrics["epoch"], metrics[name]
        known = np.isfinite(values)
        mark = "o" if known.sum() < 2 else ""
        axes.plot(epoch[known], values[known], marker=mark, color="#1f4e79", linewidth=1.2)
        axes.set_title(PANELS[name], fontsize=10)
        axes.set_xlabel("Epoch")
        axes.grid(visible=True, alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    figure.savefig(unfinished, format="png", dpi=110)
    unfinished.replace(path)
