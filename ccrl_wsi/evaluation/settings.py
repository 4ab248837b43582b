"""The settings of an evaluation: one frozen tree. Defaults are the paper's protocol on CoNSeP."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ccrl_wsi.config import Section
from ccrl_wsi.data_settings import DataSettings

SPLIT_KINDS = ("consep", "nucls", "crc")
"""Data sets that say themselves which images are for testing."""


class PictureSettings(Section):
    """What is drawn."""

    draw: bool = Field(True, description="Draw anything at all.")
    projection: Literal["pca", "umap"] = Field(
        "pca", description="How embeddings become points; umap needs umap-learn."
    )
    max_points: int = Field(6000, ge=1, description="Cells in the scatter, drawn by seed.")
    per_cluster: int = Field(16, ge=1, description="Crops in the gallery, nearest to the centre.")


class EvaluateSettings(Section):
    """Everything an evaluation can be told."""

    seed: int = Field(0, ge=0, description="Of k-means' starts, samples and random weights.")
    encoders: tuple[str, ...] = Field(
        ("pixels", "morphology", "untrained"),
        description="morphology, pixels, untrained, ccrl, morphological, manual, imagenet, "
        "imagenet50, or checkpoints (.safetensors).",
    )
    imagenet_weights: Path | None = Field(
        None, description="imagenet, imagenet50: local weight file; null: torchvision's download."
    )
    data: DataSettings = Field(
        DataSettings(), description="The images; consep and nucls are split by themselves."
    )
    test_path: Path | None = Field(
        None, description="label_maps, run: folder of the test images; data.path: the training's."
    )
    on_train: bool = Field(
        False,
        description="Fit and score on the training cells only: for choosing settings. "
        "The test images are not read.",
    )
    readings: tuple[Literal["fitted_on_test", "fitted_on_train"], ...] = Field(
        ("fitted_on_test", "fitted_on_train"),
        description="What k-means is fitted on before the test cells are scored.",
    )
    k: int | None = Field(None, ge=2, description="Clusters; null: as many as classes (paper).")
    n_seeds: int = Field(5, ge=1, description="Repetitions of k-means, for mean and sd.")
    n_init: int = Field(10, ge=1, description="Starts of one repetition; the tightest is kept.")
    max_iter: int = Field(300, ge=1, description="Steps of one start at most.")
    pixel_components: int = Field(64, ge=1, description="Principal components of `pixels`.")
    untrained_widths: tuple[int, ...] = Field(
        (64, 128, 256, 512), description="Network of `untrained`: the paper's unless told."
    )
    untrained_stem_stride: int = Field(1, ge=1, le=2, description="Likewise.")
    probes: bool = Field(
        True, description="1-NN and linear probe too; they learn from training labels."
    )
    pictures: PictureSettings = PictureSettings()
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N."
    )
    batch_size: int = Field(1024, ge=1, description="Crops a network takes at once.")

    @property
    def needs_train(self) -> bool:
        """Whether training cells are looked at."""
        return self.on_train or self.probes or "fitted_on_train" in self.readings

    @field_validator("encoders", "readings")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"name at least one, and each once, not {list(names)}")
        return names

    @model_validator(mode="after")
    def _test_images_are_told(self) -> EvaluateSettings:
        if self.data.split != "train":
            raise ValueError(
                "data.split is chosen by the evaluation itself: leave it out; on_train=true looks "
                "at the training images only"
            )
        kind = self.data.kind
        if kind == "bbbc021":
            raise ValueError(
                "bbbc021 is judged by mechanisms of action: `ccrl-wsi profile ENCODER`, then "
                "`ccrl-wsi evaluate --moa` with the profiles"
            )
        if kind in SPLIT_KINDS and self.test_path is not None:
            raise ValueError(f"{kind} has its own test images: leave test_path out")
        unknown = kind not in SPLIT_KINDS and self.test_path is None
        if unknown and self.needs_train and not self.on_train:
            raise ValueError(
                f"{kind} does not say which images are for testing. Set test_path to the folder of "
                "the test images; or, with one folder only, readings=[fitted_on_test] and "
                "probes=false"
            )
        return self
