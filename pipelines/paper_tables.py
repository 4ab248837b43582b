"""The CCRL paper's tables made anew: every row trained or loaded, judged, and told honestly.

Table 2 compares methods, Table 3 leaves parts of CCRL out. A row that cannot be had says why; it
never has a number from elsewhere. Test labels choose nothing: networks are those of the last step.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ccrl_wsi.config_files import config_names, find_config
from ccrl_wsi.errors import CcrlError, ConfigError
from ccrl_wsi.evaluation.paper_scores import TABLE_2, TABLE_3, PaperScores
from ccrl_wsi.evaluation.protocol import Judged
from ccrl_wsi.evaluation.settings import EvaluateSettings
from ccrl_wsi.settings_tree import load_tree
from pipelines.embedders import CutRule, find_candidate
from pipelines.evaluate import CellStore, Gather, judge_candidate
from pipelines.paper_table_encoders import OwnClusters, departures, own_scores, told_by
from pipelines.paper_table_rows import ROWS, TableRow

if TYPE_CHECKING:
    from ccrl_wsi.training.settings import TrainSettings

log = logging.getLogger("ccrl_wsi")

Schedule = Literal["paper", "cpu"]


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


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """Where the encoder of a row is, and how it came about.

    Parameters
    ----------
    encoder
        As ``evaluate`` knows it.
    schedule
        In words.
    training_seconds
        None where nothing was trained, or elsewhere.
    weights
        Those of ImageNet's networks, if they were given.
    """

    encoder: str
    schedule: str
    training_seconds: float | None = None
    weights: Path | None = None


@dataclass(frozen=True, eq=False, slots=True)
class FilledRow:
    """A row with what was found, or why nothing was.

    Parameters
    ----------
    own
        Clusters that the method finds itself, without k-means; of one training.
    source
        How its encoder came about.
    encoder
        As it is called in results.
    given
        The file that was given for it.
    departures
        In what its encoder is not the method as published; empty: in nothing that is known.
    """

    row: TableRow
    paper: PaperScores | None
    judged: tuple[Judged, ...] = ()
    own: OwnClusters | None = None
    source: EncoderSource | None = None
    seconds: float = 0.0
    hardware: str = ""
    encoder: str = ""
    given: str = ""
    departures: str = ""
    could_not: str = ""


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
        except ValueError as error:  # the rows after it are tried all the same
            log.exception("%s could not run.", row.name)
            filled.append(FilledRow(row, paper, could_not=f"Unexpected error: {error}"))
        on_row(filled)
    return filled


def given_rows(words: Sequence[str]) -> dict[str, str | None]:
    """Rows by name, with the file of ``NAME=FILE``.

    Raises
    ------
    ConfigError
        If a row is named twice.
    """
    given: dict[str, str | None] = {}
    for word in words:
        name, _, file = word.partition("=")
        if name in given:
            raise ConfigError(f"The row {name} is named twice. Name it once, or as {name}=FILE.")
        given[name] = file or None
    return given


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
        source=source,
        seconds=time.monotonic() - began,
        hardware=hardware(settings.device),
        encoder=candidate.name,
        given=plan.given.get(row.name) or "",
        departures=departures(row, candidate, settings),
    )


def _source(
    row: TableRow, plan: TablePlan, settings: EvaluateSettings, work: _Work
) -> EncoderSource:
    """Where the row's encoder is; it is trained if it must be."""
    given = plan.given.get(row.name)
    if given and row.name.startswith("imagenet"):
        return EncoderSource(row.encoder, "weights as given", weights=Path(given))
    if given:
        return EncoderSource(given, f"as given: {told_by(row, given, settings)}")
    if row.encoder:
        is_imagenet = row.name.startswith("imagenet")
        said = "torchvision's weights" if is_imagenet else "nothing is trained"
        return EncoderSource(row.encoder, said, weights=settings.imagenet_weights)
    if plan.schedule is None and not _has_gpu(settings):
        raise ConfigError(
            f"No GPU: PyTorch finds none here, and {row.name} must be trained. Ask for a short "
            f"schedule with --schedule cpu, or give a trained encoder as {row.name}=FILE."
        )
    schedule = plan.schedule or "paper"
    is_bundled = row.name == "ccrl" and plan.number == 2 and settings.data.kind == BUNDLED_FOR
    if schedule == "cpu" and is_bundled:
        return EncoderSource("ccrl", "CPU SCHEDULE (bundled encoder: train/cpu_small)")
    return _train(row, schedule, settings, work)


def _train(
    row: TableRow, schedule: Schedule, settings: EvaluateSettings, work: _Work
) -> EncoderSource:
    from ccrl_wsi.training.metric_log import read_metrics
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
    changed = _training_settings(row, file, k, settings)
    folder = TrainFolder(work.out / "encoders" / f"{row.name}_{schedule}")
    log.info("%s is trained by %s in %s", row.name, file, folder.root)
    try:
        trained = train_encoder(changed, folder.root)
    except ConfigError as error:
        raise ConfigError(
            f"{error} (The table trains by {file} as it is: change settings with `ccrl-wsi train "
            f"-c {file} --set ...`, and give the encoder as {row.name}=FILE.)"
        ) from None
    metrics = read_metrics(folder.metrics)
    said = "CPU SCHEDULE" if schedule == "cpu" else "GPU schedule"
    said = f"{said} ({file}: {trained.n_steps} steps of {changed.schedule.batch_size})"
    seconds = training_seconds(metrics, changed.schedule.batch_size)
    return EncoderSource(str(folder.encoder), said, seconds)


def _training_settings(
    row: TableRow, file: str, k: int, settings: EvaluateSettings
) -> TrainSettings:
    """Those of ``file`` on the data to be judged by, whose split is the training's."""
    from ccrl_wsi.training.settings import TrainSettings

    overrides = [
        *row.changes,
        f"dcae.n_clusters={k}",
        f"infogan.n_codes={k}",
        f"seed={settings.seed}",
        f"compute.device={settings.device}",
        f"data={json.dumps(settings.data.model_dump(mode='json'))}",
    ]
    if settings.data.kind == "crc":  # points have no size, and the settings are refused with one
        overrides.append("export.size_weight=0")
    return load_tree(TrainSettings, [find_config(file)], overrides)


def training_seconds(metrics: Mapping[str, Any], batch_size: int) -> float:
    """How long all steps took, also if in several goes, by the speeds that were logged."""
    before, total = -1.0, 0.0
    for step, speed in zip(metrics["step"], metrics["crops_per_second"], strict=True):
        total += (step - before) * batch_size / speed
        before = step
    return float(total)


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


def _has_gpu(settings: EvaluateSettings) -> bool:
    from ccrl_wsi.devices import resolve_device

    return resolve_device(settings.device) != "cpu"
