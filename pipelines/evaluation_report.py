"""The files an evaluation leaves: tables, a page to read, pictures and a record."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.clusters.palette import cluster_colors, cluster_names
from ccrl_wsi.evaluation.clustering_scores import confusion_table
from ccrl_wsi.evaluation.paper_scores import TABLE_2
from ccrl_wsi.evaluation.probes import ProbeScores
from ccrl_wsi.evaluation.protocol import CLUSTERING_METRICS, Judged
from ccrl_wsi.provenance import versions
from pipelines.output_folder import write_json, write_text

if TYPE_CHECKING:
    from ccrl_wsi.data_settings import DataSettings
    from pipelines.evaluate import EncoderResult, Evaluation

PROBE_METRICS = {
    "nearest_accuracy": "label_probe_1nn_accuracy",
    "nearest_balanced_accuracy": "label_probe_1nn_balanced_accuracy",
    "linear_accuracy": "label_probe_linear_accuracy",
    "linear_balanced_accuracy": "label_probe_linear_balanced_accuracy",
}
"""Scores of classifiers that saw training labels, by the name that says so."""
READINGS = {
    "fitted_on_test": "k-means fitted on test",
    "fitted_on_train": "k-means fitted on train, applied to test",
    "train_only": "k-means fitted and scored on train",
}
METRIC_HEADS = {"ami": "AMI", "ari": "ARI", "purity": "Purity", "hungarian_accuracy": "Hungarian"}


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One number of ``scores.csv``; scores are shares, 1 is perfect."""

    encoder: str
    asked: str
    fingerprint: str
    reading: str
    metric: str
    uses_labels: str
    mean: str
    sd: str
    n_seeds: int
    k: str
    n_fit: int
    n_scored: int
    seconds: str


def write_report(evaluation: Evaluation, out: Path) -> None:
    """Write everything into ``out``; files of an earlier evaluation there are replaced.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    write_text(out / "scores.csv", _csv(score_rows(evaluation)))
    write_text(out / "confusion.csv", confusion_csv(evaluation))
    write_text(out / "scores.md", scores_page(evaluation))
    if evaluation.settings.pictures.draw:
        for result in evaluation.results:
            draw_pictures(result, evaluation, out / "pictures")
    # Last, so that it is there only when all of it is.
    write_json(out / "evaluation.json", record(evaluation))


def score_rows(evaluation: Evaluation) -> list[ScoreRow]:
    """Every encoder, reading and metric; probes have no seeds."""
    return [row for result in evaluation.results for row in _rows_of(result)]


def confusion_csv(evaluation: Evaluation) -> str:
    """Cells of each class in each cluster, of the tightest repetition: one count a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["encoder", "reading", "cluster", "class", "n_cells"])
    for result in evaluation.results:
        for judged in result.judged:
            classes = result.cells.scored.class_names
            table = _table(result, judged)
            for cluster, counts in zip(cluster_names(judged.k), table.tolist(), strict=True):
                for name, count in zip(classes, counts, strict=True):
                    writer.writerow([result.name, judged.reading, cluster, name, count])
    return text.getvalue()


def scores_page(evaluation: Evaluation) -> str:
    """The scores as Markdown, in per cent as the paper prints them, with the paper's beside."""
    settings = evaluation.settings
    lines = [f"# Scores on {settings.data.kind}", "", *_explanation(evaluation), ""]
    heads = ["Encoder", "Reading", *METRIC_HEADS.values(), "Cells fitted on", "scored"]
    lines += [_line(heads), _line(["---"] * len(heads))]
    for result in evaluation.results:
        for judged in result.judged:
            values = [_percent(judged, metric) for metric in METRIC_HEADS]
            ends = [f"{judged.n_fit:,}", f"{judged.n_scored:,}"]
            lines.append(_line([result.name, READINGS[judged.reading], *values, *ends]))
    if settings.data.kind in TABLE_2 and not settings.on_train:
        paper = TABLE_2[settings.data.kind]["ccrl"]
        printed = [f"{value:.1f}" for value in (paper.ami, paper.ari, paper.purity)]
        lines.append(_line(["CCRL, as printed in its paper", "not said", *printed, "", "", ""]))
    probed = [result for result in evaluation.results if result.probes]
    if probed:
        lines += ["", *_probe_lines(probed)]
    if evaluation.failures:
        lines += ["", "Not judged:", ""]
        lines += [f"- `{failure.asked}`: {failure.reason}" for failure in evaluation.failures]
    return "\n".join(lines) + "\n"


def record(evaluation: Evaluation) -> dict[str, object]:
    """Settings, versions and what each encoder is, as plain JSON."""
    return {
        # The split is the evaluation's own choice and would be refused as a setting.
        "settings": evaluation.settings.model_dump(mode="json", exclude={"data": {"split"}}),
        "versions": versions(),
        "encoders": [_encoder_record(result) for result in evaluation.results],
        "failures": {failure.asked: failure.reason for failure in evaluation.failures},
    }


