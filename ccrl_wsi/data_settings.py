"""Which nuclei to learn from or to be judged on: settings that training and evaluation share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from ccrl_wsi.config import Positive, Section


class DataSettings(Section):
    """Which nuclei. The form of the files is told, never guessed."""

    kind: Literal["consep", "nucls", "crc", "label_maps", "run", "bbbc021"] = Field(
        "consep",
        description="consep; nucls: corrected single-rater; crc: CRCHistoPhenotypes, whose nuclei "
        "are points, each taken for a disc of 13.5 px; label_maps: images/ and labels/; "
        "run: crops that `ccrl-wsi run --set crops.keep=true` kept; bbbc021: fields of cultured "
        "cells in three channels.",
    )
    path: Path = Field(Path("data/consep"), description="The folder that was unpacked.")
    split: Literal["train", "test", "all"] = Field(
        "train", description="consep, nucls, crc: which part."
    )
    classes: Literal["merged", "official"] = Field(
        "merged",
        description="consep: whether type_map holds the 4 merged classes or the 7 of the release, "
        "which are merged on reading.",
    )
    fold: int = Field(1, ge=1, le=5, description="nucls: the official fold, by hospital.")
    mpp: Positive | None = Field(
        None, description="Um per pixel of the images; needed by label_maps, else the data set's."
    )
    scale: Positive = Field(2.0, description="Window side / long side of the nucleus' box.")
    size_px: int = Field(32, ge=8, description="Side of the crop after resizing.")
    shapes: bool = Field(
        False, description="Measure the boundaries too: the evaluation of `morphological` asks."
    )
    max_per_slide: int | None = Field(
        None, ge=1, description="run, bbbc021: at most so many cells of a slide or field, by seed."
    )
    fields: Literal["labelled", "all"] = Field(
        "labelled",
        description="bbbc021: fields of controls and of treatments with a known mechanism, or all.",
    )
    illumination: bool = Field(True, description="bbbc021: make the light of each plate even.")
    nucleus_px: Positive = Field(
        36.0,
        description="bbbc021: diameter of a typical nucleus, where locations are not given; 36 is "
        "that of the profiles of 2013 (area 1,020 px).",
    )
    cache: Path | None = Field(
        None, description="Folder for crops once cut, so that a second run starts at once."
    )
