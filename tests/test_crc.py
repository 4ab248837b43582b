"""CRCHistoPhenotypes: small files of its form, whose points are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import scipy.io

from ccrl_wsi.data_settings import DataSettings
from ccrl_wsi.datasets.crc import CLASSES, read_crc, windows_around
from ccrl_wsi.errors import ConfigError, StoreError
from pipelines.crop_sets import cache_file, gather_crops

POINTS = {"epithelial": [[30, 40], [80, 20]], "fibroblast": [[60.5, 70]], "inflammatory": []}
POINTS["others"] = [[99, 99]]
COLORS = {"epithelial": (200, 40, 40), "fibroblast": (40, 200, 40), "others": (40, 40, 200)}
LOST = [10, 90]
"""A nucleus that was detected and not classified."""


def save_image(root, number, *, with_detection=True):
    name = f"img{number}"
    folder = root / "Classification" / name
    folder.mkdir(parents=True)
    rgb = np.full((100, 100, 3), 240, np.uint8)
    for of, points in POINTS.items():
        for x, y in points:
            cv2.circle(rgb, (round(x) - 1, round(y) - 1), 6, COLORS[of], cv2.FILLED)
        found = np.array(points, float).reshape(-1, 2) if points else np.zeros((0, 0))
        scipy.io.savemat(folder / f"{name}_{of}.mat", {"detection": found})
    cv2.imwrite(str(folder / f"{name}.bmp"), rgb[..., ::-1])
    if with_detection:
        place = root / "Detection" / name
        place.mkdir(parents=True)
        everything = [point for points in POINTS.values() for point in points]
        scipy.io.savemat(
            place / f"{name}_detection.mat", {"detection": np.array([*everything, LOST], float)}
        )


@pytest.fixture
def crc(tmp_path):
    for number in (1, 2, 10):
        save_image(tmp_path, number, with_detection=number != 10)
    return tmp_path


def test_points_come_with_their_classes_and_the_unclassified_without(crc):
    first, second, tenth = read_crc(crc, "all")
    assert [image.name for image in (first, second, tenth)] == ["img1", "img2", "img10"]
    assert [CLASSES[i] if i >= 0 else "" for i in first.label] == [
        *("epithelial", "epithelial", "fibroblast", "others", "")
    ]
    # MATLAB counts from 1: the first pixel's centre is 1 there, 0.5 here.
    assert first.xy[:3].tolist() == [[29.5, 39.5], [79.5, 19.5], [60, 69.5]]
    assert len(tenth.label) == 4


def test_odd_numbers_are_for_training(crc):
    parts = {part: [image.name for image in read_crc(crc, part)] for part in ("train", "test")}
    assert parts == {"train": ["img1"], "test": ["img2", "img10"]}
    assert [image.name for image in read_crc(crc / "Classification", "train")] == ["img1"]


def test_windows_are_of_one_size_around_the_points():
    windows = windows_around(np.array([[50.5, 20.5], [0.5, 0.5]]), 2.0)
    assert windows.tolist() == [[37, 7, 27, 27], [-13, -13, 27, 27]]
    assert windows_around(np.zeros((0, 2)), 1.0).shape == (0, 4)


def test_crops_are_centred_on_the_nuclei_in_their_colours(crc):
    crops = gather_crops(DataSettings(kind="crc", path=crc, split="train", size_px=27), 0)
    assert (len(crops), crops.mpp, crops.class_names) == (5, 0.55, CLASSES)
    assert crops.source_names == ("img1",)
    centres = crops.crops[:4, 13, 13]
    names = ["epithelial", "epithelial", "fibroblast", "others"]
    assert centres.tolist() == [list(COLORS[name]) for name in names]
    assert np.isnan(crops.measurements).all()
    # A disc of 13 px in the middle of 27: as wide to all sides.
    is_cell = (crops.crops[0] == COLORS["epithelial"]).all(axis=2)
    assert np.argwhere(is_cell).mean(axis=0) == pytest.approx([13, 13], abs=0.1)


def test_damage_is_told(crc):
    with pytest.raises(StoreError, match="no folders img1"):
        list(read_crc(crc / "Detection" / "img1", "all"))
    place = crc / "Classification" / "img2"
    file = place / "img2_others.mat"
    scipy.io.savemat(file, {"detection": np.array([[150.0, 20.0]])})
    with pytest.raises(StoreError, match="outside the image of 100 x 100"):
        list(read_crc(crc, "test"))
    scipy.io.savemat(file, {"points": np.zeros((1, 2))})
    with pytest.raises(StoreError, match="no `detection`"):
        list(read_crc(crc, "test"))
    file.unlink()
    with pytest.raises(StoreError, match="There is no file"):
        list(read_crc(crc, "test"))


def test_shapes_are_refused_and_caches_follow_the_files(crc):
    data = DataSettings(kind="crc", path=crc)
    with pytest.raises(ConfigError, match="points"):
        gather_crops(data.model_copy(update={"shapes": True}), 0)
    before = cache_file(data, 0)
    (crc / "Classification" / "img1" / "img1_others.mat").touch()
    assert cache_file(data, 0) != before
