"""The CCRL paper's tables made anew: every row trained or loaded, judged, and told honestly.

Table 2 compares methods, Table 3 leaves parts of CCRL out. A row that cannot be had says why; it
never has a number from elsewhere. Test labels choose nothing: networks are those of the last step.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ccrl_wsi.config import load_tree
from ccrl_wsi.config_files import config_names, find_config
from ccrl_wsi.errors import CcrlError, ConfigError
from ccrl_wsi.evaluation.clustering_scores import ClusteringScores, score_clusters
from ccrl_wsi.evaluation.paper_scores import TABLE_2, TABLE_3, PaperScores
from ccrl_wsi.evaluation.protocol import Judged
from ccrl_wsi.evaluation.settings import EvaluateSettings
from pipelines.embedders import CutRule, find_candidate
from pipelines.evaluate import CellStore, EncoderResult, Gather, judge_candidate

log = logging.getLogger("ccrl_wsi")

Schedule = Literal["paper", "cpu"]


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
            "are the likeliest category (Q).",
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
BUNDLED_FOR = "consep"
"""The data set the bundled encoder learned from, by the CPU schedule."""


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What is wanted.

    Parameters
    ----------
    number
        2 or 3.
    given
        Rows by name, with a trained encoder's file or, for ImageNet, its weights; None: to be
        had by itself. Empty: all rows.
    schedule
        How what must be trained is trained; None: as the paper where there is a GPU, else not.
    """

    number: int
    given: Mapping[str, str | None]
    schedule: Schedule | None


@dataclass(frozen=True, eq=False, slots=True)
class FilledRow:
    """A row with what was found, or why nothing was.

    Parameters
    ----------
    own
        Scores of clusters that the method finds itself, without k-means; of one training.
    schedule
        How its encoder came about.
    training_seconds
        None where nothing was trained, or elsewhere.
    """

    row: TableRow
    paper: PaperScores | None
    judged: tuple[Judged, ...] = ()
    own: ClusteringScores | None = None
    schedule: str = ""
    training_seconds: float | None = None
    seconds: float = 0.0
    hardware: str = ""
    could_not: str = ""


@dataclass(frozen=True, slots=True)
class _Source:
    encoder: str
    schedule: str
    training_seconds: float | None = None
    weights: Path | None = None


def make_table(
    plan: TablePlan,
    settings: EvaluateSettings,
    out: Path,
    on_row: Callable[[list[FilledRow]], None],
    gather: Gather | None = None,
) -> list[FilledRow]:
    """Fill the rows of ``plan``, one after the other.

    Parameters
    ----------
    out
        Trainings are kept in ``out/encoders``, and continued there.
    on_row
        Called with all rows filled so far, after each.
    gather
        Reads crops; default :func:`pipelines.crop_sets.gather_crops`.

    Raises
    ------
    ConfigError
        If there is no such table or row, or Table 3 is asked for without a GPU or a schedule.
    CcrlError
        If the data cannot be used, which no row could help.
    """
    rows = chosen_rows(plan)
    if plan.number == 3 and plan.schedule is None and not _has_gpu(settings):
        raise ConfigError(
            "Table 3 trains CCRL four times, which takes a GPU, and PyTorch finds none here. Ask "
            "for a short schedule with --schedule cpu; it will be named in the table."
        )
    if gather is None:
        from pipelines.crop_sets import gather_crops

        gather = gather_crops
    cells = CellStore(settings, gather)
    cells.by(CutRule(settings.data.scale, settings.data.size_px))  # damaged data are told at once
    filled: list[FilledRow] = []
    for row in rows:
        paper = paper_scores(plan.number, row.name, settings.data.kind)
        try:
            filled.append(_fill(row, paper, plan, settings, _Work(out, cells)))
        except CcrlError as error:
            log.warning("%s could not run. %s", row.name, error)
            filled.append(FilledRow(row, paper, could_not=str(error)))
        on_row(filled)
    return filled


def chosen_rows(plan: TablePlan) -> list[TableRow]:
    """The rows of ``plan`` in the table's order.

    Raises
    ------
    ConfigError
        If there is no such table or row.
    """
    if plan.number not in ROWS:
        raise ConfigError(f"--table {plan.number}: the CCRL paper's tables of scores are 2 and 3.")
    names = [row.name for row in ROWS[plan.number]]
    unknown = [name for name in plan.given if name not in names]
    if unknown:
        raise ConfigError(
            f"Table {plan.number} has no row {unknown[0]!r}. Its rows are {', '.join(names)}; "
            "give a trained one as dcae=FILE."
        )
    return [row for row in ROWS[plan.number] if not plan.given or row.name in plan.given]


def paper_scores(number: int, name: str, kind: str) -> PaperScores | None:
    """What the paper prints for this row on this data set."""
    if number == 2 or name == "ccrl":
        return TABLE_2.get(kind, {}).get(name)
    return TABLE_3.get(name) if kind == "nucls" else None


@dataclass(frozen=True, eq=False, slots=True)
class _Work:
    out: Path
    cells: CellStore


