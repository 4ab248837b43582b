"""The files an evaluation by mechanism leaves: tables, a page to read, pictures and a record."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccrl_wsi.evaluation.published_mechanism_scores import BBBC021, LJOSA_MEAN_PROFILES
from ccrl_wsi.provenance import versions
from pipelines.output_folder import write_json, write_text

if TYPE_CHECKING:
    from ccrl_wsi.evaluation.mechanism_scores import Matching
    from pipelines.evaluate_moa import MoaEvaluation, MoaResult

SOURCES = {
    "read": "read in the primary source",
    "quoted": "quoted, not read in the source",
    "inferred": "inferred",
}
BBBC021_TREATMENTS = 103
"""As many are compared in the published evaluations."""


def write_moa_report(evaluation: MoaEvaluation, out: Path) -> None:
    """Write everything into ``out``; files of an earlier evaluation there are replaced.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    from ccrl_wsi.evaluation.mechanism_pictures import draw_accuracies, draw_confusion

    write_text(out / "moa_scores.csv", scores_csv(evaluation))
    write_text(out / "moa_nearest.csv", nearest_csv(evaluation))
    write_text(out / "moa_confusion.csv", confusion_csv(evaluation))
    write_text(out / "moa_scores.md", scores_page(evaluation))
    by_rule: dict[str, dict[str, Matching]] = {"NSC": {}, "NSCB": {}}
    for result in evaluation.results:
        matchings = dict(_matchings(result))
        for rule, matching in matchings.items():
            by_rule[rule][result.name] = matching
        name = result.name.replace(", ", "_").replace(" ", "_")
        draw_confusion(out / "pictures" / f"moa_confusion_{name}.png", result.name, matchings)
    draw_accuracies(out / "pictures" / "moa_accuracy.png", by_rule)
    # Last, so that it is there only when all of it is.
    write_json(out / "moa_evaluation.json", _record(evaluation))


def scores_page(evaluation: MoaEvaluation) -> str:
    """The scores as Markdown, in per cent, with the published ones where they can be compared."""
    first = evaluation.results[0]
    n_controls = int(evaluation.wells.is_control(evaluation.settings.control).sum())
    lines = [
        f"# Mechanisms of action: {evaluation.path.name}",
        "",
        f"{len(evaluation.wells)} wells, {n_controls} of them controls; {len(first.treatments)} "
        "treatments. 1-nearest neighbour by cosine distance. NSC: not the same compound; NSCB: "
        "nor the same batch; drop: NSC - NSCB. Per cent.",
        "",
        _line(["Profiles", "Features", "NSC", "NSCB", "Drop", "right of NSC", "of NSCB"]),
        _line(["---"] * 7),
    ]
    lines += [_line(_cells(result)) for result in evaluation.results]
    if len(first.treatments) == BBBC021_TREATMENTS:
        lines += _published_lines()
    left_out = {
        f"{rule} leaves out {name}: none of its treatments could be right"
        for rule, matching in _matchings(first)
        for name in matching.left_out
    }
    remarks = [*evaluation.remarks, *sorted(left_out)]
    if remarks:
        lines += ["", "To know:", "", *(f"- {remark}" for remark in remarks)]
    return "\n".join(lines) + "\n"


def scores_csv(evaluation: MoaEvaluation) -> str:
    """A row a kind of profiles and rule: overall and by mechanism, as shares."""
    head = ["clean_up", "normalisation", "n_features", "rule", "mechanism", "accuracy", "n_scored"]
    rows: list[list[object]] = []
    for result in evaluation.results:
        start: list[object] = [result.clean_up, result.normalisation, result.n_features]
        for rule, matching in _matchings(result):
            rows.append([*start, rule, "", f"{matching.accuracy:.6f}", matching.n_scored])
            for name, share in matching.accuracy_by_mechanism().items():
                mine = matching.truth == matching.mechanisms.index(name)
                n = int((matching.is_scored & mine).sum())
                rows.append([*start, rule, name, f"{share:.6f}", n])
        rows.append([*start, "drop", "", f"{result.scores.drop:.6f}", ""])
    return _csv(head, rows)


def nearest_csv(evaluation: MoaEvaluation) -> str:
    """The nearest allowed neighbour of every treatment."""
    head = ["clean_up", "normalisation", "rule", "compound", "concentration", "mechanism", "batch"]
    head += ["nearest_compound", "nearest_concentration", "nearest_mechanism", "correct"]
    rows: list[list[object]] = []
    for result in evaluation.results:
        about = result.treatments.about
        names = list(about[["compound", "concentration", "mechanism"]].itertuples(index=False))
        for rule, matching in _matchings(result):
            for row in np.flatnonzero(matching.is_scored).tolist():
                other = names[int(matching.nearest[row])]
                mine = [*names[row], about["batch"].iloc[row]]
                correct = f"{matching.correct[row]:g}"
                start = [result.clean_up, result.normalisation, rule]
                rows.append([*start, *mine, *other, correct])
    return _csv(head, rows)


def confusion_csv(evaluation: MoaEvaluation) -> str:
    """Treatments by true and found mechanism; a tie counts in parts."""
    rows: list[list[object]] = []
    for result in evaluation.results:
        for rule, matching in _matchings(result):
            for (true, found), count in np.ndenumerate(matching.confusion):
                pair = [matching.mechanisms[true], matching.mechanisms[found]]
                kind = [result.clean_up, result.normalisation]
                rows.append([*kind, rule, *pair, f"{count:g}"])
    head = ["clean_up", "normalisation", "rule", "mechanism", "found_mechanism", "n_treatments"]
    return _csv(head, rows)


def _matchings(result: MoaResult) -> list[tuple[str, Matching]]:
    scores = result.scores
    both = [("NSC", scores.nsc)]
    # Where every mechanism is of one batch, there is nothing to show.
    if scores.nscb is not None and scores.nscb.n_scored:
        both.append(("NSCB", scores.nscb))
    return both


def _cells(result: MoaResult) -> list[str]:
    scores = result.scores
    found = dict(_matchings(result))
    counts = [f"{m.n_correct:g} / {m.n_scored}" for m in found.values()]
    shares = [f"{100 * m.accuracy:.1f}" for m in found.values()]
    if "NSCB" not in found:
        return [result.name, str(result.n_features), *shares, "-", "-", *counts, "-"]
    return [result.name, str(result.n_features), *shares, f"{100 * scores.drop:.1f}", *counts]


def _published_lines() -> list[str]:
    low, high = LJOSA_MEAN_PROFILES
    lines = ["", "Published on BBBC021's 103 treatments (other features, cells and images):", ""]
    lines += [_line(["Profiles", "NSC", "NSCB", "Drop", "Source"]), _line(["---"] * 5)]
    mean = "Ljosa 2013, means of CellProfiler's features"
    lines.append(_line([mean, f"{low:g}-{high:g}", "-", "-", SOURCES["quoted"]]))
    for score in BBBC021:
        values = [f"{v:g}" if v is not None else "-" for v in (score.nsc, score.nscb)]
        drop = f"{score.drop:.3g}" if score.drop is not None else "-"
        source = f"{SOURCES[score.source]}: {score.where}"
        lines.append(_line([score.name, *values, drop, source]))
    return lines


def _record(evaluation: MoaEvaluation) -> dict[str, object]:
    return {
        "profiles": evaluation.path.name,
        "n_rows": evaluation.n_rows,
        "n_wells": len(evaluation.wells),
        "settings": evaluation.settings.model_dump(mode="json"),
        "remarks": list(evaluation.remarks),
        "versions": versions(),
    }


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
