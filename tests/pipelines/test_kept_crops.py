"""Training on one's own slides: the crops that a run kept."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from ccrl_wsi.config import load_settings
from ccrl_wsi.data_settings import DataSettings
from ccrl_wsi.errors import ConfigError, StoreError
from ccrl_wsi.measurement_names import NAMES
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import open_store, write_labels
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide
from pipelines import kept_crops
from pipelines.crop_sets import cache_file, gather_crops
from pipelines.machines import SerialMachine
from pipelines.run import cluster_again, run_cohort
from tests.pipelines.conftest import SMOKE

KEPT = (*SMOKE, "crops.keep=true", "crops.size_px=24", "crops.scale=1.5")


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Two slides with nuclei and one of glass alone."""
    folder = tmp_path_factory.mktemp("slides")
    for name, seed in (("b", 1), ("a", 2)):
        drawn = draw_slide(DrawnSlideSpec(300, 200, 0.5, n_nuclei=40, seed=seed))
        write_pyramid(folder / f"{name}.tif", drawn.rgb, 0.5, compression="deflate")
    glass = np.full((300, 360, 3), 255, np.uint8)
    write_pyramid(folder / "glass.tif", glass, 0.5, compression="deflate")
    return folder


def run(slides, out, settings):
    run_cohort(list_slides([str(slides)]), out, load_settings(overrides=settings), SerialMachine())


@pytest.fixture(scope="module")
def out(slides, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    run(slides, folder, KEPT)
    return folder


def settings_for(out, **changes):
    return DataSettings(**{"kind": "run", "path": out, "size_px": 24, "scale": 1.5} | changes)


def store(out, name):
    return open_store(out / "slides" / f"{name}.zarr")


def test_all_cells_of_all_slides_with_their_measurements(out):
    crops = gather_crops(settings_for(out), 0)
    stores = [store(out, name) for name in ("a", "b")]
    assert len(crops) == sum(s.n_cells for s in stores) > 40
    np.testing.assert_array_equal(crops.crops, np.concatenate([s.crops() for s in stores]))
    for column, name in enumerate(NAMES):
        stored = np.concatenate([s.obs(name) for s in stores])
        np.testing.assert_array_equal(crops.measurements[:, column], stored)
    names = [crops.source_names[i] for i in crops.source]
    assert names == ["a"] * stores[0].n_cells + ["b"] * stores[1].n_cells
    assert (set(crops.label), crops.class_names) == ({-1}, ())
    assert (crops.scale, crops.size_px, crops.mpp) == (1.5, 24, 0.5)


def test_at_most_so_many_cells_are_drawn_by_name_and_seed(out, monkeypatch):
    whole = gather_crops(settings_for(out), 0)
    monkeypatch.setattr(kept_crops, "ROWS", 7)  # several reads a slide
    drawn = [gather_crops(settings_for(out, max_per_slide=9), seed) for seed in (0, 0, 1)]
    assert [np.bincount(c.source).tolist() for c in drawn] == [[9, 9]] * 3
    np.testing.assert_array_equal(drawn[0].crops, drawn[1].crops)
    assert not np.array_equal(drawn[0].crops, drawn[2].crops)
    for crops in drawn:
        keys = [c.tobytes() for c in whole.crops]
        assert len(set(keys)) == len(keys)
        rows = [keys.index(c.tobytes()) for c in crops.crops]
        assert rows == sorted(set(rows))
        np.testing.assert_array_equal(crops.measurements, whole.measurements[rows])
        np.testing.assert_array_equal(crops.source, whole.source[rows])


def test_a_slide_draws_the_same_whatever_other_slides_there_are(out, tmp_path):
    both = gather_crops(settings_for(out, max_per_slide=9), 5)
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "state" / "a.json").unlink()
    alone = gather_crops(settings_for(tmp_path / "out", max_per_slide=9), 5)
    assert alone.source_names == ("b",)
    np.testing.assert_array_equal(alone.crops, both.crops[9:])


