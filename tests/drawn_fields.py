"""Small labelled images for the training of segmenters."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide
from ccrl_wsi.training.field_set import FieldSet, cut_fields
from ccrl_wsi.training.segment_settings import SegmentTrainSettings

SMALL = (
    "network.widths=[8, 8, 16]",
    "data.field_px=64",
    "views.side_px=64",
    "schedule.batch_size=4",
    "schedule.epochs=2",
    "schedule.warmup_epochs=0.5",
    "compute.precision=float32",
    "compute.device=cpu",
)


def small_settings(*overrides: str, **tree) -> SegmentTrainSettings:
    """Settings for seconds of training."""
    return load_tree(SegmentTrainSettings, [], [*SMALL, *overrides], tree)


def drawn_image(seed=0, side_px=128, n_nuclei=14):
    """RGB and labels of a piece of drawn tissue at 0.25 um per pixel."""
    spec = DrawnSlideSpec(width_px=side_px, height_px=side_px, n_nuclei=n_nuclei, seed=seed)
    drawn = draw_slide(spec)
    return drawn.rgb, drawn.labels


def drawn_fields(n=2, side_px=64) -> FieldSet:
    """Fields of ``n`` drawn images."""
    parts = [
        cut_fields(*drawn_image(seed), 0.25, f"image {seed}", side_px=side_px) for seed in range(n)
    ]
    return FieldSet.concat(parts)


def save_label_maps(folder: Path, names, **more) -> Path:
    """A folder of label maps with one drawn image a name."""
    for number, name in enumerate(names):
        rgb, labels = drawn_image(number, **more)
        for kind, image in (("images", rgb[..., ::-1]), ("labels", labels.astype(np.uint16))):
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), image)
    return folder
