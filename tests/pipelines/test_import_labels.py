"""Labels from QuPath stay with the cells, whatever is done with clusters afterwards."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sys

import geopandas
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from ccrl_wsi.config import load_settings
from ccrl_wsi.errors import LabelError
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import is_sealed, labels, open_store
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide
from pipelines import cli
from pipelines.import_labels import import_labels
from pipelines.machines import SerialMachine
from pipelines.run import cluster_again, run_cohort
from pipelines.verify import verify_output
from tests.pipelines.conftest import SMOKE

SERIAL = SerialMachine()


@pytest.fixture(scope="module")
def cohort(slide_file, drawn, smoke, tmp_path_factory):
    """A run of two slides, of which one has no cells."""
    folder = tmp_path_factory.mktemp("labels")
    write_pyramid(folder / "blank.tif", np.full((300, 300, 3), 244, np.uint8), 0.5)
    slides = list_slides([str(slide_file), str(folder / "blank.tif")])
    assert run_cohort(slides, folder / "out", smoke, SERIAL).exit_code == 0
    return folder / "out"


@pytest.fixture
def out(cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "out")
    return tmp_path / "out"


def store_of(out):
    return open_store(out / "slides" / "drawn.zarr")


def overlay(out):
    with gzip.open(out / "overlays" / "drawn.geojson.gz", "rt") as file:
        return json.load(file)


def write(path, tree):
    path.write_text(json.dumps(tree))
    return path


def relabelled(out, path, change):
    """The run's overlay as QuPath exports it when a person has given some cells a class."""
    document = overlay(out)
    for number, feature in enumerate(document["features"]):
        if (label := change(number)) is not None:
            feature["properties"]["classification"] = {"name": label, "color": [200, 0, 0]}
    return write(path, document)


def label_names(store):
    names = store.categories("label")
    return [names[code] if code >= 0 else None for code in store.obs("label")]


def thirds(number):
    return ["Tumor", "Stroma", None][number % 3]


