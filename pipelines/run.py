"""The whole job: slides to cells, cells to clusters, clusters to overlays and tables."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ccrl_wsi.cell_identity import cell_settings, late_settings
from ccrl_wsi.clusters.codebook import Codebook, load_codebook
from ccrl_wsi.config import Settings, with_absolute_paths
from ccrl_wsi.errors import ClusterError, ConfigError, StoreError
from ccrl_wsi.nuclei.segmenters import SEGMENTERS
from ccrl_wsi.records import SlideSource
from ccrl_wsi.settings_tree import differences
from ccrl_wsi.store import remove_leftovers
from ccrl_wsi.wording import counted
from pipelines.cluster import cluster_cohort
from pipelines.executors import Executor, open_executor
from pipelines.failure_log import CLUSTER
from pipelines.infer import CohortRun
from pipelines.jobs import Failure
from pipelines.machines import GpuMachine, LocalMachine, MachineSettings
from pipelines.models import find_models
from pipelines.output_folder import (
    OutputFolder,
    claim_held,
    made_folder,
    open_output,
    read_json,
    write_json,
)
from pipelines.output_lock import held
from pipelines.progress import Progress
from pipelines.resolved_settings import resolved, with_device
from pipelines.summary import earlier_failures, write_summary
from pipelines.worker_setup import make_setup

log = logging.getLogger("ccrl_wsi")

WORKER_MEMORY_GIB = {**dict.fromkeys(SEGMENTERS, 8), "compact": 3, "watershed": 2}
"""What a worker of one thread needs on CPU cores, by segmenter."""

MOST_WORKER_MEMORY_GIB = 10
"""The same for networks that are compiled, and for a user's own."""

LATE_FILE = "cluster_settings.json"
"""In the output folder: what `cluster` starts from."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to."""

    folder: OutputFolder
    failures: tuple[Failure, ...]
    report: Path | None = None

    @property
    def exit_code(self) -> int:
        """0 all done, 1 something failed."""
        return 1 if self.failures else 0


def run_cohort(
    sources: Sequence[SlideSource], out: Path | str, settings: Settings, machine: MachineSettings
) -> RunResult:
    """Do everything for all slides. What an earlier run finished is not done again.

    Raises
    ------
    ConfigError, ModelError
        If nothing can begin: the folder, a weight file, the scheduler.
    """
    settings = with_device(resolved(with_absolute_paths(settings)))
    # Workers may stand in another folder.
    sources = [replace(source, path=source.path.absolute()) for source in sources]
    models = find_models(settings)
    if settings.clusters.codebook is not None:
        given = load_codebook(settings.clusters.codebook)
        given.check_encoder(models.encoder, models.encoder_fingerprint)
        settings = _as_codebook(settings, given)
    folder = made_folder(out)
    with held(folder) as lock:
        claim_held(folder, settings, models.recorded())
        _warn_of_other_clusters(folder, settings)
        remove_leftovers(folder.slides)
        setup = make_setup(sources, lock.sign, settings, models)
        retries = settings.compute.retries
        with open_executor(suited(machine, settings), setup, retries) as executor:
            log.info("%s on %s", counted(len(sources), "slide"), executor.description)
            run = CohortRun(folder, settings, models, still_ours=lock.check)
            began = time.monotonic()
            with Progress(len(sources), folder, lock.check) as progress:
                failures = run.run(sources, executor, progress)
                until_now = Before(tuple(failures), began)
                failures += finish_cohort(folder, settings, executor, until_now, lock.check)
        report = _report(folder, settings)
    return RunResult(folder, tuple(failures), report)


def cluster_again(out: Path | str, settings: Settings, machine: MachineSettings) -> RunResult:
    """Fit or apply clusters on the cells a folder has; segmentation and embedding stay.

    Raises
    ------
    ConfigError
        If ``out`` is not the output of a run.
    """
    folder = open_output(out)
    settings = with_absolute_paths(settings)
    if settings.clusters.codebook is not None:
        models = read_json(folder.run_file)["models"]
        given = load_codebook(settings.clusters.codebook)
        given.check_encoder(models["encoder_name"], models["encoder"])
        settings = _as_codebook(settings, given)
    else:
        _say_that_codebook_is_left(folder)
    before = earlier_failures(folder)
    with (
        held(folder) as lock,
        open_executor(machine, make_setup((), lock.sign)) as executor,
    ):
        until_now = Before(tuple(before), time.monotonic())
        failures = finish_cohort(folder, settings, executor, until_now, lock.check)
        report = _report(folder, settings)
    return RunResult(folder, tuple(failures), report)


def _report(folder: OutputFolder, settings: Settings) -> Path | None:
    if not settings.report.make:
        return None
    # Its libraries load for seconds, and not only runs ask for what is in this file.
    from pipelines.report import report_safely

    return report_safely(folder, settings)


def settings_of_last_clusters(out: Path | str) -> dict[str, Any]:
    """The seed, cluster and overlay settings that ``out`` was finished with."""
    folder = open_output(out)
    path = folder.table(LATE_FILE)
    if not path.is_file():
        return {}
    last = read_json(path)
    last["clusters"]["codebook"] = None  # A codebook is applied when it is asked for.
    return last


