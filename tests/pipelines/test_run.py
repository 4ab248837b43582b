"""The whole job on drawn slides: serial equals Dask, stopped equals never stopped."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

from ccrl_wsi.config import load_settings
from ccrl_wsi.embeddings.checkpoint import CropRule
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import open_store
from pipelines.machines import AddressMachine, LocalMachine, SerialMachine
from pipelines.run import (
    cluster_again,
    refuse_cell_settings,
    run_cohort,
    settings_of_last_clusters,
)
from pipelines.verify import verify_output
from tests.pipelines.commands import start_until_first_part
from tests.pipelines.conftest import SMOKE
from tests.small_checkpoints import WIDTHS, write_small_checkpoint


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same_results(a: Path, b: Path) -> None:
    """Every file of stores and overlays, byte for byte."""
    for part in ("slides", "overlays"):
        left, right = files_of(a / part), files_of(b / part)
        assert left.keys() == right.keys()
        assert [name for name in left if left[name] != right[name]] == []
    tables = ("composition.csv", "composition_long.csv", "composition_long.parquet", "slides.csv")
    for table in (*tables, "codebook.safetensors"):
        assert (a / table).read_bytes() == (b / table).read_bytes()


@pytest.fixture(scope="module")
def serial(slide_file, smoke, tmp_path_factory):
    out = tmp_path_factory.mktemp("serial")
    result = run_cohort(list_slides([str(slide_file)]), out, smoke, SerialMachine())
    assert result.exit_code == 0
    return out


def test_the_nuclei_of_a_drawn_slide_are_found(serial, drawn):
    store = open_store(serial / "slides" / "drawn.zarr")
    distance = np.linalg.norm(store.centroids()[None] - drawn.centroid_px[:, None], axis=2)
    assert np.mean(distance.min(axis=1) < 6) > 0.8
    assert store.n_cells == pytest.approx(len(drawn.area_px), rel=0.25)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_dask_writes_what_serial_writes(slide_file, smoke, serial, tmp_path, workers):
    machine = LocalMachine(workers=workers)
    run_cohort(list_slides([str(slide_file)]), tmp_path / "out", smoke, machine)
    assert_same_results(serial, tmp_path / "out")


def start(slide_file: Path, out: Path) -> subprocess.Popen[bytes]:
    settings = [part for setting in SMOKE for part in ("--set", setting)]
    command = [sys.executable, "-m", "pipelines.cli", "run", str(slide_file), "-o", str(out)]
    return subprocess.Popen(
        [*command, *settings, "--on", "serial"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.parametrize("n_parts", [1, 5, 11])
def test_a_killed_run_continues_and_ends_with_the_same_files(slide_file, serial, tmp_path, n_parts):
    process = start(slide_file, tmp_path)
    parts = tmp_path / "work" / "drawn" / "parts"
    deadline = time.monotonic() + 120
    while process.poll() is None and len(list(parts.glob("p*.npz"))) < n_parts:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert start(slide_file, tmp_path).wait(timeout=240) == 0
    assert_same_results(serial, tmp_path)


def test_a_second_run_does_nothing_again(slide_file, smoke, serial):
    before = {p: p.stat().st_mtime_ns for p in (serial / "slides").rglob("*") if p.is_file()}
    run_cohort(list_slides([str(slide_file)]), serial, smoke, SerialMachine())
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_another_k_changes_clusters_only(slide_file, smoke, serial, tmp_path):
    run_cohort(list_slides([str(slide_file)]), tmp_path, smoke, SerialMachine())
    store = tmp_path / "slides" / "drawn.zarr"
    before = files_of(store / "tables" / "cells" / "X")
    again = load_settings(overrides=[*SMOKE, "clusters.k=4"])
    assert cluster_again(tmp_path, again, SerialMachine()).exit_code == 0
    assert files_of(store / "tables" / "cells" / "X") == before
    assert set(np.unique(open_store(store).obs("cluster"))) == {0, 1, 2, 3}
    assert verify_output(tmp_path)[0] == []


def test_a_codebook_of_another_run_is_applied_unchanged(slide_file, serial, smoke, tmp_path):
    codebook = serial / "codebook.safetensors"
    settings = load_settings(overrides=[*SMOKE, f"clusters.codebook={codebook}", "clusters.k=5"])
    run_cohort(list_slides([str(slide_file)]), tmp_path, settings, SerialMachine())
    a, b = (open_store(out / "slides" / "drawn.zarr") for out in (serial, tmp_path))
    np.testing.assert_array_equal(a.obs("cluster"), b.obs("cluster"))
    np.testing.assert_array_equal(a.obs("cluster_distance"), b.obs("cluster_distance"))


def test_other_settings_in_the_same_folder_are_refused(slide_file, serial):
    other = load_settings(overrides=[*SMOKE, "tiles.core_px=256"])
    with pytest.raises(ConfigError, match=r"tiles.core_px: 192 -> 256"):
        run_cohort(list_slides([str(slide_file)]), serial, other, SerialMachine())


def test_verify_finds_what_was_damaged(slide_file, smoke, tmp_path):
    run_cohort(list_slides([str(slide_file)]), tmp_path, smoke, SerialMachine())
    problems, summary = verify_output(tmp_path)
    assert problems == []
    assert summary.startswith("1 slide, ")
    columns = tmp_path / "slides/drawn.zarr/tables/cells/X/c"
    chunk = next(path for path in columns.rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    assert any("drawn" in problem for problem in verify_output(tmp_path)[0])


def test_the_run_report_adds_up(serial):
    report = json.loads((serial / "run_report.json").read_text())
    store = open_store(serial / "slides" / "drawn.zarr")
    assert report["cells_in_all"]["n_cells"] == store.n_cells
    assert report["cells_in_all"]["n_clipped"] == int(store.obs("is_clipped").sum())


def test_a_checkpoint_embeds_alike_here_and_on_workers(slide_file, tmp_path):
    checkpoint = write_small_checkpoint(
        tmp_path / "small.safetensors", crop=CropRule(scale=2.0, size_px=32, mpp=0.5)
    )
    settings = load_settings(overrides=[*SMOKE, f"embedding.encoder={checkpoint}"])
    slides = list_slides([str(slide_file)])
    assert run_cohort(slides, tmp_path / "a", settings, SerialMachine()).exit_code == 0
    run_cohort(slides, tmp_path / "b", settings, LocalMachine(workers=2))
    assert_same_results(tmp_path / "a", tmp_path / "b")
    store = open_store(tmp_path / "a" / "slides" / "drawn.zarr")
    assert store.n_dimensions == WIDTHS[-1]
    assert np.ptp(store.embedding(), axis=0).min() > 0


def test_an_interrupted_command_says_that_it_can_be_continued(slide_file, tmp_path):
    process = start_until_first_part(slide_file, tmp_path)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "The same command continues where it was." in said
    assert "Traceback" not in said


def test_the_codebook_does_not_depend_on_the_number_of_threads(tmp_path):
    code = (
        "import numpy as np;"
        "from ccrl_wsi.clusters.kmeans import fit_codebook;"
        "from ccrl_wsi.config import ClusterSettings;"
        "x = np.random.default_rng(0).normal(size=(6000, 12)).astype('f4');"
        "print(fit_codebook(x, ClusterSettings(k=8, n_init=2), seed=0, encoder=('e', 'f'),"
        " standardise=True, record={}).fingerprint)"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "2", "4")
    }
    assert len(prints) == 1


def test_other_regions_under_the_same_path_are_not_remembered(slide_file, tmp_path):
    """One process, as a worker that outlives runs: results follow the files, not their names."""
    counts = []
    for width in (500, 250):
        square = [[[0, 0], [width, 0], [width, width], [0, width], [0, 0]]]
        regions = tmp_path / "regions.geojson"
        regions.write_text(json.dumps({"type": "Polygon", "coordinates": square}))
        drawn = ["tissue.method=geojson", f"tissue.regions={regions}", "clusters.k=2"]
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        settings = load_settings(overrides=[*SMOKE, *drawn])
        run_cohort(list_slides([str(slide_file)]), tmp_path / "out", settings, SerialMachine())
        centroids = open_store(tmp_path / "out" / "slides" / "drawn.zarr").centroids()
        assert centroids.max() <= width
        counts.append(len(centroids))
    assert counts[0] > counts[1] > 0


def test_the_regions_a_slide_was_done_with_are_told(slide_file, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    regions, out = tmp_path / "regions.geojson", tmp_path / "out"
    for width in (500, 250):
        square = [[[0, 0], [width, 0], [width, width], [0, width], [0, 0]]]
        regions.write_text(json.dumps({"type": "Polygon", "coordinates": square}))
        drawn = ["tissue.method=geojson", f"tissue.regions={regions}", "clusters.k=2"]
        settings = load_settings(overrides=[*SMOKE, *drawn, "report.make=true"])
        caplog.clear()
        for _ in range(2):  # The second finds everything done.
            run_cohort(list_slides([str(slide_file)]), out, settings, SerialMachine())
        told = caplog.text.count("drawn: its regions are others than before")
        assert told == (1 if width == 250 else 0)
        digest = sha256(regions.read_bytes()).hexdigest()
        with (out / "slides.csv").open(newline="", encoding="utf-8") as file:
            [row] = csv.DictReader(file)
        assert (row["regions"], row["regions_sha256"]) == (str(regions), digest)
        notes = open_store(out / "slides" / "drawn.zarr").attrs["notes"]
        assert notes["regions"] == {"path": str(regions), "sha256": digest}
        assert digest in (out / "report.html").read_text()


def test_relative_slides_and_folders_are_found_by_workers_in_another_one(
    slide_file, smoke, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(slide_file, tmp_path / "drawn.tif")
    with (
        LocalCluster(n_workers=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.run(os.chdir, str(tmp_path / "elsewhere"))
        machine = AddressMachine(address=cluster.scheduler_address)
        result = run_cohort(list_slides(["drawn.tif"]), Path("out"), smoke, machine)
    assert result.exit_code == 0
    assert verify_output(tmp_path / "out")[0] == []


def test_patient_and_group_given_later_reach_tables_and_store(slide_file, smoke, tmp_path):
    [source] = list_slides([str(slide_file)])
    run_cohort([source], tmp_path, smoke, SerialMachine())
    later = replace(source, patient="P1", group="case")
    run_cohort([later], tmp_path, smoke, SerialMachine())
    assert ",P1,case," in (tmp_path / "composition.csv").read_text()
    notes = open_store(tmp_path / "slides" / "drawn.zarr").attrs["notes"]
    assert (notes["patient"], notes["group"]) == ("P1", "case")


def test_failures_stay_listed_when_the_cohort_is_clustered_again(slide_file, smoke, tmp_path):
    slides = list_slides([str(slide_file), str(tmp_path / "gone.svs")])
    assert run_cohort(slides, tmp_path / "out", smoke, SerialMachine()).exit_code == 1
    cluster_again(tmp_path / "out", smoke, SerialMachine())
    assert "gone" in (tmp_path / "out" / "failures.csv").read_text()


def test_a_deleted_overlay_is_written_again(slide_file, smoke, tmp_path):
    slides = list_slides([str(slide_file)])
    run_cohort(slides, tmp_path, smoke, SerialMachine())
    overlay = tmp_path / "overlays" / "drawn.geojson.gz"
    before = overlay.read_bytes()
    overlay.unlink()
    run_cohort(slides, tmp_path, smoke, SerialMachine())
    assert overlay.read_bytes() == before


def test_a_damaged_slide_is_told_the_others_are_clustered_and_it_can_be_made_anew(
    slide_file, smoke, tmp_path
):
    twin = tmp_path / "twin.tif"
    shutil.copy(slide_file, twin)
    slides = list_slides([str(slide_file), str(twin)])
    out = tmp_path / "out"
    run_cohort(slides, out, smoke, SerialMachine())
    whole = files_of(out / "slides")
    columns = out / "slides/twin.zarr/tables/cells/X/c"
    chunk = next(path for path in columns.rglob("*") if path.is_file())
    chunk.write_bytes(b"x" * chunk.stat().st_size)

    problems = verify_output(out)[0]
    assert any("twin.zarr and run again" in problem for problem in problems)
    again = cluster_again(out, load_settings(overrides=[*SMOKE, "clusters.k=4"]), SerialMachine())
    assert [failure.slide_id for failure in again.failures] == ["twin"]
    assert "damaged" in again.failures[0].message
    assert set(np.unique(open_store(out / "slides/drawn.zarr").obs("cluster"))) == {0, 1, 2, 3}

    shutil.rmtree(out / "slides" / "twin.zarr")
    assert any("twin" in problem for problem in verify_output(out)[0])
    assert run_cohort(slides, out, smoke, SerialMachine()).exit_code == 0
    assert files_of(out / "slides") == whole
    assert verify_output(out)[0] == []


@pytest.mark.parametrize("name", ["state/drawn.json", "slides/drawn.zarr/zarr.json"])
def test_a_damaged_record_is_made_anew_by_the_same_command(
    slide_file, smoke, serial, tmp_path, name
):
    run_cohort(list_slides([str(slide_file)]), tmp_path, smoke, SerialMachine())
    (tmp_path / name).write_text("{")
    assert (
        run_cohort(list_slides([str(slide_file)]), tmp_path, smoke, SerialMachine()).exit_code == 0
    )
    assert_same_results(serial, tmp_path)


def test_a_part_with_changed_bytes_heals_with_the_next_run(slide_file, smoke, serial, tmp_path):
    slides = list_slides([str(slide_file)])
    process = start(slide_file, tmp_path)
    parts = tmp_path / "work" / "drawn" / "parts"
    while len(list(parts.glob("p*.npz"))) < 3:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    part = sorted(parts.glob("p*.npz"))[0]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 0xFF
    part.write_bytes(bytes(content))
    first = run_cohort(slides, tmp_path, smoke, SerialMachine())
    if first.failures:
        assert run_cohort(slides, tmp_path, smoke, SerialMachine()).exit_code == 0
    assert_same_results(serial, tmp_path)


def test_a_second_run_in_the_same_folder_is_refused(slide_file, smoke, tmp_path):
    process = start(slide_file, tmp_path)
    while not list((tmp_path / "work" / "drawn" / "parts").glob("p*.npz")):
        time.sleep(0.005)
        assert process.poll() is None
    with pytest.raises(ConfigError, match=rf"process {process.pid} .* is working in"):
        run_cohort(list_slides([str(slide_file)]), tmp_path, smoke, SerialMachine())
    assert process.wait(timeout=240) == 0
    assert verify_output(tmp_path)[0] == []


def test_clustering_again_keeps_what_is_not_named(slide_file, tmp_path):
    first = load_settings(overrides=[*SMOKE, "seed=3", "overlay.points_above=5"])
    run_cohort(list_slides([str(slide_file)]), tmp_path, first, SerialMachine())
    kept = load_settings(overrides=["clusters.k=4"], base=settings_of_last_clusters(tmp_path))
    assert (kept.seed, kept.overlay.points_above, kept.clusters.n_init) == (3, 5, 2)
    assert kept.clusters.k == 4


def test_clustering_refuses_settings_of_cells_that_are_not_the_runs(serial):
    def give(*overrides):
        refuse_cell_settings(serial, load_settings(overrides=overrides))

    give("clusters.k=4", "overlay.points_above=5")
    give(*SMOKE, "crops.size_px=null", "nuclei.window_px=null")  # The run's own file.
    for other in ("tiles.mpp=0.25", "nuclei.segmenter=hovernet_fast-pannuke", "crops.scale=3"):
        with pytest.raises(ConfigError, match=other.replace(".", r"\.") + r".* \(the run: "):
            give(other)


def test_outlines_are_measured_for_an_encoder_that_asks_and_are_not_stored(
    slide_file, tmp_path, smoke
):
    """`morphological`: its thirty shapes are the embedding; measurements stay what they were."""
    embedding = smoke.embedding.model_copy(update={"encoder": "morphological"})
    settings = smoke.model_copy(update={"embedding": embedding})
    result = run_cohort(list_slides([str(slide_file)]), tmp_path / "out", settings, SerialMachine())
    assert result.exit_code == 0
    store = open_store(tmp_path / "out" / "slides" / f"{slide_file.stem}.zarr")
    shapes = store.embedding(0, store.n_cells)
    assert shapes.shape == (store.n_cells, 30)
    area = store.obs("area_um2")
    # Holes count in the outline's area, not in the pixels'.
    assert np.median(np.abs(shapes[:, 0] / area - 1)) < 0.02
    assert np.corrcoef(shapes[:, 1], store.obs("perimeter_um"))[0, 1] > 0.999
