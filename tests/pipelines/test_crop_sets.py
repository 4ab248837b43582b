"""Crops of labelled images: the same as those of a run, and remembered as long as they hold."""

from __future__ import annotations

import logging
import os

import cv2
import numpy as np
import pytest

from ccrl_wsi.config import load_settings
from ccrl_wsi.crops.cache import load_crop_set
from ccrl_wsi.crops.cut import crop_windows, inside
from ccrl_wsi.data_settings import DataSettings
from ccrl_wsi.datasets.labelled_image import LabelledImage
from ccrl_wsi.errors import ConfigError, StoreError
from ccrl_wsi.geometry import Box
from ccrl_wsi.measurement_names import NAMES
from ccrl_wsi.nuclei.regions import find_regions
from ccrl_wsi.records import Cells, Segmentation
from ccrl_wsi.slides.array_reader import open_array
from ccrl_wsi.slides.resampling import make_grid
from ccrl_wsi.slides.tissue import Tissue
from ccrl_wsi.synthetic import (
    DrawnSlideSpec,
    PerfectSegmenter,
    draw_slide,
    paint_labels,
    truth_tile,
)
from ccrl_wsi.tiles.grid import cut_tiles
from pipelines.crop_sets import cache_file, crops_of_image, gather_crops
from pipelines.stopwatch import Stopwatch
from pipelines.tile_pass import SlideView, TilePixels, cells_of_tile
from tests.image_folders import nucls_mask, save_consep, save_fold, save_image, save_nucls

MPP = 0.5
SETTINGS = load_settings(
    overrides=[
        "nuclei.min_area_um2=0",
        "nuclei.max_area_um2=1e6",
        "crops.scale=2",
        "crops.size_px=32",
    ]
)


@pytest.fixture(scope="module")
def drawn():
    """Crowded, with nuclei on edges and corners."""
    centres = ((1, 1), (299, 239), (150, 0), (128, 128))
    return draw_slide(DrawnSlideSpec(300, 240, MPP, n_nuclei=60, seed=2, centres_px=centres))


def save_label_maps(folder, drawn, *, rgb=None, name="tile", gaps=1):
    save_image(folder / "images" / f"{name}.png", drawn.rgb if rgb is None else rgb)
    (folder / "labels").mkdir(exist_ok=True)
    np.save(folder / "labels" / f"{name}.npy", drawn.labels * gaps)


def cells_of_a_run(rgb, find, core_px, halo_px):
    """All cells that a run finds; ``find`` gives the nuclei of a tile's pixels and box."""
    reader = open_array([rgb], MPP)
    grid = make_grid(reader.info, MPP, 0.01)
    view = SlideView(reader, grid, Tissue(np.ones((grid.height, grid.width), bool), grid))
    found = []
    for tile in cut_tiles(grid.extent, core_px, halo_px):
        pixels = reader.read(tile.read, grid)
        nuclei = find(pixels, tile.read)

        def segmenter(_rgb, _mpp, nuclei=nuclei):
            return nuclei

        found.append(
            cells_of_tile(TilePixels(pixels), tile, view, segmenter, SETTINGS, Stopwatch())[0]
        )
    return Cells.concat(found)


def lies_inside(drawn):
    """Of which nuclei the whole window lies in the image."""
    height, width = drawn.labels.shape
    return inside(crop_windows(find_regions(drawn.labels).boxes, 2.0), Box(0, 0, width, height))


def test_crops_and_measurements_are_those_of_a_run_bit_for_bit(drawn, tmp_path):
    save_label_maps(tmp_path, drawn, gaps=3)
    ours = gather_crops(DataSettings(kind="label_maps", path=tmp_path, mpp=MPP), 0)
    cells = cells_of_a_run(
        drawn.rgb, lambda _, box: Segmentation.untyped(truth_tile(drawn, box)), 1024, 0
    )
    assert len(ours) == len(cells) == drawn.n_nuclei
    whole = lies_inside(drawn)
    assert 0 < np.count_nonzero(~whole) < len(ours) / 2
    np.testing.assert_array_equal(ours.crops[whole], cells.crops[whole])
    # A slide ends in white, an image in its own mirror image.
    assert all((a != b).any() for a, b in zip(ours.crops[~whole], cells.crops[~whole], strict=True))
    np.testing.assert_array_equal(ours.measurements, cells.measurements)
    assert (ours.scale, ours.size_px, ours.mpp) == (2.0, 32, MPP)


