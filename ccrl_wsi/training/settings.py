"""The settings of a training: one frozen tree, like that of a run.

Defaults are those of the CCRL paper (Nakhli et al., Contrastive Cell Representation Learning,
2022) on CoNSeP. What the paper does not print comes from the code of its authors' next work
(VOLTA), except where it says so; what goes beyond the paper is off unless asked for, and names its
source. A description that begins with a choice, such as ``info_nce:``, is of a setting that has no
effect otherwise.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ccrl_wsi.config import Positive, Section
from ccrl_wsi.data_settings import DataSettings
from ccrl_wsi.training.baseline_settings import DcaeSettings, InfoganSettings, PixelSettings

Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1)]
Range = tuple[float, float]
Method = Literal["ccrl", "dcae", "infogan", "pixels", "untrained"]


class NetworkSettings(Section):
    """Backbone and heads."""

    architecture: str = Field(
        "preact_resnet18",
        description="The backbone; resnet18 and resnet50 are the plain ones for larger crops.",
    )
    widths: tuple[Width, ...] = Field(
        (64, 128, 256, 512), min_length=1, description="preact_resnet18: channels of its stages."
    )
    stem_stride: int = Field(
        1, ge=1, le=2, description="preact_resnet18: 2 is a quarter of the cost; not the paper."
    )
    pretrained: bool = Field(
        False,
        description="resnet18, resnet50: start from torchvision's ImageNet weights, which are "
        "downloaded once; for three channels.",
    )
    projector: tuple[Width, Width] = Field((128, 64), description="Hidden and output width.")
    predictor: int | None = Field(
        32, ge=1, description="Hidden width of the prediction head; null: none (Table 3)."
    )


class ViewSettings(Section):
    """How two views of a crop are made; p is the share of views a change is applied to."""

    cropped: Literal["one", "both", "none"] = Field(
        "one", description="one: the local-global connection; both: without it (Table 3)."
    )
    crop_area: Range = Field((0.2, 1.0), description="one, both: share of the area that is seen.")
    crop_ratio: Range = Field((0.75, 4 / 3), description="one, both: width / height.")
    p_jitter: Share = 0.8
    brightness: float = Field(0.4, ge=0, description="Factor 1 - x to 1 + x.")
    contrast: float = Field(0.4, ge=0, description="Likewise.")
    saturation: float = Field(0.4, ge=0, description="Likewise.")
    hue: float = Field(0.1, ge=0, le=0.5, description="Shift of -x to x turns.")
    p_grey: Share = 0.2
    p_blur: Share = 0.5
    blur_px: Range = Field((0.1, 2.0), description="Sigma of the blur.")
    p_flip: Share = Field(0.5, description="Of each of the two flips.")
    p_rotate: Share = 0.5
    rotate_deg: float = Field(180.0, ge=0, le=180, description="Angle -x to x.")
    p_elastic: Share = Field(0.0, description="Share that is bent (Simard et al. 2003).")
    elastic: float = Field(
        0.05, ge=0, le=0.2, description="Largest displacement, as a share of the crop's side."
    )
    p_stain: Share = Field(
        0.0, description="Share whose stain densities are changed (HED; Tellez et al. 2018)."
    )
    stain_sigma: float = Field(
        0.05,
        ge=0,
        description="Of three stains (H, E, rest), each density times 1 +- this, plus +- this.",
    )
    p_exposure: Share = Field(
        0.0, description="Share whose channels each get another exposure; for fluorescence."
    )
    exposure_gain: float = Field(
        0.5, ge=0, le=3, description="Each channel times e^-x to e^x, by itself."
    )
    exposure_gamma: float = Field(
        0.4, ge=0, le=3, description="Each channel to the power of e^-x to e^x, before that."
    )


class LossSettings(Section):
    """What views are asked to agree on."""

    kind: Literal["info_nce", "byol", "nt_xent"] = Field(
        "info_nce",
        description="byol: no negatives (Grill et al. 2020); nt_xent: SimCLR, one network, the "
        "batch as negatives (Chen et al. 2020).",
    )
    temperature: Positive = Field(0.07, description="info_nce, nt_xent: divides the cosines.")
    symmetric: bool = Field(
        False,
        description="Each view once query and once key, as in VOLTA; false: one way, as Eq. 2 of "
        "the paper, which does not say which view asks. Here the local one, of whole-view keys.",
    )
    queue_size: int = Field(65_536, ge=1, description="info_nce: keys of whole views kept.")
    batch_negatives: bool = Field(
        False, description="info_nce: other keys of the batch are negatives too, as in VOLTA."
    )
    mask_own: bool = Field(
        False, description="info_nce: a cell's own older keys are no negatives of it."
    )
    debias: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="info_nce: share of negatives of the same class (Chuang et al. 2020).",
    )
    prototypes: int | None = Field(
        None, ge=2, description="Clusters of a prototype term (ProPos, Huang et al. 2022)."
    )
    prototype_weight: float = Field(0.1, ge=0, description="prototypes: the term's weight.")
    prototype_temperature: Positive = Field(0.5, description="prototypes: ProPos' temperature.")
    prototype_from_epoch: int = Field(0, ge=0, description="prototypes: first epoch with the term.")


class ScheduleSettings(Section):
    """Optimiser and time."""

    epochs: Positive = Field(500, description="Passes over the data.")
    batch_size: int = Field(1024, ge=2, description="Of all processes together.")
    learning_rate: Positive = 1e-3
    weight_decay: float = Field(1e-4, ge=0)
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.999),
        description="Adam's own defaults, as the paper says no more; VOLTA: 0.9, 0.99.",
    )
    warmup_epochs: float = Field(10, ge=0, description="The rate rises from 0; below epochs.")
    balance: Literal["none", "slides"] = Field(
        "none", description="slides: every slide is drawn from equally often."
    )


class CcrlScheduleSettings(ScheduleSettings):
    """Optimiser, time and the key network."""

    momentum: Share = Field(0.999, description="Of the key network, at the start.")
    last_momentum: Share = Field(0.999, description="At the end; cosine between.")


class ExportSettings(Section):
    """The encoder that comes out."""

    name: str = Field("ccrl", min_length=1, description="As it is called in results.")
    network: Literal["momentum", "query"] = Field(
        "momentum", description="momentum: ensembling; query: without it (Table 3)."
    )
    unit_length: bool = Field(
        False, description="Divide embeddings by their length, so that directions are clustered."
    )
    size_weight: float = Field(
        0.0,
        ge=0,
        description="Log of the nucleus' area as one more dimension; 1: as strong as all others.",
    )
    licence: str = Field("", description="Of the training data, recorded in the encoder.")
    half: bool = Field(False, description="Store 16-bit weights: half the file.")


class TrainComputeSettings(Section):
    """The machine."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where CUDA has it."
    )
    compile: bool = Field(False, description="torch.compile the encoders.")
    save_every_minutes: Positive = 5.0
    log_every_steps: int = Field(10, ge=1)


