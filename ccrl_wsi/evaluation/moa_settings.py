"""The settings of an evaluation by mechanism of action. Defaults: the protocol on BBBC021."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ccrl_wsi.config import Positive, Section


class ColumnSettings(Section):
    """Which columns of the table say what; null: recognised by the usual names, in any case."""

    plate: str | None = Field(None, description="Such as Metadata_Plate, Image_Metadata_Plate.")
    well: str | None = Field(None, description="Such as Metadata_Well.")
    batch: str | None = Field(
        None, description="Such as Metadata_Batch; without one, the plate's name up to its first _."
    )
    compound: str | None = Field(None, description="Such as Metadata_Compound.")
    concentration: str | None = Field(None, description="Such as Metadata_Concentration.")
    mechanism: str | None = Field(None, description="Such as Metadata_moa.")


class CleanUpSettings(Section):
    """The usual clean-up of measured features."""

    within: Literal["all", "batch", "plate"] = Field(
        "all",
        description="Whose controls features are standardised by. A plate of BBBC021 has 6 control "
        "wells in the profiles of 2013, too few for a median deviation.",
    )
    scaling: Literal["mad", "sd"] = Field(
        "mad", description="Median and median absolute deviation, or mean and standard deviation."
    )
    largest: Positive = Field(
        500.0, description="A feature beyond so many spreads of the controls is left out."
    )
    largest_correlation: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="Of two features that correlate more closely, one is left out."
    )


class MoaSettings(Section):
    """Everything an evaluation by mechanism can be told."""

    data: Path | None = Field(
        None,
        description="Folder with BBBC021_v1_image.csv and BBBC021_v1_moa.csv: what each well was "
        "treated with, and the mechanisms. Needed if the table does not say it.",
    )
    columns: ColumnSettings = ColumnSettings()
    control: str = Field("DMSO", min_length=1, description="Compound of the control wells.")
    cells_to_wells: Literal["mean", "median"] = Field(
        "mean", description="Of tables with several rows a well."
    )
    wells_to_treatments: Literal["mean", "median"] = Field(
        "median", description="As in the published protocol."
    )
    tvn: bool = Field(True, description="Score with typical variation normalisation as well.")
    ridge: float = Field(
        1.0, ge=0, description="Added to variances by the normalisation; 1 as published."
    )
    clean_up: CleanUpSettings = CleanUpSettings()
    same_batch: Literal["identical", "shared"] = Field(
        "identical",
        description="NSCB: treatments of several batches share one if the lists are identical, as "
        "published, or if any batch is in both (stricter). The same on profiles with one batch a "
        "treatment, such as those of 2013.",
    )
