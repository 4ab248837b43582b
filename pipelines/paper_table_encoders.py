"""What the trained encoders of a paper's table say of themselves, and the clusters they have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.evaluation.clustering_scores import ClusteringScores, score_clusters
from ccrl_wsi.evaluation.settings import SPLIT_KINDS, EvaluateSettings
from ccrl_wsi.settings_tree import differences
from pipelines.embedders import Candidate
from pipelines.evaluate import EncoderResult
from pipelines.paper_table_rows import TableRow

if TYPE_CHECKING:
    from ccrl_wsi.embeddings.checkpoint import CheckpointHeader

CCRL_NETWORK = "preact_resnet18"
WHAT_DEPARTS: dict[str, set[str]] = {
    "network": {"widths", "stem_stride", "predictor"},
    "views": {"cropped"},
    "loss": {"kind", "symmetric", "queue_size", "batch_negatives", "mask_own", "prototypes"},
    "export": {"network", "unit_length", "size_weight"},
}
"""The settings of CCRL whose defaults are the paper's, and by which ours may be another method."""


@dataclass(frozen=True, slots=True)
class OwnClusters:
    """Scores of the clusters that a method finds itself, and how many there are."""

    scores: ClusteringScores
    k: int


def told_by(row: TableRow, given: str, settings: EvaluateSettings) -> str:
    """How the encoder ``given`` for ``row`` was trained, as it says itself.

    Raises
    ------
    ConfigError
        If it is of another method, or learned from cells that it would be judged by.
    """
    from ccrl_wsi.embeddings.checkpoint import read_header
    from ccrl_wsi.embeddings.encoders import encoder_file

    if not row.architecture:
        raise ConfigError(f"{row.name} is not trained: name it without a file.")
    path = encoder_file(given)
    header = None if path is None else read_header(path)
    if path is None or header is None or header.architecture != row.architecture:
        found = given if header is None else f"{given} holds {header.architecture}"
        raise ConfigError(f"{found}; the row {row.name} takes {row.architecture}.")
    size = header.training.get("settings", {}).get("schedule", {}).get("batch_size", "?")
    steps = f"{path.name}, {header.training.get('n_steps', '?')} steps of {size}"
    return f"{steps}, {_learnt_from(header, given, settings)}"


def _learnt_from(header: CheckpointHeader, given: str, settings: EvaluateSettings) -> str:
    """The cells of a training in a few words; those to be judged by are refused."""
    data = header.training.get("settings", {}).get("data", {})
    kind = data.get("kind")
    if kind is None:
        return "on cells it does not name"
    split = data.get("split", "train") if kind in SPLIT_KINDS else ""
    told = f"on {kind}{f', {split} cells' if split else ''}"
    if kind != settings.data.kind or not split or settings.on_train:
        return told
    is_other_fold = kind == "nucls" and data.get("fold") != settings.data.fold
    if split != "train" or is_other_fold:
        how = f"data.fold={data.get('fold')}" if is_other_fold else f"data.split={split}"
        raise ConfigError(
            f"{given} was trained with {how}, so it has seen cells that it would be judged by. "
            "Give one of the training cells alone."
        )
    return told


def departures(row: TableRow, candidate: Candidate, settings: EvaluateSettings) -> str:
    """In what the encoder of ``row`` is not the method as published, as its settings have it."""
    if row.name == "untrained":
        widths = ", ".join(map(str, settings.untrained_widths))
        return f"widths {widths}; stem stride {settings.untrained_stem_stride}"
    if row.architecture != CCRL_NETWORK:
        return ""
    from ccrl_wsi.training.settings import TrainSettings

    recorded = candidate.training.get("settings", {})
    paper = TrainSettings().model_dump(mode="json", include=WHAT_DEPARTS)
    ours = {
        section: {name: recorded.get(section, {}).get(name, value) for name, value in tree.items()}
        for section, tree in paper.items()
    }
    return "; ".join(differences(paper, ours))


def own_scores(encoder: str, result: EncoderResult) -> OwnClusters | None:
    """Scores of the clusters that the network in the file ``encoder`` finds itself, if it does.

    Raises
    ------
    ModelError
        If its embeddings are scaled, or its clusters were never placed.
    """
    from ccrl_wsi.config import is_path

    if not is_path(encoder):
        return None
    import torch

    from ccrl_wsi.embeddings.checkpoint import load_checkpoint
    from ccrl_wsi.embeddings.network import build_network

    header, state = load_checkpoint(Path(encoder).expanduser())
    network: Any = build_network(header.architecture, header.arguments)
    if not hasattr(network, "own_clusters"):
        return None
    if header.unit_length:
        raise ModelError(
            f"{encoder} gives embeddings of unit length, in which its own clusters do not lie. "
            "Train it with export.unit_length=false."
        )
    if "centres" in state and not state["centres"].any():
        raise ModelError(
            f"The clusters of {encoder} were never placed: its training ended before. Train it "
            "with dcae.pretrain_epochs below schedule.epochs."
        )
    network.load_state_dict(state)
    vectors = torch.from_numpy(result.judged[0].vectors[:, : network.n_dimensions])
    with torch.inference_mode():
        belonging = network.own_clusters(vectors)
    cluster = belonging.argmax(dim=1).numpy()
    scores = score_clusters(cluster, result.cells.scored.label)
    return OwnClusters(scores, belonging.shape[1])
