"""Clusters: fitted once, assigned exactly, numbered the same way every time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.clusters.centring import mean_embedding
from ccrl_wsi.clusters.codebook import Codebook, load_codebook, save_codebook
from ccrl_wsi.clusters.composition import (
    Composition,
    composition_long,
    composition_rows,
    count_clusters,
)
from ccrl_wsi.clusters.kmeans import assign, fit_codebook, sample_rows, sample_sizes
from ccrl_wsi.config import ClusterSettings, load_settings
from ccrl_wsi.errors import ClusterError, ConfigError


def blobs(sizes=(300, 200, 100), seed=0):
    rng = np.random.default_rng(seed)
    centers = np.array([[0.0, 0, 0], [10, 0, 0], [0, 10, 0]])
    truth = np.repeat(np.arange(len(sizes)), sizes)
    return centers[truth] + rng.normal(0, 0.5, (len(truth), 3)), truth


def fit(vectors, k=3, standardise=False):
    return fit_codebook(
        vectors,
        ClusterSettings(k=k),
        seed=0,
        encoder=("e", "f"),
        standardise=standardise,
        record={},
    )


def test_separate_groups_are_found_and_numbered_by_size():
    vectors, truth = blobs()
    shuffled = np.random.default_rng(1).permutation(len(vectors))
    for order in (np.arange(len(vectors)), shuffled):
        codebook = fit(vectors[order])
        assert codebook.sizes == (300, 200, 100)
        np.testing.assert_array_equal(assign(vectors, codebook)[0], truth)


def test_assignment_equals_the_slow_definition():
    vectors, _ = blobs()
    codebook = fit(vectors, standardise=True)
    scaled = (vectors - codebook.mean) / codebook.std
    slow = np.array([[np.sqrt(((x - c) ** 2).sum()) for c in codebook.centers] for x in scaled])
    cluster, distance = assign(vectors, codebook)
    np.testing.assert_array_equal(cluster, slow.argmin(axis=1))
    np.testing.assert_allclose(distance, slow.min(axis=1), rtol=1e-6)


def test_assignment_does_not_depend_on_the_chunk(monkeypatch):
    vectors, _ = blobs()
    codebook = fit(vectors)
    whole = assign(vectors, codebook)
    monkeypatch.setattr("ccrl_wsi.clusters.kmeans.CHUNK", 7)
    for a, b in zip(whole, assign(vectors, codebook), strict=True):
        np.testing.assert_array_equal(a, b)


def test_standardising_makes_units_irrelevant():
    vectors, _ = blobs()
    a = fit(vectors, standardise=True)
    b = fit(vectors * [1, 1000, 1e-3], standardise=True)
    np.testing.assert_allclose(a.centers, b.centers, atol=1e-9)


def test_a_constant_dimension_does_not_break_standardising():
    vectors, truth = blobs()
    vectors = np.column_stack([vectors, np.full(len(vectors), 7.0)])
    np.testing.assert_array_equal(assign(vectors, fit(vectors, standardise=True))[0], truth)


@pytest.mark.parametrize("vectors", [np.zeros((2, 3)), np.ones((50, 3)), np.zeros((0, 3))])
def test_fewer_different_cells_than_clusters_is_told(vectors):
    with pytest.raises(ClusterError, match="clusters.k="):
        fit(vectors)


def test_infinite_embeddings_are_refused():
    with pytest.raises(ClusterError, match="not finite"):
        fit(np.array([[np.nan, 0.0, 1.0]] * 5))


def test_a_codebook_survives_the_disk(tmp_path):
    vectors, _ = blobs()
    codebook = fit(vectors, standardise=True)
    save_codebook(tmp_path / "c.safetensors", codebook)
    loaded = load_codebook(tmp_path / "c.safetensors")
    assert loaded.fingerprint == codebook.fingerprint
    assert loaded.sizes == codebook.sizes
    loaded.check_encoder("e", "f")
    with pytest.raises(ClusterError, match="mean different things"):
        loaded.check_encoder("e", "other")


@pytest.mark.parametrize("content", [None, b"", b"hello", b"\x80\x04pickle" * 50])
def test_a_foreign_codebook_is_named(tmp_path, content):
    path = tmp_path / "c.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClusterError, match="codebook"):
        load_codebook(path)


@given(n=st.lists(st.integers(0, 500), min_size=1, max_size=20), per=st.integers(1, 200))
def test_every_slide_gives_the_same_share_or_all_it_has(n, per):
    sizes = sample_sizes(n, per, 1000)
    share = max(1, min(per, 1000 // len(n)))
    assert sizes == [min(cells, share) for cells in n]


def test_a_slides_sample_does_not_depend_on_other_slides():
    rows = sample_rows(1000, 50, 0, "a")
    np.testing.assert_array_equal(rows, sample_rows(1000, 50, 0, "a"))
    assert (np.diff(rows) > 0).all()
    assert set(rows) != set(sample_rows(1000, 50, 0, "b"))


def test_composition_counts_add_up():
    slide = Composition("s", None, "g", 2.0, count_clusters(np.array([0, 0, 2]), 3))
    header, [row] = composition_rows([slide], ["C01", "C02", "C03"])
    table = dict(zip(header, row, strict=True))
    assert table["n_cells"] == 3
    assert (table["C01_n"], table["C02_n"], table["C03_n"]) == (2, 0, 1)
    assert table["C01_fraction"] == pytest.approx(2 / 3, abs=1e-6)
    assert table["C03_per_mm2"] == 0.5


def test_an_empty_slide_has_no_fractions():
    header, [row] = composition_rows([Composition("s", None, None, 0.0, (0, 0))], ["C01", "C02"])
    assert dict(zip(header, row, strict=True))["C01_fraction"] == ""


def test_codebooks_of_different_encoders_have_different_fingerprints():
    a = Codebook(np.eye(2), np.zeros(2), np.ones(2), "e", "f", (1, 1), {})
    b = Codebook(np.eye(2), np.zeros(2), np.ones(2), "e", "g", (1, 1), {})
    assert a.fingerprint != b.fingerprint


def test_the_tidy_composition_has_a_row_for_each_cluster_of_each_slide():
    slides = [
        Composition("s1", "p", None, 2.0, (3, 0)),
        Composition("s2", None, "g", 0.0, (0, 0)),
    ]
    table = composition_long(slides, ["C01", "C02"])
    assert table["slide_id"].tolist() == ["s1", "s1", "s2", "s2"]
    assert table["cluster"].tolist() == ["C01", "C02"] * 2
    assert table["cells"].tolist() == [3, 0, 0, 0]
    assert table["patient"].isna().tolist() == [False, False, True, True]
    assert table["fraction"].tolist()[:2] == [1.0, 0.0]
    assert table["density_per_mm2"].tolist()[:2] == [1.5, 0.0]
    assert table.iloc[2:][["fraction", "density_per_mm2"]].isna().all(axis=None)


def test_the_tidy_composition_of_no_slides_has_its_columns():
    table = composition_long([], ["C01"])
    assert len(table) == 0
    assert list(table) == [
        "slide_id", "patient", "group", "cluster", "cells", "fraction", "density_per_mm2"
    ]  # fmt: skip


def test_groups_give_alike_whatever_their_number_of_slides():
    groups = ["case"] * 2 + ["control"] * 6
    sizes = sample_sizes([5000] * 8, 600, 100_000, groups)
    assert sizes == [600] * 2 + [200] * 6


def test_groups_keep_to_the_limit_in_all():
    sizes = sample_sizes([5000] * 9, 600, 1000, ["a"] * 2 + ["b"] * 6 + [None])
    assert sum(sizes[:2]) == pytest.approx(sum(sizes[2:8]), abs=6)
    assert 900 < sum(sizes) <= 1000


@pytest.mark.parametrize("groups", [None, [None, None, ""], ["a", "a", "a"], ["a", None, ""]])
def test_with_fewer_than_two_groups_all_slides_give_alike(groups):
    assert sample_sizes([50, 10, 50], 20, 1000, groups) == [20, 10, 20]


def test_slides_without_a_group_do_not_outweigh_the_others():
    sizes = sample_sizes([900] * 5, 300, 10_000, ["a", "b", "b", "b", None])
    assert sizes == [300, 100, 100, 100, 100]


@given(
    slides=st.lists(
        st.tuples(st.integers(1, 500), st.sampled_from(["a", "b", "c", None])), min_size=1
    ),
    per=st.integers(1, 200),
    in_all=st.integers(100, 2000),
)
def test_a_sample_by_groups_keeps_to_all_limits(slides, per, in_all):
    n_cells, groups = zip(*slides, strict=True)
    sizes = sample_sizes(n_cells, per, in_all, groups)
    assert all(1 <= size <= min(n, per) for size, n in zip(sizes, n_cells, strict=True))
    assert sum(sizes) <= max(in_all, len(slides))


def test_the_mean_of_chunks_is_the_mean():
    rows = np.random.default_rng(0).normal(3, 1, (100, 5)).astype(np.float32)
    chunks = [rows[:30], rows[30:30], rows[30:]]
    np.testing.assert_allclose(mean_embedding(chunks, 5), rows.mean(axis=0), rtol=1e-5)
    assert mean_embedding([], 5).tolist() == [0] * 5


def test_a_codebook_that_centres_says_so_on_disk_and_is_another(tmp_path):
    plain = Codebook(np.eye(2), np.zeros(2), np.ones(2), "e", "f", (1, 1), {})
    centred = dataclasses.replace(plain, centres_slides=True)
    assert plain.fingerprint != centred.fingerprint
    for number, codebook in enumerate((plain, centred)):
        save_codebook(tmp_path / f"{number}.safetensors", codebook)
        loaded = load_codebook(tmp_path / f"{number}.safetensors")
        assert loaded.centres_slides is codebook.centres_slides
        assert loaded.fingerprint == codebook.fingerprint


@pytest.mark.parametrize("name", ["codebook.safetensors", "codebook", ""])
def test_a_codebook_is_found_by_folder_and_without_its_ending(tmp_path, name):
    plain = Codebook(np.eye(2), np.zeros(2), np.ones(2), "e", "f", (1, 1), {})
    save_codebook(tmp_path / "codebook.safetensors", plain)
    assert load_codebook(tmp_path / name).fingerprint == plain.fingerprint


def test_a_folder_without_a_codebook_is_told(tmp_path):
    with pytest.raises(ClusterError, match=r"No codebook at .*codebook.safetensors"):
        load_codebook(tmp_path)


@pytest.mark.parametrize("k", ["1", "31", "true", "2.5", "many"])
def test_a_number_of_clusters_that_cannot_be_is_one_sentence(k):
    with pytest.raises(ConfigError, match=r"clusters.k must be 2 to 30, or auto"):
        load_settings(overrides=[f"clusters.k={k}"])
    assert load_settings(overrides=["clusters.k=auto"]).clusters.k == "auto"
