"""How the cohort's cells are grouped: a section of :mod:`ccrl_wsi.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ccrl_wsi.section import Section


class AutoKSettings(Section):
    """How clusters.k=auto chooses."""

    k_min: int = Field(
        3,
        ge=2,
        le=30,
        description="Fewest clusters to choose from; two often tell small nuclei from large only.",
    )
    k_max: int = Field(15, ge=2, le=30, description="Most clusters to choose from.")
    resamples: int = Field(10, ge=2, description="How often the sample is split to compare fits.")
    cells: int = Field(9000, ge=10, description="Cells of the sample that are compared.")
    min_stability: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Adjusted Rand index of fits on halves that is good (Steinley 2004).",
    )

    @model_validator(mode="after")
    def _range_is_a_range(self) -> AutoKSettings:
        if self.k_min > self.k_max:
            raise ValueError(f"clusters.auto.k_min={self.k_min} is more than k_max={self.k_max}")
        return self


class ClusterSettings(Section):
    """How the cohort's cells are grouped."""

    k: int | Literal["auto"] = Field(
        8, description="Number of clusters, 2 to 30; auto: chosen by stability and silhouette."
    )
    auto: AutoKSettings = AutoKSettings()
    centre_slides: bool = Field(
        False, description="Take each slide's mean from its embeddings first, against stain."
    )
    balance_groups: bool = Field(
        True, description="Slides' groups, where given, give alike many cells to the fit."
    )
    sample_per_slide: int = Field(20000, ge=1, description="Cells of a slide used to fit.")
    sample_in_all: int = Field(400_000, ge=1, description="Cells of the cohort used to fit.")
    n_init: int = Field(10, ge=1, description="Starts of k-means; the best is kept.")
    max_iter: int = Field(300, ge=1, description="Steps of one start at most.")
    standardise: Literal["auto", "yes", "no"] = Field(
        "auto", description="Scale dimensions to unit variance first; auto: as the encoder asks."
    )
    codebook: Path | None = Field(None, description="Apply this codebook instead of fitting.")

    @field_validator("k", mode="before")
    @classmethod
    def _k_is_a_number_or_auto(cls, value: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool) and 2 <= value <= 30
        if not (is_number or value == "auto"):
            raise ValueError(f"clusters.k must be 2 to 30, or auto; it is {value!r}")
        return value

    @field_validator("standardise", mode="before")
    @classmethod
    def _yes_is_a_word(cls, value: Any) -> Any:
        # YAML, which --set speaks too, reads yes and no without quotes as true and false.
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
