"""The number of clusters: found where there is one, and doubted where there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ccrl_wsi.cluster_settings import AutoKSettings, ClusterSettings
from ccrl_wsi.clusters.choose_k import ChoiceOfK, KCandidate, _choose, choose_k
from ccrl_wsi.clusters.codebook import load_codebook, save_codebook
from ccrl_wsi.clusters.kmeans import fit_codebook
from ccrl_wsi.errors import ClusterError

FEW = AutoKSettings(k_min=2, k_max=8, resamples=5, cells=1200)


def blobs(k, n=1500, spread=0.5, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.permutation(np.eye(8) * 8)[:k]
    return centers[np.arange(n) % k] + rng.normal(0, spread, (n, 8))


@pytest.mark.parametrize("k", [2, 3, 5, 7])
def test_separate_groups_are_counted(k):
    choice = choose_k(blobs(k), FEW, seed=0)
    assert choice.k == k
    assert choice.is_stable
    assert [c.k for c in choice.candidates] == list(range(2, 9))
    assert choice.candidates[k - 2].stability == pytest.approx(1)
    assert choice == choose_k(blobs(k), FEW, seed=0)


def test_no_groups_are_said_to_be_unstable():
    points = np.random.default_rng(0).normal(size=(1500, 8))
    choice = choose_k(points, FEW, seed=0)
    assert not choice.is_stable
    assert all(c.stability < 0.8 for c in choice.candidates)


def test_the_range_is_kept_to():
    choice = choose_k(blobs(3), AutoKSettings(k_min=4, k_max=6, resamples=3, cells=600), seed=0)
    assert [c.k for c in choice.candidates] == [4, 5, 6]
    assert choice.k in (4, 5, 6)


def test_small_cohorts_are_compared_as_far_as_they_go():
    choice = choose_k(blobs(2, n=24), FEW, seed=0)
    assert [c.k for c in choice.candidates] == [2, 3, 4]
    assert choice.k == 2


@pytest.mark.parametrize("points", [np.eye(8), np.ones((500, 8)), np.zeros((0, 8))])
def test_too_few_different_cells_are_told(points):
    with pytest.raises(ClusterError, match=r"too few to choose .*clusters.k=2"):
        choose_k(points, FEW, seed=0)


def candidate(k, stability, silhouette, error=0.02):
    return KCandidate(k, stability, error, silhouette, error)


@pytest.mark.parametrize(
    ("candidates", "k", "is_stable"),
    [
        ([candidate(2, 0.9, 0.30), candidate(3, 0.9, 0.5), candidate(4, 0.7, 0.9)], 3, True),
        ([candidate(2, 0.9, 0.49), candidate(3, 0.9, 0.5), candidate(4, 0.9, 0.3)], 2, True),
        ([candidate(2, 0.3, 0.9), candidate(3, 0.6, 0.1), candidate(4, 0.61, 0.1)], 3, False),
    ],
)
def test_the_rule_of_choice(candidates, k, is_stable):
    choice = _choose(tuple(candidates), 0.8)
    assert (choice.k, choice.is_stable) == (k, is_stable)


def test_a_codebook_with_a_chosen_k_remembers_what_was_compared(tmp_path):
    settings = ClusterSettings(k="auto", auto=FEW, n_init=2)
    codebook = fit_codebook(
        blobs(4), settings, seed=0, encoder=("e", "f"), standardise=True, record={"seed": 0}
    )
    assert codebook.k == 4
    save_codebook(tmp_path / "codebook.safetensors", codebook)
    record = load_codebook(tmp_path).record
    assert record["choice_of_k"]["k"] == 4
    assert [c["k"] for c in record["choice_of_k"]["candidates"]] == list(range(2, 9))
    assert json.loads(json.dumps(ChoiceOfK(4, True, ()).record())) == {
        "k": 4, "is_stable": True, "candidates": []
    }  # fmt: skip