class TrainSettings(Section):
    """Everything a training can be told."""

    seed: int = Field(0, ge=0)
    method: Method = Field(
        "ccrl", description="What is trained; pixels, untrained: a file without training."
    )
    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    views: ViewSettings = ViewSettings()
    loss: LossSettings = LossSettings()
    schedule: CcrlScheduleSettings = CcrlScheduleSettings()
    dcae: DcaeSettings = DcaeSettings()
    infogan: InfoganSettings = InfoganSettings()
    pixels: PixelSettings = PixelSettings()
    export: ExportSettings = ExportSettings()
    compute: TrainComputeSettings = TrainComputeSettings()

    @model_validator(mode="after")
    def _no_negatives_without_a_queue_of_them(self) -> TrainSettings:
        if self.loss.kind == "nt_xent" and self.network.predictor is not None:
            raise ValueError("loss.kind=nt_xent has no prediction head. Set network.predictor=null")
        if self.loss.kind == "nt_xent" and (self.loss.debias or self.loss.prototypes is not None):
            raise ValueError(
                "loss.debias and loss.prototypes are not for loss.kind=nt_xent: leave them out"
            )
        if self.loss.kind == "byol" and self.network.predictor is None:
            raise ValueError(
                "loss.kind=byol needs the prediction head: without it all cells become one point. "
                "Set network.predictor"
            )
        return self

    @model_validator(mode="after")
    def _points_have_no_size(self) -> TrainSettings:
        if self.data.kind == "crc" and self.export.size_weight > 0:
            raise ValueError(
                "crc tells nuclei by points, so their size is unknown: set export.size_weight=0"
            )
        return self

    @model_validator(mode="after")
    def _own_clusters_are_placed_and_kept(self) -> TrainSettings:
        pretrain, epochs = self.dcae.pretrain_epochs, self.schedule.epochs
        if self.method == "dcae" and pretrain >= epochs:
            raise ValueError(
                f"dcae.pretrain_epochs={pretrain:g} leaves nothing of schedule.epochs={epochs:g} "
                "for the clusters: lower the first or raise the second"
            )
        if self.method in ("dcae", "infogan") and self.export.unit_length:
            raise ValueError(
                f"method={self.method} has clusters of its own, which do not lie among embeddings "
                "of unit length: set export.unit_length=false"
            )
        return self

    @model_validator(mode="after")
    def _the_rate_gets_as_high_as_asked(self) -> TrainSettings:
        schedule = self.schedule
        if schedule.warmup_epochs >= schedule.epochs:
            raise ValueError(
                f"schedule.warmup_epochs={schedule.warmup_epochs:g} leaves nothing of "
                f"schedule.epochs={schedule.epochs:g}: lower the first or raise the second"
            )
        return self