def test_they_are_the_same_when_the_run_cuts_the_slide_into_tiles(drawn, tmp_path):
    painted = paint_labels(drawn.labels)
    save_label_maps(tmp_path, drawn, rgb=painted)
    ours = gather_crops(DataSettings(kind="label_maps", path=tmp_path, mpp=MPP), 0)
    cells = cells_of_a_run(
        painted, lambda rgb, _: PerfectSegmenter()(rgb, MPP), core_px=96, halo_px=80
    )
    assert len(np.unique(cells.tile, axis=0)) > 4

    def rows(measurements, crops):
        bits = [m.tobytes() + c.tobytes() for m, c in zip(measurements, crops, strict=True)]
        return sorted(bits)

    whole = lies_inside(drawn)
    found = rows(cells.measurements, cells.crops)
    assert set(rows(ours.measurements[whole], ours.crops[whole])) <= set(found)
    assert sorted(m.tobytes() for m in ours.measurements) == sorted(
        m.tobytes() for m in cells.measurements
    )


def test_an_image_without_nuclei_gives_none_and_keeps_the_others_numbers(drawn, tmp_path):
    nothing = np.zeros((20, 30), np.int32)
    save_consep(tmp_path, "train_1", nothing, inst_type=np.zeros((0, 1)))
    labels = nothing.copy()
    labels[0, 0], labels[19, 25:30], labels[8:12, 8:12] = 40, 7, 3
    save_consep(tmp_path, "train_2", labels, inst_type=[[4], [1], [2]])
    crops = gather_crops(DataSettings(path=tmp_path), 0)
    assert [crops.source_names[i] for i in crops.source] == ["train_2"] * 3
    assert [crops.class_names[i] for i in crops.label] == ["spindle", "misc", "inflammatory"]
    area = crops.measurements[:, NAMES.index("area_um2")]
    np.testing.assert_allclose(area, np.array([16, 5, 1]) * 0.25**2)
    assert np.isfinite(crops.measurements).all()


def test_a_nucleus_in_a_corner_is_kept_and_mirrored():
    labels = np.zeros((30, 30), np.int32)
    labels[0:8, 0:8] = 9
    ids, label = np.array([9], np.int32), np.array([0], np.int32)
    rgb = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
    image = LabelledImage("a", rgb, labels, ids, label, ("x",), 0.25, "s")
    crops = crops_of_image(image, 2.0, 16)
    np.testing.assert_array_equal(crops.crops[0, 4:, 4:], rgb[:12, :12])
    np.testing.assert_array_equal(crops.crops[0, :4, 4:], rgb[4:0:-1, :12])
    assert crops.source_names == ("s",)


def test_unlabelled_nuclei_of_nucls_are_dropped_and_sources_are_slides(tmp_path):
    grid = np.kron(np.arange(12).reshape(3, 4), np.ones((9, 9), int))
    for hospital in "ABC":
        for field in (1, 2):
            mask = nucls_mask(grid, {1: 1, 5: 99, 6: 9})
            save_nucls(tmp_path, f"TCGA-{hospital}-1_id-{field}", mask)
    save_fold(tmp_path, 2, ["TCGA-A-1", "TCGA-B-1"], ["TCGA-C-1"])
    data = DataSettings(kind="nucls", path=tmp_path, fold=2, scale=1.0)
    crops = gather_crops(data, 0)
    assert [crops.class_names[i] for i in crops.label] == ["tumor", "apoptotic"] * 4
    assert [crops.source_names[i] for i in crops.source] == ["TCGA-A-1"] * 4 + ["TCGA-B-1"] * 4
    assert (crops.scale, crops.mpp) == (1.0, 0.2)


def test_a_told_pixel_size_counts(tmp_path):
    labels = np.zeros((20, 30), np.int32)
    labels[5:9, 5:9] = 1
    save_consep(tmp_path, "train_1", labels, inst_type=[[4]])
    crops = gather_crops(DataSettings(path=tmp_path, mpp=0.5), 0)
    assert crops.mpp == 0.5
    assert crops.measurements[0, NAMES.index("area_um2")] == 16 * 0.25


