"""`ccrl-wsi train-segmenter`: images with drawn nuclei in, segmenter out. The order of work."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.devices import resolve_device
from ccrl_wsi.evaluation.segmentation_scores import SegmentationScores, score_segmentation
from ccrl_wsi.interfaces import Segmenter
from ccrl_wsi.nuclei.compact import load_compact
from ccrl_wsi.nuclei.compact_checkpoint import (
    SegmenterHeader,
    save_segmenter,
)
from ccrl_wsi.nuclei.compact_network import CompactNetwork
from ccrl_wsi.nuclei.regions import of_plausible_size
from ccrl_wsi.provenance import versions
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.training.batch_normalisation import over_all_processes
from ccrl_wsi.training.batches import Batches
from ccrl_wsi.training.curves import draw_curves
from ccrl_wsi.training.field_set import FieldSet
from ccrl_wsi.training.learner import Moment, World
from ccrl_wsi.training.metric_log import read_metrics
from ccrl_wsi.training.schedules import learning_rate
from ccrl_wsi.training.segment_learner import SegmentLearner
from ccrl_wsi.training.segment_settings import FieldDataSettings, SegmentTrainSettings
from pipelines.field_sets import gather_fields, read_images
from pipelines.train_folder import (
    TrainFolder,
    deciding_settings,
    fingerprint_of,
)
from pipelines.training_run import TrainingRun, TrainingSet, claimed, together

log = logging.getLogger("ccrl_wsi")

FREE_TO_CHANGE = {"data": ("validation",), "compute": ("save_every_minutes",)}
"""What a continued training may be given anew, as the places and licences of its images."""


@dataclass(frozen=True, slots=True)
class TrainedSegmenter:
    """What a training came to.

    Parameters
    ----------
    scores
        Mean scores on the images held back, by data set; empty where there are none.
    """

    segmenter: Path
    n_fields: int
    n_steps: int
    seconds: float
    scores: dict[str, SegmentationScores]


def train_segmenter(settings: SegmentTrainSettings, out: Path) -> TrainedSegmenter:
    """Train as ``settings`` say into the folder ``out``, or go on with what is there.

    Raises
    ------
    ConfigError
        If the settings fit neither the data nor what is in the folder.
    StoreError
        If there is nothing to learn from.
    ModelError
        If the loss is no longer a number.
    """
    device = resolve_device(settings.compute.device)
    with together(device) as world:
        fields = gather_fields(settings.data, settings.network.mpp)
        log.info(
            "%d fields of %d images or slides with %d nuclei",
            *(len(fields), len(fields.source_names), fields.n_nuclei),
        )
        began = time.monotonic()
        values = (fields.rgb, fields.targets, fields.mpp, fields.source)
        known = TrainingSet("fields", fingerprint_of(values), what_decides(settings))
        with claimed(out, known, device, world) as folder:
            learner, n_steps = _train(settings, folder, fields, device, world)
            scores = (
                _write_segmenter(folder, learner, settings, fields, n_steps)
                if world.is_first
                else {}
            )
        seconds = time.monotonic() - began
        return TrainedSegmenter(folder.segmenter, len(fields), n_steps, seconds, scores)


def what_decides(settings: SegmentTrainSettings) -> dict[str, Any]:
    """The settings that decide what comes out, as plain JSON."""
    tree = deciding_settings(settings, FREE_TO_CHANGE)
    for source in tree["data"]["sources"]:
        del source["path"], source["licence"]  # the fields are compared themselves
    return tree


def _train(
    settings: SegmentTrainSettings, folder: TrainFolder, fields: FieldSet, device: str, world: World
) -> tuple[SegmentLearner, int]:
    """Do the steps that are missing; the learner, and how many steps there are in all."""
    schedule = settings.schedule
    batches = Batches(fields.source, schedule.batch_size, settings.seed, schedule.balance, "fields")
    n_steps = batches.n_steps(schedule.epochs)
    learner = SegmentLearner(fields, make_network(settings, device), settings, device, world)

    def rates(moment: Moment) -> dict[str, float]:
        return {"learning_rate": learning_rate(moment, schedule)}

    TrainingRun(
        learner, batches, folder, n_steps, settings.compute, device, world, rates, "fields"
    ).run()
    return learner, n_steps


def make_network(settings: SegmentTrainSettings, device: str) -> CompactNetwork:
    """The network of ``settings`` with its first weights, which depend on the seed alone."""
    import torch

    word = int(rng_for(settings.seed, "segmenter weights").integers(2**62))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(word)
        network = CompactNetwork(settings.network.widths)
    over_all_processes(network, device)
    return network


def _write_segmenter(
    folder: TrainFolder,
    learner: SegmentLearner,
    settings: SegmentTrainSettings,
    fields: FieldSet,
    n_steps: int,
) -> dict[str, SegmentationScores]:
    draw_curves(read_metrics(folder.metrics), folder.curves)
    header = _header(settings, fields, n_steps)
    state = learner.average.state_dict()
    save_segmenter(folder.segmenter, state, header, half=settings.export.half)
    scores = score_on(folder.segmenter, settings.data, settings.compute.device)
    if scores:
        _write_scores(folder.scores, scores)
        told = {name: asdict(score) for name, score in scores.items()}
        header = header.model_copy(update={"training": {**header.training, "scores": told}})
        save_segmenter(folder.segmenter, state, header, half=settings.export.half)
    return scores


def _header(settings: SegmentTrainSettings, fields: FieldSet, n_steps: int) -> SegmenterHeader:
    sources = settings.data.sources
    return SegmenterHeader(
        name=settings.export.name,
        widths=settings.network.widths,
        mpp=settings.network.mpp,
        training={
            "data": [
                {"kind": s.kind, "folder": s.path.name, "licence": s.licence} for s in sources
            ],
            "n_fields": len(fields),
            "n_nuclei": fields.n_nuclei,
            "n_steps": n_steps,
            "settings": _without_paths(settings),
            "versions": {name: versions()[name] for name in ("ccrl-wsi", "torch", "numpy")},
        },
    )


def score_on(weights: Path, data: FieldDataSettings, device: str) -> dict[str, SegmentationScores]:
    """Mean scores of the segmenter ``weights`` on each of ``data.validation``."""
    if not data.validation:
        return {}
    settings = NucleiSettings(segmenter="compact", weights=weights)
    segmenter = load_compact(settings, resolve_device(device))
    scores: dict[str, SegmentationScores] = {}
    for number, source in enumerate(data.validation, start=1):
        rows = list(_score_each(segmenter, settings, read_images(source)))
        if not rows:
            log.warning("No image in %s can be scored.", source.path)
            continue
        mean = np.mean([list(asdict(row).values()) for row in rows], axis=0)
        name = f"{number} {source.kind} {source.path.name}, {len(rows)} images"
        scores[name] = SegmentationScores(*(float(value) for value in mean))
    return scores


def _score_each(
    segmenter: Segmenter, settings: NucleiSettings, images: Iterator[Any]
) -> Iterator[SegmentationScores]:
    for image in images:
        found = of_plausible_size(segmenter(image.rgb, image.mpp).labels, image.mpp, settings)
        yield score_segmentation(image.labels, found, image.mpp)


def _write_scores(path: Path, scores: dict[str, SegmentationScores]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data", *asdict(next(iter(scores.values())))])
        writer.writerows(
            [name, *(f"{v:.4f}" for v in asdict(s).values())] for name, s in scores.items()
        )


def _without_paths(settings: SegmentTrainSettings) -> dict[str, Any]:
    """``settings`` as plain JSON without the machine and where on it files lie."""
    tree: dict[str, Any] = settings.model_dump(mode="json", exclude={"compute": True})
    for source in (*tree["data"]["sources"], *tree["data"]["validation"]):
        source["path"] = Path(source["path"]).name
    return tree