def _fill(
    row: TableRow,
    paper: PaperScores | None,
    plan: TablePlan,
    settings: EvaluateSettings,
    work: _Work,
) -> FilledRow:
    source = _source(row, plan, settings, work)
    wanted = settings.model_copy(update={"imagenet_weights": source.weights})
    began = time.monotonic()
    candidate = find_candidate(source.encoder, wanted)
    result = judge_candidate(row.name, candidate, work.cells.by(candidate.rule), wanted)
    return FilledRow(
        row,
        paper,
        judged=result.judged,
        own=own_scores(source.encoder, result),
        schedule=source.schedule,
        training_seconds=source.training_seconds,
        seconds=time.monotonic() - began,
        hardware=hardware(settings.device),
    )


def _source(row: TableRow, plan: TablePlan, settings: EvaluateSettings, work: _Work) -> _Source:
    """Where the row's encoder is; it is trained if it must be."""
    given = plan.given.get(row.name)
    if given and row.name.startswith("imagenet"):
        return _Source(row.encoder, "weights as given", weights=Path(given))
    if given:
        return _Source(given, f"as given: {_told_by(row, given)}")
    if row.encoder:
        is_imagenet = row.name.startswith("imagenet")
        said = "torchvision's weights" if is_imagenet else "nothing is trained"
        return _Source(row.encoder, said, weights=settings.imagenet_weights)
    if plan.schedule is None and not _has_gpu(settings):
        raise ConfigError(
            f"No GPU: PyTorch finds none here, and {row.name} must be trained. Ask for a short "
            f"schedule with --schedule cpu, or give a trained encoder as {row.name}=FILE."
        )
    schedule = plan.schedule or "paper"
    is_bundled = row.name == "ccrl" and plan.number == 2 and settings.data.kind == BUNDLED_FOR
    if schedule == "cpu" and is_bundled:
        return _Source("ccrl", "CPU SCHEDULE (bundled encoder: train/cpu_small)")
    return _train(row, schedule, settings, work)


def _train(row: TableRow, schedule: Schedule, settings: EvaluateSettings, work: _Work) -> _Source:
    from ccrl_wsi.training.metric_log import read_metrics
    from ccrl_wsi.training.settings import TrainSettings
    from pipelines.train import train_encoder
    from pipelines.train_folder import TrainFolder

    file = row.configs[schedule].format(kind=settings.data.kind)
    if file not in config_names():
        raise ConfigError(
            f"There is no schedule {file} for {settings.data.kind}. Train {row.name} with "
            f"`ccrl-wsi train` and give it as {row.name}=FILE."
        )
    rule = CutRule(settings.data.scale, settings.data.size_px)
    k = settings.k or len(work.cells.by(rule).scored.class_names)
    overrides = [*row.changes, f"dcae.n_clusters={k}", f"infogan.n_codes={k}"]
    base = load_tree(TrainSettings, [find_config(file)], overrides)
    changed = base.model_copy(
        update={
            "seed": settings.seed,
            "data": settings.data,  # its split is the training's
            "compute": base.compute.model_copy(update={"device": settings.device}),
        }
    )
    folder = TrainFolder(work.out / "encoders" / f"{row.name}_{schedule}")
    log.info("%s is trained by %s in %s", row.name, file, folder.root)
    trained = train_encoder(changed, folder.root)
    metrics = read_metrics(folder.metrics)
    said = "CPU SCHEDULE" if schedule == "cpu" else "the sources' schedule"
    said = f"{said} ({file}: {trained.n_steps} steps of {changed.schedule.batch_size})"
    seconds = training_seconds(metrics, changed.schedule.batch_size)
    return _Source(str(folder.encoder), said, seconds)


def training_seconds(metrics: Mapping[str, Any], batch_size: int) -> float:
    """How long all steps took, also if in several goes, by the speeds that were logged."""
    before, total = -1.0, 0.0
    for step, speed in zip(metrics["step"], metrics["crops_per_second"], strict=True):
        total += (step - before) * batch_size / speed
        before = step
    return float(total)


def own_scores(encoder: str, result: EncoderResult) -> ClusteringScores | None:
    """Scores of the clusters that the network in the file ``encoder`` finds itself, if it does."""
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
    network.load_state_dict(state)
    vectors = torch.from_numpy(result.judged[0].vectors[:, : network.n_dimensions])
    with torch.inference_mode():
        cluster = network.own_clusters(vectors).argmax(dim=1).numpy()
    return score_clusters(cluster, result.cells.scored.label)


def hardware(device: str) -> str:
    """The machine in a few words."""
    import torch

    from ccrl_wsi.devices import resolve_device

    place = resolve_device(device)
    if place != "cpu":
        return str(torch.cuda.get_device_name(torch.device(place)))
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    return f"CPU, {_processor()}, {threads}, {os.cpu_count()} cores in all"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _told_by(row: TableRow, given: str) -> str:
    """How the encoder ``given`` for ``row`` was trained, as it says itself."""
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
    return f"{path.name}, {header.training.get('n_steps', '?')} steps of {size}"


def _has_gpu(settings: EvaluateSettings) -> bool:
    from ccrl_wsi.devices import resolve_device

    return resolve_device(settings.device) != "cpu"
