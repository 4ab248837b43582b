"""What a run leaves is opened by the libraries its users will use."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest

from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import open_store
from pipelines import cli, demo
from pipelines.export import ExportOptions, export_cohort
from pipelines.machines import SerialMachine
from pipelines.output_folder import open_output
from pipelines.run import run_cohort
from pipelines.verify import verify_output


@pytest.fixture(scope="module")
def out(slide_file, smoke, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    crops = smoke.model_copy(update={"crops": smoke.crops.model_copy(update={"keep": True})})
    run_cohort(list_slides([str(slide_file)]), folder, crops, SerialMachine())
    return folder


@pytest.fixture(scope="module")
def overlay(out):
    with gzip.open(out / "overlays" / "drawn.geojson.gz", "rt") as file:
        return json.load(file)


def test_anndata_and_spatialdata_open_the_store(out):
    anndata = pytest.importorskip("anndata")
    spatialdata = pytest.importorskip("spatialdata")
    path = out / "slides" / "drawn.zarr"
    cells = anndata.read_zarr(path / "tables" / "cells")
    slide = spatialdata.read_zarr(path)
    shapes = geopandas.read_parquet(path / "shapes" / "nuclei" / "shapes.parquet")
    assert len(cells) == len(slide["nuclei"]) == len(shapes) > 50
    assert cells.obs["cluster"].cat.categories.tolist() == ["C01", "C02", "C03"]
    assert shapes.is_valid.all()
    centroid = np.column_stack([shapes.centroid.x, shapes.centroid.y])
    assert np.abs(cells.obsm["spatial"] - centroid).max() < 2
    ratio = shapes.area.to_numpy() * 0.25 / cells.obs["area_um2"].to_numpy()
    assert abs(np.median(ratio) - 1) < 0.03


def test_the_overlay_has_the_stores_ids_clusters_and_colours(out, overlay):
    store = open_store(out / "slides" / "drawn.zarr")
    features = overlay["features"]
    assert [f["id"] for f in features] == store.obs("uuid").tolist()
    names = store.categories("cluster")
    found = [f["properties"]["classification"]["name"] for f in features]
    assert found == [names[code] for code in store.obs("cluster")]
    assert all(f["properties"]["objectType"] == "detection" for f in features)
    area = [f["properties"]["measurements"]["Nucleus: Area µm^2"] for f in features]
    np.testing.assert_allclose(area, store.obs("area_um2"), atol=0.01)


def test_the_store_keeps_a_copy_of_the_overlay(out):
    kept = out / "slides" / "drawn.zarr" / "overlays" / "drawn.geojson.gz"
    assert kept.read_bytes() == (out / "overlays" / "drawn.geojson.gz").read_bytes()


def test_kept_crops_show_the_nuclei(out, drawn):
    store = open_store(out / "slides" / "drawn.zarr")
    crops = store.crops(0, store.n_cells)
    assert crops.shape == (store.n_cells, 32, 32, 3)
    middle, rim = crops[:, 12:20, 12:20].mean(), crops[:, [0, -1]].mean()
    assert middle < rim - 20


def test_exports_hold_all_cells(out, smoke, tmp_path):
    n, plain = open_store(out / "slides" / "drawn.zarr").n_cells, ExportOptions(smoke)
    [parquet] = export_cohort(out, "geoparquet", tmp_path / "parquet", plain)
    assert len(geopandas.read_parquet(parquet)) == n
    [overlay] = export_cohort(out, "qupath", tmp_path / "qupath", plain)
    assert overlay.read_bytes() == (out / "overlays" / "drawn.geojson.gz").read_bytes()
    anndata = pytest.importorskip("anndata")
    [table] = export_cohort(out, "anndata", tmp_path / "all.h5ad", plain)
    assert anndata.read_h5ad(table).n_obs == n


def test_the_demo_names_every_file_by_its_whole_path(out, smoke, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "SLIDE_NAME", "drawn")
    monkeypatch.chdir(tmp_path)
    said = demo._sentences(open_output(out), smoke, Path("demo/a.tif"), Path("demo/demo.png"))
    assert f"picture   {tmp_path}/demo/demo.png" in said
    assert f"slide     {tmp_path}/demo/a.tif" in said


def test_an_unknown_format_is_told(out, tmp_path, monkeypatch, capsys):
    command = ["ccrl-wsi", "export", str(out), "--to", "word", "-t", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "qupath, anndata, geoparquet, tiaviz" in capsys.readouterr().err


def test_the_tidy_composition_is_read_by_pandas(out):
    tidy = pd.read_parquet(out / "composition_long.parquet")
    cluster = open_store(out / "slides" / "drawn.zarr").obs("cluster")
    assert tidy["cells"].tolist() == np.bincount(cluster, minlength=3).tolist()
    assert tidy["fraction"].sum() == pytest.approx(1)
    assert tidy["density_per_mm2"].gt(0).all()
    text = pd.read_csv(out / "composition_long.csv", float_precision="round_trip")
    assert list(text) == list(tidy)
    assert text["cells"].tolist() == tidy["cells"].tolist()
    assert text["fraction"].tolist() == tidy["fraction"].tolist()


def test_tables_are_joined_by_the_slides_id(out):
    tables = {path.name: pd.read_csv(path) for path in out.glob("*.csv")}
    assert set(tables) == {"slides.csv", "composition.csv", "composition_long.csv"}
    for name, table in tables.items():
        assert table.columns[0] == "slide_id", name
        assert set(table["slide_id"]) == {"drawn"}


def export(monkeypatch, capsys, out, *options):
    """Exit code and what was said."""
    monkeypatch.setattr(sys, "argv", ["ccrl-wsi", "export", str(out), *map(str, options)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr()
    return stopped.value.code, said.out + said.err


def features_of(path):
    with gzip.open(path, "rt") as file:
        return json.load(file)["features"]


def test_overlays_are_written_again_as_points_of_a_region_and_of_some_clusters(
    out, overlay, tmp_path, monkeypatch, capsys
):
    options = ("--to", "qupath", "-t", tmp_path, "--points", "--region", "100,50,400,300")
    assert export(monkeypatch, capsys, out, *options, "--clusters", "C01,C03")[0] == 0
    store = open_store(out / "slides" / "drawn.zarr")
    x, y = store.centroids().T
    inside = (x >= 100) & (x < 400) & (y >= 50) & (y < 300) & (store.obs("cluster") != 1)
    features = features_of(tmp_path / "drawn.geojson.gz")
    assert [f["id"] for f in features] == store.obs("uuid")[inside].tolist()
    assert {f["geometry"]["type"] for f in features} == {"Point"}
    points = np.array([f["geometry"]["coordinates"] for f in features])
    np.testing.assert_allclose(points, store.centroids()[inside], atol=0.006)
    with gzip.open(tmp_path / "drawn.geojson.gz") as file:
        frame = geopandas.read_file(file)
    assert len(frame) == inside.sum() > 10


def test_an_overlay_in_several_files_has_every_cell_once(out, tmp_path, monkeypatch, capsys):
    store = open_store(out / "slides" / "drawn.zarr")
    n = int((store.obs("cluster") == 0).sum())
    options = ("--to", "qupath", "-t", tmp_path, "--clusters", "C01", "--at-most", 10)
    code, said = export(monkeypatch, capsys, out, *options)
    assert code == 0
    files = sorted(tmp_path.glob("drawn.part-*.geojson.gz"))
    assert len(files) == -(-n // 10) == len(said.split())
    parts = [features_of(path) for path in files]
    assert [len(part) for part in parts[:-1]] == [10] * (len(parts) - 1)
    ids = [f["id"] for part in parts for f in part]
    assert ids == store.obs("uuid")[store.obs("cluster") == 0].tolist()
    assert {f["geometry"]["type"] for part in parts for f in part} == {"Polygon"}


def test_a_region_without_cells_is_an_empty_overlay(out, tmp_path, monkeypatch, capsys):
    options = ("--to", "qupath", "-t", tmp_path, "--region", "9000,9000,9100,9100")
    assert export(monkeypatch, capsys, out, *options)[0] == 0
    assert features_of(tmp_path / "drawn.geojson.gz") == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--to", "qupath", "--region", "1,2,3"), "left,top,right,bottom"),
        (("--to", "qupath", "--region", "10,10,5,20"), "left,top,right,bottom"),
        (("--to", "qupath", "--clusters", "C09"), "no cluster C09; there are C01, C02, C03"),
        (("--to", "anndata", "--clusters", "C01"), "writes all cells"),
        (("--to", "geoparquet", "--points"), "writes all cells"),
        (("--to", "tiaviz", "--at-most", "5"), "writes all cells"),
        (("--to", "anndata"), "must end in .h5ad or .zarr"),
    ],
)
def test_a_wrong_export_is_one_sentence(out, tmp_path, monkeypatch, capsys, options, words):
    code, said = export(monkeypatch, capsys, out, *options, "-t", tmp_path / "x")
    assert code == 2
    assert words in said
    assert list(tmp_path.iterdir()) == []


def test_the_runs_own_overlays_are_not_exported_over(out, monkeypatch, capsys):
    code, said = export(monkeypatch, capsys, out, "--to", "qupath", "-t", out / "overlays")
    assert code == 2
    assert "another folder" in said


def test_one_geoparquet_holds_the_cohort(out, tmp_path, monkeypatch, capsys):
    target = tmp_path / "new" / "cohort.parquet"
    assert export(monkeypatch, capsys, out, "--to", "geoparquet", "-t", target)[0] == 0
    frame = geopandas.read_parquet(target)
    assert set(frame["slide_id"]) == {"drawn"}
    assert frame.geometry.is_valid.all()


def test_nothing_of_a_run_is_written_over(out, tmp_path, monkeypatch, capsys):
    shutil.copytree(out, tmp_path / "run")
    shutil.copytree(out, tmp_path / "other")
    run, other = tmp_path / "run", tmp_path / "other"
    targets = [run / "slides/drawn.zarr", other / "slides/drawn.zarr", run / "new.zarr", other]
    for target in targets:
        for to in ("anndata", "geoparquet"):
            code, said = export(monkeypatch, capsys, run, "--to", to, "-t", target)
            assert code == 2
            assert "among the results of a run" in said
    for name in ("run", "other"):
        assert verify_output(tmp_path / name)[0] == []
    assert not (run / "new.zarr").exists()


def test_only_an_anndata_is_written_over(out, tmp_path, monkeypatch, capsys):
    mine = tmp_path / "mine.zarr"
    mine.mkdir()
    (mine / "thesis.txt").write_text("two years")
    shutil.copytree(out / "slides" / "drawn.zarr", tmp_path / "slide.zarr")
    for target in (mine, tmp_path / "slide.zarr"):
        code, said = export(monkeypatch, capsys, out, "--to", "anndata", "-t", target)
        assert code == 2
        assert "no AnnData: nothing of it was touched" in said
    assert (mine / "thesis.txt").read_text() == "two years"
    assert open_store(tmp_path / "slide.zarr").n_cells
    for _ in range(2):
        options = ("--to", "anndata", "-t", tmp_path / "cohort.zarr")
        assert export(monkeypatch, capsys, out, *options)[0] == 0


@pytest.mark.parametrize("to", ["qupath", "anndata", "geoparquet", "tiaviz"])
def test_without_a_target_exports_go_to_their_own_place(out, monkeypatch, capsys, tmp_path, to):
    shutil.copytree(out, tmp_path / "out")
    for _ in range(2):
        code, said = export(monkeypatch, capsys, tmp_path / "out", "--to", to)
        assert code == 0
    [path] = said.split()
    assert (tmp_path / "out" / "exports") in Path(path).parents
    assert Path(path).exists()
    assert verify_output(tmp_path / "out")[0] == []