def check_codebook(settings: Settings) -> None:
    """Refuse what was given with a codebook and is not as in it: nothing is fitted.

    Raises
    ------
    ClusterError
        If the codebook cannot be read.
    ConfigError
        If the number of clusters, or whether slides are centred, is asked for otherwise.
    """
    asked = settings.clusters
    if asked.codebook is None:
        return
    held = _as_codebook(settings, load_codebook(asked.codebook)).clusters
    for name in sorted({"k", "centre_slides"} & asked.model_fields_set):
        value = getattr(held, name)
        if getattr(asked, name) != value:
            raise ConfigError(
                f"clusters.{name}={getattr(asked, name)} cannot be followed: the codebook "
                f"{asked.codebook} is applied as it is ({name}={value}). Leave one of the two out."
            )


def _as_codebook(settings: Settings, codebook: Codebook) -> Settings:
    """The settings with what a given codebook decides: what a later fit starts from."""
    held = {"k": codebook.k, "centre_slides": codebook.centres_slides}
    return settings.model_copy(update={"clusters": settings.clusters.model_copy(update=held)})


def _say_that_codebook_is_left(folder: OutputFolder) -> None:
    path = folder.table(LATE_FILE)
    left = read_json(path)["clusters"]["codebook"] if path.is_file() else None
    if left is not None:
        log.warning(
            "Clusters are fitted to these cells anew: the codebook %s, which gave the last ones, "
            "is not applied. `--codebook` applies it again.",
            left,
        )


def _warn_of_other_clusters(folder: OutputFolder, settings: Settings) -> None:
    """`run` follows its own settings: what `cluster` did with others since is done again."""
    last = folder.table(LATE_FILE)
    changed = differences(read_json(last), late_settings(settings)) if last.is_file() else []
    if changed:
        log.warning(
            "The clusters and overlays in %s had other settings and are made again (%s). Run "
            "`ccrl-wsi cluster` with the old ones to have those back.",
            folder.name,
            "; ".join(changed),
        )


def refuse_cell_settings(out: Path | str, settings: Settings) -> None:
    """Refuse settings that `cluster` and `report` cannot follow: the cells are there already.

    What was given and is as the run had it is no wish, such as all of the run's own file.

    Raises
    ------
    ConfigError
        If one that was given is another one than the run's.
    """
    found = read_json(open_output(out).run_file)["cells"]
    given = settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    changed = _given_anew(given, cell_settings(settings), found)
    if changed:
        raise ConfigError(
            f"Nuclei and embeddings of {out} stay as they are, so {', '.join(changed)} cannot be "
            "followed. Give another value to `run`, with another output folder."
        )


def _given_anew(
    given: Mapping[str, Any], new: Mapping[str, Any], old: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Names of the leaves of ``given`` in which ``new`` is not as ``old``, with both values."""
    names: list[str] = []
    for key in sorted(given.keys() & new.keys()):
        if isinstance(given[key], Mapping):
            names += _given_anew(given[key], new[key], old.get(key, {}), f"{prefix}{key}.")
        elif new[key] != old.get(key):
            names.append(f"{prefix}{key}={new[key]} (the run: {old.get(key)})")
    return names


def suited(machine: MachineSettings, settings: Settings) -> MachineSettings:
    """The machine, with as many workers as fit where that was left open.

    Networks on a computer with GPUs get one worker per GPU; else there is one per core that has
    the memory the segmenter needs. ``settings`` are those of :func:`with_device`: a device left at
    auto is asked for by a network.
    """
    if not isinstance(machine, LocalMachine) or machine.workers is not None:
        return machine
    from pipelines.dask_clusters import fitting_workers, visible_gpus

    gpus = visible_gpus() if settings.compute.device == "auto" else []
    if gpus:
        log.info("One worker for each of %d GPUs; a machine file can say otherwise.", len(gpus))
        return GpuMachine()
    needed_gib = MOST_WORKER_MEMORY_GIB
    if not settings.compute.compile:
        needed_gib = WORKER_MEMORY_GIB.get(settings.nuclei.segmenter, needed_gib)
    workers = fitting_workers(needed_gib)
    return machine.model_copy(update={"workers": workers})


@dataclass(frozen=True, slots=True)
class Before:
    """What there was before the clusters: slides that failed, and when the run began."""

    failures: tuple[Failure, ...]
    began: float


def finish_cohort(
    folder: OutputFolder,
    settings: Settings,
    executor: Executor,
    before: Before,
    still_ours: Callable[[], None],
) -> list[Failure]:
    """Clusters, overlays and tables of all slides that have cells; returns new failures.

    ``still_ours`` is asked again and again; it raises what must end the run.
    """
    still_ours()
    try:
        codebook, new = _cluster(folder, settings, executor, still_ours)
        still_ours()
        seconds = time.monotonic() - before.began
        write_summary(folder, codebook, [*before.failures, *new], seconds)
    except (StoreError, OSError):
        still_ours()  # It is gone or taken over: whatever cannot be read is not damaged.
        raise
    return new


def _cluster(
    folder: OutputFolder, settings: Settings, executor: Executor, still_ours: Callable[[], None]
) -> tuple[Codebook | None, list[Failure]]:
    try:
        codebook, new = cluster_cohort(folder, settings, executor, still_ours)
        # Not before: what was refused is nothing to start from.
        write_json(folder.table(LATE_FILE), late_settings(settings))
    except ClusterError as error:
        if not folder.table(LATE_FILE).exists():  # The run's own, which nothing was before.
            write_json(folder.table(LATE_FILE), late_settings(settings))
        log.error("%s", error)
        return None, [Failure("(cohort)", folder.name, CLUSTER, "", str(error))]
    return codebook, new
