"""The rows of the CCRL paper's tables: how each is had, and what had to be chosen for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Parameters
    ----------
    encoder
        As ``evaluate`` knows it; empty where it must be trained.
    configs
        Settings files of a training by schedule; ``{kind}`` is the data set's.
    architecture
        Of the networks that may be given for it; empty: none may.
    changes
        Overrides of a training's settings.
    note
        What had to be chosen, in a sentence.
    """

    name: str
    note: str
    encoder: str = ""
    configs: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""
    changes: tuple[str, ...] = ()


def _trained(method: str) -> dict[str, str]:
    return {"paper": f"train/{method}", "cpu": f"train/{method}_cpu"}


_CCRL = {"paper": "train/ccrl_{kind}", "cpu": "train/cpu_small"}
_CCRL_NETWORK = "preact_resnet18"
ROWS: dict[int, tuple[TableRow, ...]] = {
    2: (
        TableRow(
            "imagenet",
            "The paper names no network: ResNet-18, average-pooled, crops enlarged to 224 px.",
            "imagenet",
        ),
        TableRow("imagenet50", "The same with ResNet-50.", "imagenet50"),
        TableRow(
            "morphological",
            "Which 30 of the source's 48 features is unknown: geometry and shape without "
            "orientation, erosion and Euler number; standardised.",
            "morphological",
        ),
        TableRow(
            "manual",
            "Dimensions unknown: one SIFT descriptor of the whole crop, 59 uniform patterns.",
            "manual",
        ),
        TableRow(
            "dcae",
            "Layers unknown: those of DCEC with 32 dimensions. Its own clusters are the nearest "
            "learned centres.",
            configs=_trained("dcae"),
            architecture="dcae_encoder",
        ),
        TableRow(
            "infogan",
            "As many categories as classes; k-means is on the critic's features, its own clusters "
            "are the likeliest category (Q). Its GPU schedule is shortened: batches of 64 instead "
            "of 10, so 48,600 critic steps instead of some 311,000.",
            configs=_trained("infogan"),
            architecture="infogan_critic",
        ),
        TableRow("ccrl", "The method of the paper.", configs=_CCRL, architecture=_CCRL_NETWORK),
        TableRow(
            "untrained", "A floor the paper does not show: CCRL's network at random.", "untrained"
        ),
        TableRow("pixels", "Another: principal components of the crops.", "pixels"),
    ),
    3: (
        TableRow("ccrl", "Nothing left out.", configs=_CCRL, architecture=_CCRL_NETWORK),
        TableRow(
            "no_local_global",
            "Both views are cropped.",
            configs=_CCRL,
            architecture=_CCRL_NETWORK,
            changes=("views.cropped=both",),
        ),
        TableRow(
            "no_ensembling",
            "The query network instead of its running mean.",
            configs=_CCRL,
            architecture=_CCRL_NETWORK,
            changes=("export.network=query",),
        ),
        TableRow(
            "no_predictor",
            "No prediction head.",
            configs=_CCRL,
            architecture=_CCRL_NETWORK,
            changes=("network.predictor=null",),
        ),
    ),
}
