from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.datasets.label_maps import read_label_maps
from ccrl_wsi.errors import StoreError
from tests.image_folders import LABELS, RGB, save_image


def save(folder, name, labels=LABELS, types=None):
    save_image(folder / "images" / f"{name}.png", RGB)
    (folder / "labels").mkdir(exist_ok=True)
    np.save(folder / "labels" / f"{name}.npy", labels)
    if types is not None:
        (folder / "types").mkdir(exist_ok=True)
        (folder / "types" / f"{name}.csv").write_text(types)


def test_without_tables_nobody_says_a_class(tmp_path):
    save(tmp_path, "a")
    (image,) = read_label_maps(tmp_path, 0.5)
    assert (image.mpp, image.class_names, image.label.tolist()) == (0.5, (), [-1] * 3)


def test_classes_are_those_of_all_tables_in_alphabetical_order(tmp_path):
    save(tmp_path, "a", types="id,class\n300,tumour\n7,stroma\n2,\n")
    save(tmp_path, "b", types="class,id\nimmune,2\ntumour,7\nimmune,300\n")
    first, second = read_label_maps(tmp_path, 0.5)
    assert first.class_names == second.class_names == ("immune", "stroma", "tumour")
    assert first.label.tolist() == [-1, 1, 2]
    assert second.label.tolist() == [0, 2, 0]


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ("id,class\n2,a\n", "no class for 2 of 3 nuclei, the first of them 7"),
        ("id,class\n2,a\n7,a\n300,a\n8,a\n", "names nucleus 8"),
        ("id,class\n2,a\n7,a\n300,a\n7,b\n", "line 5: nucleus 7 is named twice"),
        ("id,class\n2.5,a\n", "line 2: id is '2.5'"),
        ("id,kind\n2,a\n", "no column class"),
        ("", "no column id"),
    ],
)
def test_a_table_that_does_not_fit_is_told_with_its_place(tmp_path, types, words):
    save(tmp_path, "a", types=types)
    with pytest.raises(StoreError, match=words):
        list(read_label_maps(tmp_path, 0.5))


def test_every_bad_image_has_its_line(tmp_path):
    for name in "abcde":
        save(tmp_path, name, types="id,class\n2,x\n7,x\n300,x\n")
    (tmp_path / "types" / "a.csv").unlink()
    (tmp_path / "labels" / "b.npy").unlink()
    np.save(tmp_path / "labels" / "c.npy", LABELS[:2])
    save_image(tmp_path / "labels" / "d.png", LABELS.astype(np.uint16))
    with pytest.raises(StoreError) as told:
        list(read_label_maps(tmp_path, 0.5))
    title, *lines = str(told.value).splitlines()
    assert title.startswith("4 images")
    for line, words in zip(
        lines,
        ("no table", "no labels for the image b", "4 x 2", "two label maps of d"),
        strict=True,
    ):
        assert words in line


@pytest.mark.data
def test_real_images_with_16_bit_label_maps_are_read(data_dir):
    images = list(read_label_maps(data_dir / "monuseg_train", 0.25))
    assert len(images) == 8