def test_what_is_missing_is_told_with_the_setting(drawn, tmp_path):
    with pytest.raises(ConfigError, match="Set data.path"):
        gather_crops(DataSettings(path=tmp_path / "nowhere"), 0)
    save_label_maps(tmp_path, drawn)
    with pytest.raises(ConfigError, match="Set data.mpp"):
        gather_crops(DataSettings(kind="label_maps", path=tmp_path), 0)
    np.save(tmp_path / "labels" / "tile.npy", drawn.labels * 0)
    with pytest.raises(StoreError, match="not one nucleus"):
        gather_crops(DataSettings(kind="label_maps", path=tmp_path, mpp=1), 0)


@pytest.fixture
def cached(drawn, tmp_path):
    """Settings with a cache, whose crops have been gathered once."""
    save_label_maps(tmp_path / "set", drawn)
    data = DataSettings(kind="label_maps", path=tmp_path / "set", mpp=MPP, cache=tmp_path / "cache")
    gather_crops(data, 0)
    return data


def test_a_second_time_the_crops_come_from_the_cache(cached, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "ccrl_wsi")
    fresh = gather_crops(cached.model_copy(update={"cache": None}), 0)
    monkeypatch.setattr("pipelines.crop_sets.crops_of_image", None)
    crops = gather_crops(cached, 7)  # the seed draws nothing here
    np.testing.assert_array_equal(crops.crops, fresh.crops)
    np.testing.assert_array_equal(crops.measurements, fresh.measurements)
    assert str(cache_file(cached, 0)) in caplog.text
    assert len(list(cached.cache.iterdir())) == 1


def test_a_moved_folder_keeps_its_cache(cached, tmp_path):
    (tmp_path / "set").rename(tmp_path / "moved")
    moved = cached.model_copy(update={"path": tmp_path / "moved"})
    assert cache_file(moved, 0).exists()


@pytest.mark.parametrize(
    "change", [{"scale": 1.0}, {"size_px": 24}, {"mpp": 0.4}, {"kind": "nucls"}]
)
def test_other_settings_have_another_file(cached, change):
    assert cache_file(cached.model_copy(update=change), 0) != cache_file(cached, 0)


def touch(path):
    os.utime(path, ns=(1, 1))


def grow(path):
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"0")
    os.utime(path, ns=times)


def rename(path):
    path.rename(path.with_stem("other"))


@pytest.mark.parametrize("change", [touch, grow, rename])
@pytest.mark.parametrize("file", ["images/tile.png", "labels/tile.npy"])
def test_other_files_have_another_cache(cached, change, file):
    before = cache_file(cached, 0)
    change(cached.path / file)
    assert cache_file(cached, 0) != before


def test_a_new_table_of_types_has_another_cache(cached):
    before = cache_file(cached, 0)
    (cached.path / "types").mkdir()
    (cached.path / "types" / "tile.csv").write_text("id,class\n")
    assert cache_file(cached, 0) != before


def test_a_damaged_cache_is_told(cached):
    file = cache_file(cached, 0)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(StoreError, match=f"{file.name}.*Delete it"):
        gather_crops(cached, 0)


@pytest.mark.data
def test_real_tiles_give_the_crops_that_opencv_cuts_by_hand(data_dir, tmp_path):
    folder = tmp_path / "Train"
    for name in ("Images/train_1.png", "Labels/train_1.mat"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).symlink_to(data_dir / "consep" / "Train" / name)
    data = DataSettings(path=tmp_path, cache=tmp_path / "cache")
    crops = gather_crops(data, 0)
    assert len(crops) == 850
    assert load_crop_set(cache_file(data, 0)).class_names == crops.class_names
    from ccrl_wsi.datasets.consep import read_consep

    (image,) = read_consep(tmp_path, "train")
    for row in (100, 400, 700):
        y, x = np.nonzero(image.labels == image.ids[row])
        height, width = np.ptp(y) + 1, np.ptp(x) + 1
        side = 2 * max(height, width)
        left, top = (2 * x.min() + width - side) // 2, (2 * y.min() + height - side) // 2
        window = image.rgb[top : top + side, left : left + side]
        assert window.shape == (side, side, 3)
        method = cv2.INTER_AREA if side > 32 else cv2.INTER_CUBIC
        expected = cv2.resize(window, (32, 32), interpolation=method)
        np.testing.assert_array_equal(crops.crops[row], expected)
