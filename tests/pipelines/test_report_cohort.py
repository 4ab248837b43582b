"""What a report says of a cohort, from compositions drawn with known groups and sites."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from ccrl_wsi.cohort.slide_traits import Traits
from ccrl_wsi.config import load_settings
from ccrl_wsi.report_content import ReportSlide
from pipelines.report_cohort import (
    compare_all_groups,
    compare_labels,
    find_batch_effects,
    find_compositions,
)


def slide(name, counts, patient=None, group=None):
    return ReportSlide(
        slide_id=name,
        patient=patient,
        group=group,
        mpp=0.25,
        tissue_mm2=1.0,
        n_cells=int(sum(counts)),
        n_clipped=0,
        warnings=(),
        counts=tuple(int(n) for n in counts),
        overlays=(),
    )


def cohort(seed, n_patients=6, n_slides=4):
    """Patients who differ, their slides hardly."""
    rng = np.random.default_rng(seed)
    return [
        slide(f"s{p}_{i}", rng.multinomial(5000, rng.dirichlet(300 * own)), f"p{p}")
        for p, own in enumerate(rng.dirichlet(np.full(5, 3.0), size=n_patients))
        for i in range(n_slides)
    ]


def sites_told(slides, site_of):
    found = find_compositions(slides)
    traits = {s.slide_id: Traits(s.patient, site=site_of(s)) for s in slides}
    vendors = dict.fromkeys(traits, "generic-tiff")
    return find_batch_effects(found, traits, vendors, None, seed=0)


def test_patients_who_differ_are_no_effect_of_their_sites():
    verdicts = []
    for seed in range(4):
        sites = np.random.default_rng(seed).permutation(list("aaabbb"))
        found = sites_told(cohort(seed), lambda s, sites=sites: sites[int(s.patient[1:])])
        verdicts.append(found[0].sentence.startswith("It can be told"))
    assert sum(verdicts) <= 1


def test_patients_of_two_sites_are_left_out_and_said():
    (found,) = sites_told(cohort(0), lambda s: "ab"[int(s.slide_id[-1]) % 2])
    assert found.score is None
    assert "6 patients are left out, with slides of several." in found.sentence


def test_sites_that_are_told_fully_but_by_too_few_patients_are_not_denied():
    rows = [[900, 100], [880, 120], [910, 90], [100, 900], [90, 910], [120, 880]]
    slides = [slide(f"s{i}", counts, f"p{i}") for i, counts in enumerate(rows)]
    (found,) = sites_told(slides, lambda s: "aaabbb"[int(s.slide_id[1])])
    assert found.score == 1
    assert found.sentence == (
        "Too few patients to tell: even the clearest difference has p = 0.10."
    )


def test_slides_of_unknown_patients_stand_for_themselves():
    slides = [slide(s.slide_id, s.counts) for s in cohort(1)]
    (found,) = sites_told(slides, lambda s: "ab"[int(s.slide_id[1]) % 2])
    assert found.score is not None


def test_slides_without_a_group_do_not_count_for_their_patient():
    rows = [[900, 100], [100, 900], [800, 200], [500, 500], [550, 450]]
    groups = ["ill", None, "ill", "well", "well"]
    patients = ["p0", "p0", "p1", "p2", "p3"]
    made = zip(rows, patients, groups, strict=True)
    slides = [slide(f"s{i}", *about) for i, about in enumerate(made)]
    settings = load_settings(overrides=["report.n_permutations=99", "report.n_bootstrap=100"])
    groups_of_all = compare_all_groups(find_compositions(slides), settings)
    without = compare_all_groups(find_compositions(slides[:1] + slides[2:]), settings)
    assert "1 of 5 slides has no group and is left out." in groups_of_all.sentences
    (one,), (other,) = groups_of_all.comparisons, without.comparisons
    assert one.clusters[0].difference == pytest.approx(other.clusters[0].difference)


class LabelledStore:
    """A store's columns `cluster` and `label`, and nothing else."""

    has_labels, slide_id, path = True, "s", "s.zarr"

    def __init__(self, seed: int, n: int, names: tuple[str, ...]) -> None:
        rng = np.random.default_rng(seed)
        self.names = names
        self.columns = {
            "cluster": rng.integers(-1, 4, n).astype(np.int16),
            "label": rng.integers(-1, len(names) - 1, n).astype(np.int8),
        }

    def obs(self, name: str) -> np.ndarray:
        return self.columns[name]

    def categories(self, _: str) -> tuple[str, ...]:
        return self.names


def test_labels_are_compared_in_memory_for_a_few_numbers_a_cell():
    n = 300_000
    names = [("tumour", "a class with a long name", "of no cell"), ("stroma", "tumour", "no cell")]
    stores = [LabelledStore(seed, n, own) for seed, own in enumerate(names)]
    slides = [SimpleNamespace(entry=slide("s", [n]), store=store) for store in stores]
    compare_labels(slides[:1], 4)  # Imports are not what is measured.
    tracemalloc.start()
    table = compare_labels(slides, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    both = [(s.columns["cluster"] >= 0) & (s.columns["label"] >= 0) for s in stores]
    assert peak < 80 * sum(map(np.count_nonzero, both))
    assert table.labels == ("a class with a long name", "stroma", "tumour")
    cluster = np.concatenate([s.columns["cluster"][b] for s, b in zip(stores, both, strict=True)])
    label = np.concatenate(
        [np.array(s.names)[s.columns["label"][b]] for s, b in zip(stores, both, strict=True)]
    )
    for name, counts in zip(table.labels, table.counts, strict=True):
        assert counts.tolist() == np.bincount(cluster[label == name], minlength=4).tolist()
    assert table.agreement == pytest.approx(
        adjusted_mutual_info_score(label, cluster), rel=1e-9, abs=1e-12
    )
