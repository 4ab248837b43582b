from __future__ import annotations

import logging

import numpy as np
import pytest

from ccrl_wsi.datasets.consep import CLASSES, read_consep
from ccrl_wsi.errors import ConfigError, StoreError
from tests.image_folders import LABELS, RGB, save_consep

TYPES = np.array([[3], [1], [4]])
"""Of the nuclei 2, 7 and 300."""
PIXELS = np.select([LABELS == 2, LABELS == 7, LABELS == 300], [3, 1, 4], 0)


def test_classes_follow_the_ascending_numbers(tmp_path):
    save_consep(tmp_path, "train_1", rgb=RGB, inst_type=TYPES, type_map=PIXELS)
    (image,) = read_consep(tmp_path, "train")
    np.testing.assert_array_equal(image.rgb, RGB)
    np.testing.assert_array_equal(image.labels, LABELS)
    assert (image.name, image.slide, image.mpp) == ("train_1", "train_1", 0.25)
    assert image.ids.tolist() == [2, 7, 300]
    assert [CLASSES[i] for i in image.label] == ["epithelial", "misc", "spindle"]
    assert image.class_names == ("misc", "inflammatory", "epithelial", "spindle")


def test_splits_are_folders_and_all_is_both_in_natural_order(tmp_path):
    for split, name in (("Test", "test_1"), ("Train", "train_10"), ("Train", "train_2")):
        save_consep(tmp_path, name, split=split, inst_type=TYPES)
    names = {s: [i.name for i in read_consep(tmp_path, s)] for s in ("train", "test", "all")}
    assert names == {
        "train": ["train_2", "train_10"],
        "test": ["test_1"],
        "all": ["train_2", "train_10", "test_1"],
    }


def test_seven_types_become_the_four_of_the_paper(tmp_path):
    labels = np.arange(8, dtype=np.int32).reshape(2, 4)
    save_consep(tmp_path, "train_1", labels, inst_type=np.arange(1, 8)[:, None], type_map=labels)
    (image,) = read_consep(tmp_path, "train", "official")
    names = [CLASSES[i] for i in image.label]
    assert names == ["misc", "inflammatory", *["epithelial"] * 2, *["spindle"] * 3]


def test_seven_types_read_as_merged_are_a_wrong_setting(tmp_path):
    save_consep(tmp_path, "train_1", inst_type=[[3], [1], [5]])
    with pytest.raises(ConfigError, match="type 5.*data.classes=official"):
        list(read_consep(tmp_path, "train", "merged"))


def test_official_files_without_a_type_above_four_are_doubted(tmp_path, caplog):
    save_consep(tmp_path, "train_1", inst_type=TYPES)
    caplog.set_level(logging.WARNING, "ccrl_wsi")
    list(read_consep(tmp_path, "train", "official"))
    assert "set data.classes=merged" in caplog.text
    caplog.clear()
    # One image with such a type is enough for the whole split.
    save_consep(tmp_path, "train_2", inst_type=[[3], [1], [6]])
    save_consep(tmp_path, "train_3", inst_type=TYPES)
    list(read_consep(tmp_path, "train", "official"))
    assert caplog.text == ""


def test_without_inst_type_most_of_the_nucleus_own_pixels_decide(tmp_path):
    labels = np.array([[5, 5, 5, 9], [9, 9, 9, 9]], np.int32)
    # A box around 5 holds more pixels of type 4 than of type 2.
    pixels = np.array([[2, 4, 2, 4], [4, 4, 4, 4]])
    save_consep(tmp_path, "train_1", labels, type_map=pixels)
    (image,) = read_consep(tmp_path, "train")
    assert [CLASSES[i] for i in image.label] == ["inflammatory", "spindle"]