def draw_pictures(result: EncoderResult, evaluation: Evaluation, folder: Path) -> None:
    """Scatter, heat map and gallery of every reading, of its tightest repetition."""
    from ccrl_wsi.evaluation.pictures import (
        Groups,
        draw_confusion,
        draw_gallery,
        draw_scatter,
        project,
    )
    from ccrl_wsi.seeding import rng_for

    settings, crops = evaluation.settings, result.cells.scored
    wanted, n = settings.pictures, len(crops)
    rng = rng_for(settings.seed, "cells in the scatter")
    rows = rng.permutation(n)[: wanted.max_points]
    class_colors = cluster_colors(len(crops.class_names))
    classes = Groups("Classes", crops.label, crops.class_names, class_colors)
    for judged in result.judged:
        shown, names = judged.tightest, cluster_names(judged.k)
        clusters = Groups("Clusters", shown.cluster, names, cluster_colors(judged.k))
        start = folder / f"{_file_name(result.name)}-{judged.reading}"
        points = project(judged.vectors[rows], wanted.projection, settings.seed)
        both = (classes.where(rows), clusters.where(rows))
        axis = {"pca": "Principal component", "umap": "UMAP"}[wanted.projection]
        draw_scatter(start.with_name(f"{start.name}-embedding.png"), points, both, axis)
        table = _table(result, judged)
        draw_confusion(
            start.with_name(f"{start.name}-confusion.png"), table, names, crops.class_names
        )
        draw_gallery(
            start.with_name(f"{start.name}-gallery.png"),
            crops.crops,
            shown.distance,
            clusters,
            classes,
            wanted.per_cluster,
        )


def _rows_of(result: EncoderResult) -> Iterator[ScoreRow]:
    asked = result.candidate.asked
    for judged in result.judged:
        for metric in CLUSTERING_METRICS:
            sd = judged.sd(metric)
            yield ScoreRow(
                result.name,
                asked,
                judged.fingerprint,
                judged.reading,
                metric,
                "no",
                f"{judged.mean(metric):.6f}",
                "" if math.isnan(sd) else f"{sd:.6f}",
                len(judged.repetitions),
                str(judged.k),
                judged.n_fit,
                judged.n_scored,
                f"{judged.seconds:.1f}",
            )
    if result.probes is not None:
        yield from _probe_rows(result, result.probes)


def _probe_rows(result: EncoderResult, found: ProbeScores) -> Iterator[ScoreRow]:
    for field, metric in PROBE_METRICS.items():
        yield ScoreRow(
            result.name,
            result.candidate.asked,
            result.judged[-1].fingerprint,
            "probe",
            metric,
            "yes",
            f"{getattr(found, field):.6f}",
            sd="",
            n_seeds=1,
            k="",
            n_fit=found.n_fit,
            n_scored=found.n_scored,
            seconds="",
        )


def _csv(rows: list[ScoreRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(ScoreRow)])
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def _explanation(evaluation: Evaluation) -> list[str]:
    settings = evaluation.settings
    lines = [
        f"Per cent, mean ± standard deviation over {settings.n_seeds} seeds of k-means "
        f"(n_init {settings.n_init}). Labels were used for scoring only.",
    ]
    if settings.on_train:
        lines.append("Training cells only: these figures may guide choices, and prove nothing.")
    else:
        lines.append("Test cells: nothing may be chosen by these figures.")
    for result in evaluation.results:
        if not settings.on_train and _saw_test_images(result, settings.data):
            lines.append(
                f"`{result.name}` records that it was trained on images which include the test's."
            )
    return lines


def _saw_test_images(result: EncoderResult, judged_on: DataSettings) -> bool:
    """Whether the checkpoint says so: of other data sets' images nothing is known."""
    settings = result.candidate.training.get("settings")
    data = settings.get("data") if isinstance(settings, dict) else None
    if not isinstance(data, dict) or data.get("kind") != judged_on.kind:
        return False
    # Folds overlap: what one keeps for testing, the others train on.
    is_other_fold = judged_on.kind == "nucls" and data.get("fold") != judged_on.fold
    return data.get("split") in ("test", "all") or is_other_fold


def _probe_lines(results: list[EncoderResult]) -> list[str]:
    heads = ["Encoder", "1-NN", "1-NN, balanced", "Linear", "Linear, balanced"]
    lines = ["Probes: classifiers that **learn from training labels**. Accuracy in per cent.", ""]
    lines += [_line(heads), _line(["---"] * len(heads))]
    for result in results:
        values = [f"{100 * getattr(result.probes, field):.1f}" for field in PROBE_METRICS]
        lines.append(_line([result.name, *values]))
    return lines


def _encoder_record(result: EncoderResult) -> dict[str, object]:
    rule, crops = result.candidate.rule, result.cells
    return {
        "name": result.name,
        "asked": result.candidate.asked,
        "fingerprints": {judged.reading: judged.fingerprint for judged in result.judged},
        "crops": {"scale": rule.scale, "size_px": rule.size_px, "mpp": crops.scored.mpp},
        "n_train": None if crops.train is None else len(crops.train),
        "n_test": None if crops.test is None else len(crops.test),
        "classes": list(crops.scored.class_names),
        "training": dict(result.candidate.training),
        "seconds": {judged.reading: round(judged.seconds, 3) for judged in result.judged},
    }


def _table(result: EncoderResult, judged: Judged) -> IntArray:
    crops = result.cells.scored
    return confusion_table(judged.tightest.cluster, crops.label, judged.k, len(crops.class_names))


def _percent(judged: Judged, metric: str) -> str:
    sd = judged.sd(metric)
    spread = "" if math.isnan(sd) else f" ± {100 * sd:.1f}"
    return f"{100 * judged.mean(metric):.1f}{spread}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_")