def test_labels_from_qupath_are_the_classes(out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    data = settings_for(tmp_path / "out", cache=tmp_path / "cache")
    assert gather_crops(data, 0).class_names == ()
    codes = {}
    for name, kinds in (("a", ("Stroma", "Tumor")), ("b", ("Immune", "Tumor"))):
        codes[name] = np.arange(store(out, name).n_cells) % 3 - 1
        path = tmp_path / "out" / "slides" / f"{name}.zarr"
        write_labels(path, codes[name].astype(np.int16), kinds, ("x.geojson",))
    crops = gather_crops(data, 0)
    assert crops.class_names == ("Immune", "Stroma", "Tumor")
    expected = np.concatenate([np.array([1, 2, -1])[codes["a"]], np.array([0, 2, -1])[codes["b"]]])
    np.testing.assert_array_equal(crops.label, expected)
    some = gather_crops(settings_for(tmp_path / "out", max_per_slide=9), 0)
    keys = [c.tobytes() for c in crops.crops]
    rows = [keys.index(c.tobytes()) for c in some.crops]
    np.testing.assert_array_equal(some.label, expected[rows])


def test_a_limit_that_no_slide_reaches_changes_nothing(out):
    whole = gather_crops(settings_for(out), 0)
    limited = gather_crops(settings_for(out, max_per_slide=10_000), 3)
    np.testing.assert_array_equal(limited.crops, whole.crops)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size_px": 32}, r"Set data.size_px=24 \(now 32\)\."),
        ({"scale": 2.0}, r"Set data.scale=1.5 \(now 2\)\."),
        ({"mpp": 0.25}, r"Set data.mpp=0.5 \(now 0.25\)\."),
        ({"scale": 1.0, "size_px": 16}, r"data.scale=1.5 \(now 1\), data.size_px=24 \(now 16\)"),
    ],
)
def test_another_rule_is_a_wrong_setting(out, change, words):
    with pytest.raises(ConfigError, match=words):
        gather_crops(settings_for(out, **change), 0)
    assert len(gather_crops(settings_for(out, mpp=0.5), 0))


def test_a_run_that_kept_no_crops_says_how_to_keep_them(slides, tmp_path):
    run(slides / "a.tif", tmp_path / "out", SMOKE)
    data = settings_for(tmp_path / "out", size_px=32, scale=2.0)
    with pytest.raises(ConfigError, match=r"kept no crops of a.*crops\.keep=true"):
        gather_crops(data, 0)


def test_a_folder_that_is_no_run_and_one_without_cells_are_told(slides, tmp_path):
    with pytest.raises(ConfigError, match="not the output of"):
        gather_crops(settings_for(slides), 0)
    run(slides / "glass.tif", tmp_path, KEPT)
    with pytest.raises(ConfigError, match="no slide with cells"):
        gather_crops(settings_for(tmp_path), 0)


def test_damaged_stores_are_told_one_a_line(out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "slides" / "a.zarr")
    (tmp_path / "out" / "slides" / "b.zarr" / "zarr.json").write_text("{")
    with pytest.raises(StoreError) as told:
        gather_crops(settings_for(tmp_path / "out"), 0)
    first, second = str(told.value).splitlines()
    assert "a.zarr" in first
    assert "b.zarr" in second


def test_the_cache_follows_cells_and_draw_and_nothing_else(out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    data = settings_for(tmp_path / "out", cache=tmp_path / "cache", max_per_slide=9)
    first = gather_crops(data, 0)
    settings = load_settings(overrides=[*KEPT, "clusters.k=2"])
    cluster_again(tmp_path / "out", settings, SerialMachine())
    assert cache_file(data, 0).exists()
    np.testing.assert_array_equal(gather_crops(data, 0).crops, first.crops)
    names = {cache_file(data, seed) for seed in (0, 1)}
    names |= {cache_file(data.model_copy(update={"max_per_slide": 8}), 0)}
    (tmp_path / "out" / "state" / "b.json").unlink()
    names |= {cache_file(data, 0)}
    assert len(names) == 4
    unlimited = data.model_copy(update={"max_per_slide": None})
    assert cache_file(unlimited, 0) == cache_file(unlimited, 1)
