from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from ccrl_wsi.datasets.nucls import CLASSES, hospital_of, read_nucls, slide_of
from ccrl_wsi.errors import StoreError
from tests.image_folders import nucls_mask, save_fold, save_image, save_nucls

PLACE = "_id-5ea4095addda5f8398977ebc_left-11841_top-57182_bottom-57525_right-12205"
A1, A2, E2 = "TCGA-A1-A0SP-DX1", "TCGA-A2-A0CM-DX1", "TCGA-E2-A14X-DX1"
GRID = np.arange(30).reshape(5, 6)
"""A pixel for each object number 0..29."""


def test_a_name_says_slide_and_hospital():
    assert slide_of(A1 + PLACE) == A1
    assert hospital_of(A1) == "A1"
    with pytest.raises(StoreError, match="not the name of a TCGA slide"):
        hospital_of("slide_7")


@pytest.mark.parametrize("rgb_folder", ["rgb", "rgbs"])
def test_all_codes_become_the_five_classes_of_the_paper(tmp_path, rgb_folder):
    codes = [*range(1, 13), 99]
    numbers = dict(zip(range(1, 14), codes, strict=True))
    save_nucls(tmp_path, A1 + PLACE, nucls_mask(GRID, numbers), rgb_folder=rgb_folder)
    (image,) = read_nucls(tmp_path, "all", 1)
    # The first object after the field of view has the number 3.
    assert image.ids.tolist() == list(range(3, 16))
    found = {
        code: CLASSES[i] if i >= 0 else None for code, i in zip(codes, image.label, strict=True)
    }
    tumor, stromal, stil, other = "tumor", "stromal", "sTIL", "other"
    assert found == {
        **{1: tumor, 2: stromal, 3: stil, 4: stil, 5: stromal, 6: tumor, 7: stromal},
        **{8: other, 9: "apoptotic", 10: other, 11: other, 12: other, 99: None},
    }
    assert (image.slide, image.mpp, image.class_names) == (A1, 0.2, CLASSES)


def test_the_field_of_view_and_what_lies_around_it_are_background(tmp_path):
    mask = nucls_mask(GRID, {1: 3})
    mask[4] = 0
    save_nucls(tmp_path, A1 + PLACE, mask)
    save_nucls(tmp_path, A2 + PLACE, nucls_mask(GRID, {}))
    save_nucls(tmp_path, E2 + PLACE, nucls_mask(GRID, {}, field_of_view=False))
    one, *none = read_nucls(tmp_path, "all", 1)
    np.testing.assert_array_equal(one.labels, np.where(GRID == 1, 3, 0))
    assert [len(image.ids) for image in none] == [0, 0]


def test_more_nuclei_than_products_can_tell_apart_stay_apart(tmp_path):
    many = np.arange(600).reshape(20, 30)
    save_nucls(tmp_path, A1 + PLACE, nucls_mask(many, {n: 1 + n % 4 for n in range(1, 600)}))
    (image,) = read_nucls(tmp_path, "all", 1)
    assert len(image.ids) == 599
    np.testing.assert_array_equal(image.ids[:253], np.arange(3, 256))
    np.testing.assert_array_equal(np.sort(image.labels.ravel())[1:], image.ids)


def test_alpha_of_a_mask_is_dropped(tmp_path):
    mask = nucls_mask(GRID, {1: 3, 2: 1})
    rgba = np.dstack([mask, np.full(GRID.shape, 255, np.uint8)])
    save_nucls(tmp_path, A1 + PLACE, rgba)
    (image,) = read_nucls(tmp_path, "all", 1)
    assert image.label.tolist() == [2, 0]


def three_slides(folder):
    for slide in (A1, A2, E2):
        save_nucls(folder, slide + PLACE, nucls_mask(GRID, {1: 3}))


def test_folds_are_lists_of_slides(tmp_path):
    three_slides(tmp_path)
    save_nucls(tmp_path, A1 + "_id-2_left-1_top-1_bottom-2_right-2", nucls_mask(GRID, {1: 3}))
    save_fold(tmp_path, 1, [A1, A2], [E2])
    save_fold(tmp_path, 2, [E2], [A1, A2])
    slides = {
        (split, fold): sorted(i.slide for i in read_nucls(tmp_path, split, fold))
        for split in ("train", "test", "all")
        for fold in (1, 2)
    }
    assert slides["train", 1] == slides["test", 2] == [A1, A1, A2]
    assert slides["test", 1] == slides["train", 2] == [E2]
    assert slides["all", 1] == slides["all", 2] == [A1, A1, A2, E2]


def test_a_hospital_in_both_lists_is_refused(tmp_path):
    three_slides(tmp_path)
    save_fold(tmp_path, 1, [A1, A2], [E2, "TCGA-A2-A0XX-DX1"])
    with pytest.raises(StoreError, match="hospital A2 in train and in test"):
        list(read_nucls(tmp_path, "train", 1))


