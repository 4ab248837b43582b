"""What a report says of the cohort: compositions, groups, scanner and site, labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.clusters.batch_effect import predictability
from ccrl_wsi.cohort.group_differences import MIN_PATIENTS, adjust_together, compare_groups
from ccrl_wsi.cohort.log_ratio import centred_log_ratio
from ccrl_wsi.cohort.ordination import principal_components, tree_of
from ccrl_wsi.cohort.patients import Pooled, pool_patients
from ccrl_wsi.cohort.slide_traits import Traits
from ccrl_wsi.cohort_records import LEVEL
from ccrl_wsi.config import Settings
from ccrl_wsi.evaluation.clustering_scores import cells_of_table, confusion_table, score_clusters
from ccrl_wsi.report_content import BatchFinding, Compositions, Groups, LabelTable, ReportSlide
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.wording import counted
from pipelines.report_slides import OpenReportSlide, reading

MOST_GROUPS = 5
"""More give so many pairs that none of them says anything."""

CELLS_OF_MEANS = 2000
"""Of each slide; the mean of more is hardly another."""


def find_compositions(slides: Sequence[ReportSlide]) -> Compositions | None:
    """Of the slides that have cells with clusters; None if there are none."""
    own = tuple(slide for slide in slides if slide.counts and sum(slide.counts))
    if not own:
        return None
    counts = counts_of(own)
    ratios = centred_log_ratio(counts)
    pooled = _pool(own, counts)
    is_pooled = len(pooled.names) < len(own) or any(slide.patient for slide in own)
    # Clusters are compared by how they vary from slide to slide, not by how large they are.
    vary = (ratios - ratios.mean(axis=0)).T
    return Compositions(
        slides=own,
        ratios=ratios,
        patients=pooled.names if is_pooled else (),
        patient_counts=pooled.counts,
        slide_tree=tree_of(ratios),
        patient_tree=tree_of(centred_log_ratio(pooled.counts)),
        cluster_tree=tree_of(vary),
        components=principal_components(ratios),
    )


def counts_of(slides: Sequence[ReportSlide]) -> IntArray:
    """Cells (n, k) of each cluster on ``slides`` that have clusters."""
    return np.array([slide.counts for slide in slides], np.int64)


def compare_all_groups(found: Compositions, settings: Settings) -> Groups | None:
    """Every two groups of patients; None where no slide has a group."""
    if not any(slide.group for slide in found.slides):
        return None
    own_slides = [slide for slide in found.slides if slide.group]
    pooled = _pool(own_slides, counts_of(own_slides))
    names = sorted({slide.group for slide in own_slides if slide.group})
    sentences = _group_sentences(found.slides, pooled, names)
    groups = np.array(pooled.groups, object)
    comparisons = []
    for first, second in combinations(names, 2) if len(names) <= MOST_GROUPS else ():
        own = (groups == first) | (groups == second)
        compared = compare_groups(
            centred_log_ratio(pooled.counts[own]),
            (groups == second)[own],
            (first, second),
            n_permutations=settings.report.n_permutations,
            n_bootstrap=settings.report.n_bootstrap,
            rng=rng_for(settings.seed, "group differences", first, second),
        )
        if compared is None:
            sentences.append(
                f"{first} and {second} cannot be compared: each needs {MIN_PATIENTS} patients at "
                f"least, they have {int((groups == first).sum())} and "
                f"{int((groups == second).sum())}."
            )
        else:
            comparisons.append(compared)
    return Groups(tuple(adjust_together(comparisons)), tuple(sentences))


def find_batch_effects(
    found: Compositions,
    traits: Mapping[str, Traits],
    vendors: Mapping[str, str],
    means: FloatArray | None,
    seed: int,
) -> tuple[BatchFinding, ...]:
    """How well site and scanner are told from compositions and from mean embeddings.

    Parameters
    ----------
    vendors
        The file format of each slide, which stands for the scanner where nothing else is known.
    means
        (n, d) mean embedding of each slide of ``found``; None where slides are centred, which
        makes them all alike.
    """
    ids = [slide.slide_id for slide in found.slides]
    asked: dict[str, list[str | None]] = {
        "site": [traits[name].site for name in ids],
        "scanner": [traits[name].scanner for name in ids],
        "file format (scanner's vendor)": [vendors[name] for name in ids],
    }
    if any(asked["scanner"]):
        del asked["file format (scanner's vendor)"]
    patients = [_patient_of(slide) for slide in found.slides]
    findings = []
    for trait, values in asked.items():
        if len({value for value in values if value}) < 2:
            continue
        findings.append(_batch_finding(trait, "composition", found.ratios, values, patients, seed))
        if means is not None and findings[-1].score is not None:
            more = _batch_finding(trait, "mean embedding", means, values, patients, seed)
            findings.append(more)
    return tuple(findings)


def mean_embeddings(
    found: Compositions, slides: Sequence[OpenReportSlide], seed: int
) -> FloatArray:
    """Mean embedding (n, d) of some cells of each slide of ``found``."""
    stores = {slide.entry.slide_id: slide.store for slide in slides}
    means = []
    for name in (slide.slide_id for slide in found.slides):
        store = stores[name]
        rng = rng_for(seed, "mean embedding", name)
        n = min(store.n_cells, CELLS_OF_MEANS)
        with reading(store):
            rows = np.sort(rng.choice(store.n_cells, n, replace=False))
            means.append(store.embedding_rows(rows).mean(axis=0, dtype=np.float64))
    return np.stack(means)


def compare_labels(slides: Sequence[OpenReportSlide], k: int) -> LabelTable | None:
    """Labels from QuPath against clusters; None where no cell has a label.

    Of a slide only counts are kept.
    """
    by_name: dict[str, IntArray] = {}
    for slide in slides:
        if slide.entry.counts is None or not slide.store.has_labels:
            continue
        with reading(slide.store):
            codes, cluster = slide.store.obs("label"), slide.store.obs("cluster")
            names = slide.store.categories("label")
        both = (codes >= 0) & (cluster >= 0)
        if not both.any():
            continue
        table = confusion_table(cluster[both], codes[both], k, len(names))
        for name, counts in zip(names, table.T, strict=True):
            by_name[name] = by_name.get(name, 0) + counts
    present = sorted(name for name, counts in by_name.items() if counts.any())
    if not present:
        return None
    whole = np.stack([by_name[name] for name in present])
    cluster, label = cells_of_table(whole.T)
    return LabelTable(tuple(present), whole, score_clusters(cluster, label).ami)


def _pool(slides: Sequence[ReportSlide], counts: IntArray) -> Pooled:
    return pool_patients(
        [slide.slide_id for slide in slides],
        [slide.patient for slide in slides],
        [slide.group for slide in slides],
        counts,
    )


def _group_sentences(
    slides: Sequence[ReportSlide], pooled: Pooled, names: Sequence[str]
) -> list[str]:
    sentences = []
    if any(slide.patient is None for slide in slides):
        sentences.append(
            "Slides without a named patient count as one patient each. If some are of the same "
            "patient, differences look surer than they are: name patients."
        )
    if pooled.in_several:
        sentences.append(
            f"Left out, because their slides are of several groups: {', '.join(pooled.in_several)}."
        )
    unknown = sum(1 for slide in slides if not slide.group)
    if unknown:
        verbs = ("has", "is") if unknown == 1 else ("have", "are")
        of_all = f"{unknown} of {counted(len(slides), 'slide')}"
        sentences.append(f"{of_all} {verbs[0]} no group and {verbs[1]} left out.")
    if len(names) == 1:
        sentences.append(f"All slides with a group are of {names[0]}: there is nothing to compare.")
    if len(names) > MOST_GROUPS:
        sentences.append(
            f"There are {len(names)} groups; at most {MOST_GROUPS} are compared. Put some together."
        )
    return sentences


def _batch_finding(
    trait: str,
    source: str,
    numbers: FloatArray,
    values: Sequence[str | None],
    patients: Sequence[str],
    seed: int,
) -> BatchFinding:
    """Patients are held out and shuffled whole: their slides are alike wherever they are made."""
    asked, left_out = _of_one_value(values, patients)
    found = predictability(numbers, asked, patients, seed, unit="patient")
    note = " ".join(part for part in (left_out, found.note) if part)
    if math.isnan(found.balanced_accuracy):
        return BatchFinding(trait, source, None, None, note)
    if not found.can_be_significant:
        verdict = ""  # The note says so.
    elif found.p_value <= LEVEL:
        verdict = (
            f"It can be told (p = {found.p_value:.2f}): clusters depend on it, or the patients do."
        )
    else:
        verdict = f"It is not told clearly better than by guessing (p = {found.p_value:.2f})."
    sentence = " ".join(part for part in (verdict, note) if part)
    return BatchFinding(trait, source, found.balanced_accuracy, found.chance, sentence)


def _of_one_value(
    values: Sequence[str | None], patients: Sequence[str]
) -> tuple[list[str | None], str]:
    """``values`` without those of patients who have several, and a sentence about these."""
    of_patient: dict[str, set[str]] = {}
    for value, patient in zip(values, patients, strict=True):
        of_patient.setdefault(patient, set()).update([value] if value else [])
    several = {patient for patient, own in of_patient.items() if len(own) > 1}
    asked = [None if p in several else v for v, p in zip(values, patients, strict=True)]
    if not several:
        return asked, ""
    patients_are = "1 patient is" if len(several) == 1 else f"{len(several)} patients are"
    return asked, f"{patients_are} left out, with slides of several."


def _patient_of(slide: ReportSlide) -> str:
    """Who a slide is of; a slide of an unknown patient stands for itself."""
    if slide.patient is None:
        return f"slide {slide.slide_id}"
    return f"patient {slide.patient}"
