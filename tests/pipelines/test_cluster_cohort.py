"""Clusters of a cohort: chosen, centred, taken from elsewhere; cells stay as they are."""

from __future__ import annotations

import errno
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ccrl_wsi.clusters.codebook import load_codebook
from ccrl_wsi.clusters.kmeans import assign
from ccrl_wsi.config import load_settings
from ccrl_wsi.embeddings.ccrl_encoder import CcrlEncoder
from ccrl_wsi.embeddings.checkpoint import CropRule
from ccrl_wsi.errors import ClusterError, ConfigError, StoreError
from ccrl_wsi.records import SlideSource
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import open_store, telling_damage, update_description
from pipelines.export import ExportOptions, export_cohort
from pipelines.finish import FinishJob, finish_slide
from pipelines.machines import LocalMachine, SerialMachine
from pipelines.run import (
    check_codebook,
    cluster_again,
    run_cohort,
    settings_of_last_clusters,
)
from pipelines.verify import verify_output
from tests.pipelines.conftest import SMOKE
from tests.small_checkpoints import write_small_checkpoint

SERIAL = SerialMachine()


@pytest.fixture(scope="module")
def cohort(slide_file, drawn, smoke, tmp_path_factory):
    """A run of two slides, one of them stained more darkly, the other in a group."""
    folder = tmp_path_factory.mktemp("cohort")
    dark = 255 * (drawn.rgb / 255.0) ** 1.3
    write_pyramid(folder / "dark.tif", dark.astype(np.uint8), 0.5, compression="deflate")
    table = folder / "cohort.csv"
    table.write_text(f"path,group\n{slide_file},pale\n{folder / 'dark.tif'},\n")
    out = folder / "out"
    assert run_cohort(list_slides([str(table)]), out, smoke, SERIAL).exit_code == 0
    return out


@pytest.fixture
def out(cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "out", copy_function=shutil.copy2)
    return tmp_path / "out"


def again(out, *settings, machine=SERIAL):
    result = cluster_again(out, load_settings(overrides=[*SMOKE, *settings]), machine)
    assert result.exit_code == 0
    return load_codebook(out)


def stores(out):
    return [open_store(path) for path in sorted((out / "slides").glob("*.zarr"))]


