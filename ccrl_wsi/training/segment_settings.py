"""The settings of a segmenter's training: one frozen tree, like those of a run and of an encoder.

What the settings of an encoder's training call alike means the same here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ccrl_wsi.config import Positive, Section
from ccrl_wsi.training.settings import (
    Range,
    ScheduleSettings,
    Share,
    TrainComputeSettings,
    Width,
)


class FieldSourceSettings(Section):
    """A folder of images in which nuclei are drawn. The form of the files is told, not guessed."""

    kind: Literal["tnbc", "monuseg", "consep", "label_maps"] = Field(
        "label_maps",
        description="tnbc: Slide/ and Masks/; monuseg: images/ and labels/; consep: Train/ and "
        "Test/ with .mat files; label_maps: anybody's images/ and labels/, maybe unsure/.",
    )
    path: Path = Field(Path("data/labels"), description="The folder that was unpacked.")
    only: tuple[str, ...] = Field(
        (), description="Names without suffix to take, such as 01_* for a patient; none: all."
    )
    without: tuple[str, ...] = Field((), description="Names of images to leave out, likewise.")
    split: Literal["train", "test", "all"] = Field("all", description="consep: which part.")
    mpp: Positive | None = Field(
        None, description="Um per pixel of the images; needed by label_maps, else the data set's."
    )
    licence: str = Field("", description="Of images and labels, recorded in the segmenter.")


class FieldDataSettings(Section):
    """What is learned from, and what it is measured on."""

    sources: tuple[FieldSourceSettings, ...] = Field(
        (FieldSourceSettings(),), min_length=1, description="Images to learn from."
    )
    validation: tuple[FieldSourceSettings, ...] = Field(
        (), description="Images to score the finished segmenter on; never learned from."
    )
    field_px: int = Field(
        384, ge=64, multiple_of=8, description="Images are cut into squares of this side."
    )
    least_px: int = Field(
        12, ge=1, description="Nuclei of fewer pixels are slips of the pen, or cut by the edge."
    )


class SegmentNetworkSettings(Section):
    """The network."""

    widths: tuple[Width, Width, Width] = Field(
        (32, 64, 128), description="Channels at steps of 2, 4 and 8 pixels."
    )
    mpp: Positive = Field(0.25, description="Resolution it works at, um per pixel.")


class FieldViewSettings(Section):
    """How views are cut from fields, and how their colours are changed."""

    side_px: int = Field(256, ge=64, multiple_of=8, description="Side of a view.")
    zoom: Range = Field((0.75, 1.4), description="Nuclei are made larger by this factor.")
    stretch: float = Field(
        1.2, ge=1, description="One side against the other by up to this factor."
    )
    p_stain: Share = Field(0.9, description="Share of views whose stain densities are changed.")
    stain_sigma: float = Field(
        0.3, ge=0, lt=1, description="Of three stains, each density times 1 +- this (HED)."
    )
    p_jitter: Share = 0.8
    brightness: float = Field(0.25, ge=0, lt=1, description="Factor 1 - x to 1 + x.")
    contrast: float = Field(0.3, ge=0, lt=1, description="Likewise.")
    saturation: float = Field(0.3, ge=0, lt=1, description="Likewise.")
    hue: float = Field(0.05, ge=0, le=0.5, description="Shift of -x to x turns.")
    p_grey: Share = 0.05
    p_blur: Share = 0.4
    blur_px: Range = Field((0.3, 1.6), description="Sigma of the blur.")
    p_noise: Share = 0.3
    noise: float = Field(0.04, ge=0, description="Standard deviation of noise, up to this.")


class SegmentLossSettings(Section):
    """What maps are asked to be."""

    dice_weight: float = Field(1.0, ge=0, description="Of the overlap, beside the cross entropy.")
    depth_weight: float = Field(
        4.0, ge=0, description="Of the error of the distance to the nucleus' own edge."
    )
    offset_weight: float = Field(
        2.0, ge=0, description="Of the error of the place relative to the nucleus' centre."
    )


class SegmentScheduleSettings(ScheduleSettings):
    """Optimiser and time."""

    epochs: Positive = Field(200, description="Passes over the fields.")
    batch_size: int = Field(16, ge=1, description="Views of a step, of all processes together.")
    learning_rate: Positive = 2e-3
    weight_decay: float = Field(1e-5, ge=0)
    warmup_epochs: float = Field(4, ge=0, description="The rate rises from 0; below epochs.")
    balance: Literal["none", "slides"] = Field(
        "slides", description="slides: every slide or patient is drawn from equally often."
    )


class SegmentExportSettings(Section):
    """The segmenter that comes out."""

    name: str = Field("compact", min_length=1, description="As it is called in results.")
    half: bool = Field(True, description="Store 16-bit weights: half the file.")
    average: float = Field(
        0.995,
        ge=0,
        lt=1,
        description="Weights that are kept: a running mean over steps with this memory.",
    )


class SegmentTrainSettings(Section):
    """Everything the training of a segmenter can be told."""

    seed: int = Field(0, ge=0)
    data: FieldDataSettings = FieldDataSettings()
    network: SegmentNetworkSettings = SegmentNetworkSettings()
    views: FieldViewSettings = FieldViewSettings()
    loss: SegmentLossSettings = SegmentLossSettings()
    schedule: SegmentScheduleSettings = SegmentScheduleSettings()
    export: SegmentExportSettings = SegmentExportSettings()
    compute: TrainComputeSettings = TrainComputeSettings()

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> SegmentTrainSettings:
        for name, (low, high) in (("zoom", self.views.zoom), ("blur_px", self.views.blur_px)):
            if not 0 < low <= high:
                raise ValueError(f"views.{name}: give two numbers above 0, the smaller first")
        if self.schedule.warmup_epochs >= self.schedule.epochs:
            raise ValueError(
                f"schedule.warmup_epochs={self.schedule.warmup_epochs:g} leaves nothing of "
                f"schedule.epochs={self.schedule.epochs:g}: lower the first or raise the second"
            )
        return self