def call(monkeypatch, capsys, *command):
    monkeypatch.setattr(sys, "argv", ["ccrl-wsi", *map(str, command)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr()
    return stopped.value.code, said.out + said.err


def test_classes_given_to_cells_come_back_by_their_ids(out, tmp_path, monkeypatch, capsys):
    file = relabelled(out, tmp_path / "drawn.geojson", thirds)
    code, said = call(monkeypatch, capsys, "import-labels", out, file)
    assert code == 0
    store = store_of(out)
    assert label_names(store) == [thirds(i) for i in range(store.n_cells)]
    n = sum(thirds(i) is not None for i in range(store.n_cells))
    assert f"{n} of {store.n_cells} cells have a label now" in said
    assert f"{n} by their id, 0 by lying in an area" in said
    assert verify_output(out)[0] == []
    anndata = pytest.importorskip("anndata")
    table = anndata.read_zarr(store.path / "tables" / "cells")
    assert table.obs["label"].cat.categories.tolist() == ["Stroma", "Tumor"]


def test_clusters_are_compared_with_labels(out, tmp_path):
    said = import_labels(out, [relabelled(out, tmp_path / "drawn.geojson", thirds)], None)
    store = store_of(out)
    code, cluster = store.obs("label"), store.obs("cluster")
    with (out / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        both = (cluster == int(row["cluster"][1:]) - 1) & (
            code == ["Stroma", "Tumor"].index(row["label"])
        )
        assert int(row["cells"]) == both.sum()
    assert sum(int(row["cells"]) for row in rows) == (code >= 0).sum()
    with (out / "label_scores.csv").open() as file:
        slide, whole = csv.DictReader(file)
    assert (slide["slide_id"], whole["slide_id"]) == ("drawn", "(cohort)")
    ari = adjusted_rand_score(code[code >= 0], cluster[code >= 0])
    assert float(whole["ari"]) == pytest.approx(ari, abs=1e-4)
    assert whole["ari"] in said
    labels = code[code >= 0]
    floor = max(np.mean(labels == 0), np.mean(labels == 1))
    assert float(whole["purity_floor"]) == pytest.approx(floor, abs=1e-4)
    assert float(whole["purity"]) >= float(whole["purity_floor"])
    assert "Stroma" in said


def test_labels_outlive_clustering_and_another_run(out, slide_file, smoke, tmp_path):
    import_labels(out, [relabelled(out, tmp_path / "drawn.geojson", thirds)], None)
    before = label_names(store_of(out))
    tables = (out / "labels.csv").read_bytes()
    assert run_cohort(list_slides([str(slide_file)]), out, smoke, SERIAL).exit_code == 0
    assert (out / "labels.csv").read_bytes() == tables
    again = load_settings(overrides=[*SMOKE, "clusters.k=4"])
    assert cluster_again(out, again, SERIAL).exit_code == 0
    assert label_names(store_of(out)) == before
    assert "C04" in (out / "labels.csv").read_text()
    assert verify_output(out)[0] == []


def test_importing_again_replaces_and_areas_are_asked_where_ids_are_unknown(out, tmp_path):
    import_labels(out, [relabelled(out, tmp_path / "drawn.geojson", thirds)], None)
    area = {"type": "Polygon", "coordinates": [[[0, 0], [300, 0], [300, 600], [0, 600], [0, 0]]]}
    said = {"type": "Feature", "geometry": area, "properties": {"classification": "Gland"}}
    import_labels(out, [write(tmp_path / "any name.json", [said])], "drawn")
    store = store_of(out)
    expected = ["Gland" if x <= 300 else None for x in store.centroids()[:, 0]]
    assert label_names(store) == expected
    assert store.columns.count("label") == 1
    assert store.attrs["labels"]["files"] == ["any name.json"]
    assert verify_output(out)[0] == []


def test_a_file_of_any_name_is_known_by_the_ids_in_it(out, tmp_path):
    import_labels(out, [relabelled(out, tmp_path / "from QuPath.geojson", thirds)], None)
    assert store_of(out).has_labels


def test_the_area_counts_from_where_the_overlay_does(out, tmp_path):
    """A slide whose scanned area does not begin at 0: QuPath shows, and exports, less by that."""
    path = out / "slides" / "drawn.zarr"
    from ccrl_wsi.store import update_description

    bounds = store_of(out).attrs["slide"]["bounds_px"] | {"left": 200, "top": 100}
    update_description(path, {"slide": {"bounds_px": bounds}})
    area = {"type": "Polygon", "coordinates": [[[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]]}
    said = {"type": "Feature", "geometry": area, "properties": {"classification": "A"}}
    import_labels(out, [write(tmp_path / "drawn.geojson", [said])], None)
    x, y = store_of(out).centroids().T
    inside = (x >= 200) & (x <= 300) & (y >= 100) & (y <= 200)
    np.testing.assert_array_equal(store_of(out).obs("label") >= 0, inside)


POINT = {"type": "Point", "coordinates": [5, 5]}


@pytest.mark.parametrize(
    ("name", "tree", "options", "words"),
    [
        ("drawn.geojson", "{", (), "is not GeoJSON"),
        ("drawn.geojson", [], (), "no object has a class"),
        ("other.geojson", [], (), "no slide is called other"),
        ("drawn.geojson", [], ("--slide", "nowhere"), "--slide nowhere: there is no such slide"),
        (
            "drawn.geojson",
            [{"type": "Feature", "geometry": POINT, "properties": {"classification": "A"}}],
            (),
            "none of 1 objects with a class fits a cell of drawn",
        ),
        (
            "blank.geojson",
            [{"type": "Feature", "geometry": POINT, "properties": {"classification": "A"}}],
            (),
            "none of 1 objects with a class fits a cell of blank",
        ),
    ],
)
def test_wrong_labels_are_one_sentence_and_change_nothing(
    out, tmp_path, monkeypatch, capsys, name, tree, options, words
):
    good = relabelled(out, tmp_path / "whole.geojson", thirds)
    file = tmp_path / name
    file.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    # Files that are read before a broken one are not written either.
    files = [good, file] if tree == "{" else [file]
    code, said = call(monkeypatch, capsys, "import-labels", out, *files, *options)
    assert code == 2
    assert words in said
    assert "Traceback" not in said
    assert not store_of(out).has_labels
    assert not (out / "labels.csv").exists()


def test_stopped_while_labels_are_written_the_store_is_mended_by_the_next_command(
    out, smoke, slide_file, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    file = relabelled(out, tmp_path / "drawn.geojson", thirds)
    for place in ("create_categorical", "consolidate", "seal_store"):
        with monkeypatch.context() as patch:
            patch.setattr(labels, place, die)
            with pytest.raises(Killed):
                import_labels(out, [file], None)
        assert not is_sealed(out / "slides" / "drawn.zarr")
        assert run_cohort(list_slides([str(slide_file)]), out, smoke, SERIAL).exit_code == 0
        assert verify_output(out)[0] == []
        import_labels(out, [file], None)
        assert store_of(out).has_labels
        assert verify_output(out)[0] == []


def test_labels_reach_exports(out, tmp_path, monkeypatch, capsys):
    import_labels(out, [relabelled(out, tmp_path / "drawn.geojson", thirds)], None)
    expected = label_names(store_of(out))
    command = ("export", out, "--to", "geoparquet", "-t", tmp_path / "all.parquet")
    assert call(monkeypatch, capsys, *command)[0] == 0
    frame = geopandas.read_parquet(tmp_path / "all.parquet")
    assert [None if label is np.nan else label for label in frame["label"].astype(object)] == (
        expected
    )
    anndata = pytest.importorskip("anndata")
    command = ("export", out, "--to", "anndata", "-t", tmp_path / "all.h5ad")
    assert call(monkeypatch, capsys, *command)[0] == 0
    cohort = anndata.read_h5ad(tmp_path / "all.h5ad")
    assert cohort.obs["label"].tolist()[:2] == expected[:2]
    assert cohort.obs["label"].isna().sum() == expected.count(None)


@pytest.mark.parametrize(
    ("to", "target"),
    [
        ("qupath", "folder"),
        ("tiaviz", "folder"),
        ("geoparquet", "folder"),
        ("geoparquet", "all.parquet"),
        ("anndata", "all.zarr"),
    ],
)
def test_a_slide_without_cells_is_exported_with_the_others(
    cohort, tmp_path, monkeypatch, capsys, to, target
):
    command = ("export", cohort, "--to", to, "-t", tmp_path / target)
    code, said = call(monkeypatch, capsys, *command)
    assert code == 0
    paths = said.split()
    assert len(paths) == (2 if target == "folder" else 1)
    if to == "geoparquet":
        counts = [len(geopandas.read_parquet(path)) for path in paths]
        assert sum(counts) == store_of(cohort).n_cells


def test_cells_of_another_slide_are_no_areas_of_this_one(slide_file, smoke, tmp_path):
    shutil.copy(slide_file, tmp_path / "a.tif")
    twin = draw_slide(DrawnSlideSpec(300, 300, 0.5, n_nuclei=40, seed=5))
    write_pyramid(tmp_path / "twin.tif", twin.rgb, 0.5, compression="deflate")
    slides = list_slides([str(tmp_path / "a.tif"), str(tmp_path / "twin.tif")])
    out = tmp_path / "out"
    assert run_cohort(slides, out, smoke, SERIAL).exit_code == 0
    with gzip.open(out / "overlays" / "twin.geojson.gz", "rt") as file:
        features = json.load(file)["features"]
    for feature in features:
        feature["properties"]["classification"] = "Tumor"
    area = {"type": "Polygon", "coordinates": [[[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]]}
    drawn = {"type": "Feature", "geometry": area, "properties": {"classification": "Tissue"}}
    for name, slide in (("labels.geojson", "a"), ("a.geojson", None)):
        file = write(tmp_path / name, [drawn, *features])
        with pytest.raises(LabelError, match=rf"{len(features)} of its objects are cells of twin"):
            import_labels(out, [file], slide)
        assert not open_store(out / "slides" / "a.zarr").has_labels
    import_labels(out, [write(tmp_path / "b.geojson", features)], "twin")
    assert open_store(out / "slides" / "twin.zarr").has_labels