def fingerprints(folder: Path) -> dict[str, tuple[int, str]]:
    """Time of the last change, and content, of every file."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_another_k_touches_clusters_overlays_and_tables_only(out):
    before = fingerprints(out)
    again(out, "clusters.k=4")
    after = fingerprints(out)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    allowed = ("overlays/", "state/", "codebook.", "composition", "cluster_settings.json")
    allowed += ("slides.csv", "run_report.json", ".lock")
    in_store = ("tables/cells/obs/cluster/", "tables/cells/obs/cluster_distance/", "overlays/")
    in_store += ("tables/cells/uns/cluster_colors/", "tables/cells/obs/zarr.json", "zarr.json")
    in_store += ("ccrl-seal.json",)
    for name in changed:
        if name.startswith("slides/"):
            assert name.split(".zarr/", 1)[1].startswith(in_store), name
        else:
            assert name.startswith(allowed), name
    assert any("obs/cluster/" in name for name in changed)
    assert verify_output(out)[0] == []


def test_k_is_chosen_and_what_was_compared_is_remembered(out):
    auto = ("clusters.k=auto", "clusters.auto.k_max=4", "clusters.auto.resamples=3")
    codebook = again(out, *auto)
    choice = codebook.record["choice_of_k"]
    assert choice["k"] == codebook.k
    assert [c["k"] for c in choice["candidates"]] == [3, 4]
    assert {name for store in stores(out) for name in store.categories("cluster")} == set(
        codebook.names
    )


def test_centred_slides_are_assigned_less_their_mean(out):
    codebook = again(out, "clusters.centre_slides=true")
    assert codebook.centres_slides
    for store in stores(out):
        vectors = store.embedding()
        mean = vectors.mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(store.attrs["clusters"]["slide_mean"], mean, rtol=1e-12)
        cluster, distance = assign(vectors - mean, codebook)
        np.testing.assert_array_equal(store.obs("cluster"), cluster)
        np.testing.assert_array_equal(store.obs("cluster_distance"), distance)
    assert verify_output(out)[0] == []
    again(out)
    assert all("slide_mean" not in store.attrs["clusters"] for store in stores(out))


def test_centring_takes_a_scanners_shift_away(cohort, tmp_path):
    def difference(*settings):
        shutil.copytree(cohort, tmp_path / "x")
        again(tmp_path / "x", *settings)
        shares = [
            np.bincount(s.obs("cluster"), minlength=3) / s.n_cells for s in stores(tmp_path / "x")
        ]
        shutil.rmtree(tmp_path / "x")
        return np.abs(shares[0] - shares[1]).sum()

    assert difference("clusters.centre_slides=true") < difference() / 2


def test_a_codebook_that_centres_centres_other_slides_by_their_own_means(out, slide_file, tmp_path):
    codebook = again(out, "clusters.centre_slides=true")
    settings = load_settings(overrides=[*SMOKE, f"clusters.codebook={out}"])
    run_cohort(list_slides([str(slide_file)]), tmp_path / "other", settings, SERIAL)
    [store] = stores(tmp_path / "other")
    vectors = store.embedding()
    cluster, _ = assign(vectors - vectors.mean(axis=0, dtype=np.float64), codebook)
    np.testing.assert_array_equal(store.obs("cluster"), cluster)
    assert load_codebook(tmp_path / "other").fingerprint == codebook.fingerprint


def test_workers_cluster_as_this_process_does(out, tmp_path):
    shutil.copytree(out, tmp_path / "dask")
    settings = ("clusters.centre_slides=true", "clusters.k=auto", "clusters.auto.k_max=4")
    a = again(out, *settings)
    b = again(tmp_path / "dask", *settings, machine=LocalMachine(workers=2))
    assert a.fingerprint == b.fingerprint
    assert a.record == b.record
    left, right = (fingerprints(folder / "slides") for folder in (out, tmp_path / "dask"))
    assert {name: value[1] for name, value in left.items()} == {
        name: value[1] for name, value in right.items()
    }


def test_groups_decide_the_sample_unless_told_otherwise(out):
    sizes = {}
    for state in sorted((out / "state").glob("*.json")):
        state.write_text(state.read_text().replace('"group": null', '"group": "dark"'))
    limits = ("clusters.sample_in_all=40", "clusters.k=2")
    for flag in ("true", "false"):
        sizes[flag] = again(out, *limits, f"clusters.balance_groups={flag}").record["slides"]
    assert set(sizes["true"].values()) == {20}
    assert sizes["true"] == sizes["false"]  # One slide a group: both are alike.


def test_a_codebook_of_another_encoder_or_crop_rule_is_refused(out, tmp_path):
    codebook = load_codebook(out)
    rules = [CropRule(scale=scale, size_px=32, mpp=0.5) for scale in (2.0, 2.5)]
    encoders = [
        CcrlEncoder(write_small_checkpoint(tmp_path / f"{i}.safetensors", crop=rule), "cpu", 8)
        for i, rule in enumerate(rules)
    ]
    assert encoders[0].fingerprint != encoders[1].fingerprint
    for encoder in encoders:
        with pytest.raises(ClusterError, match=r"encoder and crop rule, or fit a new codebook\.$"):
            codebook.check_encoder(encoder.name, encoder.fingerprint)


def test_a_folder_clustered_by_another_encoder_stays_as_it_was(out, slide_file, tmp_path):
    checkpoint = write_small_checkpoint(
        tmp_path / "small.safetensors", crop=CropRule(scale=2.0, size_px=32, mpp=0.5)
    )
    settings = load_settings(overrides=[*SMOKE, f"embedding.encoder={checkpoint}"])
    run_cohort(list_slides([str(slide_file)]), tmp_path / "other", settings, SERIAL)
    before = fingerprints(out)
    with pytest.raises(ClusterError, match="mean different things"):
        again(out, f"clusters.codebook={tmp_path / 'other'}")
    assert fingerprints(out) == before


def test_a_codebook_decides_what_the_next_fit_starts_from(out, cohort, tmp_path, caplog):
    shutil.copytree(cohort, tmp_path / "other")
    given = again(tmp_path / "other", "clusters.k=5", "clusters.centre_slides=true")
    asked = load_settings(overrides=[f"clusters.codebook={tmp_path / 'other'}"])
    check_codebook(asked)
    assert cluster_again(out, asked, SERIAL).exit_code == 0
    assert load_codebook(out).fingerprint == given.fingerprint
    last = settings_of_last_clusters(out)["clusters"]
    assert (last["k"], last["centre_slides"], last["codebook"]) == (5, True, None)
    assert "is not applied" not in caplog.text
    cluster_again(out, load_settings(base=settings_of_last_clusters(out)), SERIAL)
    assert load_codebook(out).k == 5
    assert f"the codebook {tmp_path / 'other'}, which gave the last ones, is not" in caplog.text


def test_another_number_of_clusters_than_the_codebooks_is_refused(out):
    codebook = f"clusters.codebook={out}"
    check_codebook(load_settings(overrides=[codebook, "clusters.k=3", "clusters.n_init=3"]))
    with pytest.raises(ConfigError, match=r"clusters\.k=8 cannot be followed.*\(k=3\)"):
        check_codebook(load_settings(overrides=[codebook, "clusters.k=8"]))
    with pytest.raises(ConfigError, match=r"clusters\.centre_slides=True cannot be followed"):
        check_codebook(load_settings(overrides=[codebook, "clusters.centre_slides=true"]))


@pytest.mark.parametrize("to", ["qupath", "anndata", "geoparquet", "tiaviz"])
def test_slides_of_two_codebooks_are_not_exported_together(out, tmp_path, to):
    update_description(out / "slides" / "dark.zarr", {"clusters": {"codebook": "another"}})
    options = ExportOptions(load_settings(overrides=SMOKE))
    with pytest.raises(StoreError, match=r"different codebooks.*Run `ccrl-wsi cluster`"):
        export_cohort(out, to, tmp_path / "x.parquet", options)
    assert not (tmp_path / "x.parquet").exists()


def test_an_export_of_some_slides_has_these_alone(out, tmp_path):
    options = ExportOptions(load_settings(overrides=SMOKE), slides=("dark",))
    [overlay] = export_cohort(out, "qupath", tmp_path / "qupath", options)
    assert overlay.name == "dark.geojson.gz"
    [table] = export_cohort(out, "geoparquet", tmp_path / "parquet", options)
    assert table.name == "dark.parquet"
    with pytest.raises(ConfigError, match="--slide bright: no finished slide"):
        export_cohort(out, "qupath", tmp_path, replace(options, slides=("dark", "bright")))


def test_what_cluster_refused_is_not_what_the_next_command_starts_from(out):
    before = settings_of_last_clusters(out)
    settings = load_settings(overrides=[*SMOKE, "clusters.k=30", "clusters.sample_in_all=9"])
    assert cluster_again(out, settings, SERIAL).exit_code == 1
    assert settings_of_last_clusters(out) == before
    again(out, "clusters.k=2")
    assert settings_of_last_clusters(out)["clusters"]["k"] == 2


def test_run_says_that_it_makes_other_clusters_again(out, smoke, caplog):
    slides: list[SlideSource] = []
    run_cohort(slides, out, smoke, SERIAL)
    assert "made again" not in caplog.text
    again(out, "clusters.k=2")
    run_cohort(slides, out, smoke, SERIAL)
    assert "are made again (clusters.k: 2 -> 3)" in caplog.text


def test_sound_stores_of_another_codebook_are_not_to_be_deleted(out):
    """Stopped after the new codebook was written, before any slide was."""
    before = (out / "codebook.safetensors").read_bytes()
    again(out, "clusters.k=2")
    (out / "codebook.safetensors").write_bytes(before)
    problems, _ = verify_output(out)
    assert len(problems) == 2
    assert all("Run `ccrl-wsi cluster` again" in problem for problem in problems)
    assert "Delete" not in " ".join(problems)


def test_a_damaged_codebook_does_not_make_stores_damaged(out):
    (out / "codebook.safetensors").write_bytes(b"x" * 100)
    store = out / "slides" / "dark.zarr"
    job = FinishJob("dark", store, out / "codebook.safetensors", out, load_settings(), {})
    with pytest.raises(ClusterError, match=r"codebook\.safetensors"):
        finish_slide(job)


def test_a_full_disk_is_no_damage(tmp_path):
    with pytest.raises(StoreError, match="Check free space") as told, telling_damage(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "Delete" not in str(told.value)
    with pytest.raises(StoreError, match="Delete"), telling_damage(tmp_path):
        raise OSError(errno.EIO, "Input/output error")


def test_a_store_that_lost_its_clusters_gets_them_back(out):
    codebook = load_codebook(out)
    again(out, "clusters.k=4")
    older = shutil.copytree(out / "slides" / "dark.zarr", out.parent / "older.zarr")
    again(out)
    for late in (older, None):
        # A worker that was taken for dead ends, and its store takes the place of the finished one.
        path = out / "slides" / "dark.zarr"
        if late is not None:
            shutil.rmtree(path)
            shutil.copytree(late, path)
        else:
            (path / "ccrl-seal.json").rename(path / "ccrl-seal.json.broken")
        assert verify_output(out)[0] != []
        again(out)
        assert verify_output(out)[0] == []
    assert {s.attrs["clusters"]["codebook"] for s in stores(out)} == {codebook.fingerprint}