def test_an_empty_tile_and_a_nucleus_of_one_pixel_at_the_border(tmp_path):
    none = np.zeros((4, 4), np.int32)
    save_consep(tmp_path, "train_1", none, inst_type=np.zeros((0, 1)), type_map=none)
    save_consep(tmp_path, "train_2", none, type_map=none)
    corner = none.copy()
    corner[3, 3] = 12
    save_consep(tmp_path, "train_3", corner, inst_type=[[2]])
    images = list(read_consep(tmp_path, "train"))
    assert [(i.ids.tolist(), i.label.tolist()) for i in images] == [([], [])] * 2 + [([12], [1])]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"inst_type": TYPES[:2]}, "3 nuclei and 2 types"),
        ({"inst_type": TYPES, "inst_ids": [[2], [300], [7]]}, "inst_ids"),
        ({"inst_type": TYPES + 0.5}, "fractions"),
        ({"inst_type": [[0], [1], [2]]}, "type 0"),
        ({"inst_type": [[8], [1], [2]]}, "type 8"),
        ({"inst_type": TYPES, "type_map": PIXELS.T}, "disagree on 3 of 3"),
        ({"inst_type": TYPES, "type_map": PIXELS[:2]}, "same image"),
        ({"type_map": PIXELS[:2]}, "same image"),
        ({}, "neither inst_type nor type_map"),
        ({"inst_type": "abc"}, "holds no numbers"),
        ({"inst_type": TYPES, "inst_map": LABELS - 1.0}, "from -1"),
        ({"inst_type": TYPES, "inst_map": LABELS + 0.5}, "fractions"),
        ({"inst_type": TYPES, "inst_map": LABELS[:, :3]}, "4 x 4 px, its labels are 3 x 4"),
    ],
)
def test_a_label_file_that_cannot_be_right_is_one_error(tmp_path, content, words):
    file = save_consep(tmp_path, "train_1", **content)
    with pytest.raises(StoreError, match=words) as told:
        list(read_consep(tmp_path, "train"))
    assert "\n" not in str(told.value)
    assert str(file.parents[1]) in str(told.value)


def test_few_disagreeing_nuclei_are_only_told(tmp_path, caplog):
    labels = np.arange(1, 201, dtype=np.int32).reshape(10, 20)
    pixels = np.full(labels.shape, 2)
    pixels[0, 0] = 3
    save_consep(tmp_path, "train_1", labels, inst_type=np.full((200, 1), 2), type_map=pixels)
    caplog.set_level(logging.WARNING, "ccrl_wsi")
    (image,) = read_consep(tmp_path, "train")
    assert (image.label == 1).all()
    assert "of 1 nuclei" in caplog.text


def test_every_damaged_file_has_its_line(tmp_path):
    for number in range(1, 5):
        save_consep(tmp_path, f"train_{number}", inst_type=TYPES)
    labels = tmp_path / "Train" / "Labels"
    (labels / "train_1.mat").unlink()
    (labels / "train_3.mat").write_bytes((labels / "train_3.mat").read_bytes()[:150])
    (tmp_path / "Train" / "Images" / "train_4.png").write_bytes(b"")
    with pytest.raises(StoreError) as told:
        list(read_consep(tmp_path, "train"))
    title, *lines = str(told.value).splitlines()
    assert title.startswith("3 images")
    assert [f"train_{n}." in line for n, line in zip((1, 3, 4), lines, strict=True)] == [True] * 3


def test_a_split_that_is_not_there_is_told(tmp_path):
    save_consep(tmp_path, "train_1", inst_type=TYPES)
    with pytest.raises(StoreError, match="no images in .*Test"):
        list(read_consep(tmp_path, "test"))


@pytest.mark.data
@pytest.mark.parametrize(("split", "n_nuclei"), [("train", 15_555), ("test", 8_777)])
def test_the_real_tiles_hold_the_nuclei_they_should(data_dir, split, n_nuclei):
    images = list(read_consep(data_dir / "consep", split))
    assert len(images) == {"train": 27, "test": 14}[split]
    shares = np.bincount(np.concatenate([i.label for i in images])) / n_nuclei
    assert sum(len(i.ids) for i in images) == n_nuclei
    wanted = {"train": [0.024, 0.253, 0.356, 0.367], "test": [0.064, 0.187, 0.366, 0.383]}
    np.testing.assert_allclose(shares, wanted[split], atol=0.001)