def test_slides_that_lists_and_images_do_not_share_are_told(tmp_path, caplog):
    three_slides(tmp_path)
    save_fold(tmp_path, 1, [A1, "TCGA-BH-A0XX-DX1"], [E2])
    caplog.set_level(logging.WARNING, "ccrl_wsi")
    assert [i.slide for i in read_nucls(tmp_path, "train", 1)] == [A1]
    assert f"1 slides are in neither list of fold 1 and are left out, the first of them {A2}" in (
        caplog.text
    )
    assert "1 of the 2 train slides of fold 1 have no image" in caplog.text


@pytest.mark.parametrize(("fold", "words"), [(3, "no table .*fold_3_train"), (1, "no image of")])
def test_a_fold_that_is_not_there_is_told(tmp_path, fold, words):
    save_nucls(tmp_path, A1 + PLACE, nucls_mask(GRID, {1: 3}))
    save_fold(tmp_path, 1, ["TCGA-BH-A0XX-DX1"], [E2])
    with pytest.raises(StoreError, match=words):
        list(read_nucls(tmp_path, "train", fold))


def test_every_bad_field_has_its_line(tmp_path):
    for letter in "abcdef":
        save_nucls(tmp_path, f"TCGA-{letter}-1_id", nucls_mask(GRID, {1: 3, 2: 1}), rows=["a"] * 2)
    mask, stem = tmp_path / "mask", "TCGA-{}-1_id.png"
    (mask / stem.format("a")).unlink()
    save_image(mask / stem.format("b"), nucls_mask(GRID[:3], {1: 3}))
    two_classes = nucls_mask(GRID // 2, {1: 3})
    two_classes[0, 3, 0] = 4
    save_image(mask / stem.format("c"), two_classes)
    save_image(mask / stem.format("d"), nucls_mask(GRID, {1: 42}))
    save_image(mask / stem.format("e"), GRID.astype(np.uint8))
    (tmp_path / "csv" / "TCGA-f-1_id.csv").unlink()
    with pytest.raises(StoreError) as told:
        list(read_nucls(tmp_path, "all", 1))
    title, *lines = str(told.value).splitlines()
    assert title.startswith("6 images")
    expected = (
        "no file",
        "6 x 5 px, its labels are 6 x 3 px",
        "nucleus 3 has pixels of several classes",
        "class code 42",
        "three channels",
        "no table",
    )
    for line, words in zip(lines, expected, strict=True):
        assert words in line


def test_only_gross_differences_to_the_table_are_told(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "ccrl_wsi")
    mask = nucls_mask(GRID, dict.fromkeys(range(1, 21), 1))
    save_nucls(tmp_path, A1 + PLACE, mask, rows=["fov_basic", *["tumor"] * 23])
    list(read_nucls(tmp_path, "all", 1))
    assert caplog.text == ""
    save_nucls(tmp_path, A1 + PLACE, mask, rows=["fov_basic", *["tumor"] * 40])
    list(read_nucls(tmp_path, "all", 1))
    assert "lists 40 nuclei, the mask has 20" in caplog.text


@pytest.mark.data
def test_real_pixels_and_outlines_in_the_form_of_the_release_come_back(data_dir, tmp_path):
    crops = data_dir / "nucls" / "crops" / "Example-Segmentation-Non-Squared"
    truth = {}
    for number, path in enumerate(sorted((crops / "images").glob("*.png"))):
        # The copies hold their maps as a pickled dictionary; this test trusts them.
        content = np.load(crops / "labels" / f"{path.stem}.npy", allow_pickle=True).item()
        labels, types = content["inst_map"], content["type_map"]
        code_of = {1: 3, 2: 1}  # non-tumour as lymphocyte, tumour
        ids = np.unique(labels[labels > 0]).tolist()
        codes = {i: code_of[int(types[labels == i].max())] for i in ids}
        stem = f"TCGA-A{number}-A0SP-DX1_id-{number}"
        rgb = cv2.imread(str(path))[..., ::-1]
        save_nucls(tmp_path, stem, nucls_mask(labels, codes), rgb, rows=["x"] * len(codes))
        truth[stem] = rgb, labels, codes
    images = list(read_nucls(tmp_path, "all", 1))
    assert {i.name for i in images} == set(truth)
    assert sum(len(i.ids) for i in images) > 50
    for image in images:
        rgb, labels, codes = truth[image.name]
        np.testing.assert_array_equal(image.rgb, rgb)
        np.testing.assert_array_equal(image.labels, np.where(labels > 0, labels + 2, 0))
        names = [CLASSES[i] for i in image.label]
        assert names == [{3: "sTIL", 1: "tumor"}[codes[i - 2]] for i in image.ids.tolist()]
