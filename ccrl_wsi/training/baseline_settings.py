"""Settings of the methods that CCRL is compared with. Their optimiser and time are ``schedule``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ccrl_wsi.config import Positive, Section

Channels = Annotated[int, Field(ge=1)]


class DcaeSettings(Section):
    """method=dcae: auto-encoder with a clustering layer, by DCEC's recipe (Vununu et al. 2020)."""

    n_dimensions: int = Field(32, ge=1, description="Of the bottleneck; DCEC has 10 for digits.")
    n_clusters: int = Field(4, ge=2, description="Of the clustering layer: as many as classes.")
    widths: tuple[Channels, Channels, Channels] = Field(
        (32, 64, 128), description="Channels of convolutions."
    )
    pretrain_epochs: float = Field(
        200, ge=0, description="Reconstruction alone, before clusters are placed by k-means."
    )
    clustering_weight: float = Field(0.1, ge=0, description="Of the divergence in the loss.")
    update_every_steps: int = Field(140, ge=1, description="The target is computed anew.")


class InfoganSettings(Section):
    """method=infogan: Wasserstein GAN with a categorical code (Hu et al. 2018)."""

    n_codes: int = Field(4, ge=2, description="Categories: as many as classes.")
    noise: int = Field(32, ge=1, description="Normal numbers beside the category.")
    width: int = Field(128, ge=1, description="Channels of generator and critic.")
    critic_steps: int = Field(5, ge=1, description="Steps of the critic to one of the generator.")
    penalty: float = Field(10.0, ge=0, description="Weight of the gradient penalty.")
    code_weight: Positive = Field(1.0, description="Weight of the mutual information.")


class PixelSettings(Section):
    """method=pixels: principal components of the crops; nothing is trained."""

    n_components: int = Field(64, ge=1, description="Principal components.")
