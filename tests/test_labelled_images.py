from __future__ import annotations

import cv2
import numpy as np
import pytest
import scipy.io

from ccrl_wsi.errors import StoreError
from ccrl_wsi.evaluation.labelled_images import read_consep, read_monuseg, read_tnbc

RGB = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
LABELS = np.array([[0, 7, 7, 0], [0, 0, 0, 0], [300, 0, 0, 2], [300, 0, 0, 2]], np.int32)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def test_consep_is_read_in_order_with_its_instance_map(tmp_path):
    for number in (10, 2):
        save(tmp_path / f"Test/Images/test_{number}.png", RGB[..., ::-1])
        (tmp_path / "Test/Labels").mkdir(exist_ok=True)
        scipy.io.savemat(tmp_path / f"Test/Labels/test_{number}.mat", {"inst_map": LABELS * 1.0})
    images = list(read_consep(tmp_path, "Test"))
    assert [image.name for image in images] == ["test_2", "test_10"]
    assert np.array_equal(images[0].rgb, RGB)
    assert np.array_equal(images[0].labels, LABELS)
    assert images[0].mpp == 0.25


def test_monuseg_keeps_labels_above_255(tmp_path):
    save(tmp_path / "images/a.png", RGB[..., ::-1])
    save(tmp_path / "labels/a.png", LABELS.astype(np.uint16))
    (image,) = read_monuseg(tmp_path)
    assert np.array_equal(image.labels, LABELS)


def test_tnbc_pieces_become_nuclei_also_across_a_corner_and_alpha_is_dropped(tmp_path):
    mask = np.zeros((4, 4), np.uint8)
    mask[0, 0] = mask[1, 1] = mask[3, 3] = 255
    save(tmp_path / "Slide/01_1.png", np.dstack([RGB[..., ::-1], np.full((4, 4), 255, np.uint8)]))
    save(tmp_path / "Masks/01_1.png", mask)
    (image,) = read_tnbc(tmp_path)
    assert np.array_equal(image.rgb, RGB)
    assert image.labels.max() == 2
    assert image.labels[0, 0] == image.labels[1, 1] != image.labels[3, 3]


def test_an_empty_folder_and_a_missing_label_are_errors(tmp_path):
    with pytest.raises(StoreError, match="No PNG images"):
        list(read_tnbc(tmp_path))
    save(tmp_path / "images/a.png", RGB)
    with pytest.raises(StoreError, match="whole"):
        list(read_monuseg(tmp_path))
    save(tmp_path / "Test/Images/test_1.png", RGB)
    with pytest.raises(StoreError, match="test_1.mat"):
        list(read_consep(tmp_path, "Test"))


@pytest.mark.data
def test_real_folders_hold_the_nuclei_they_should(data_dir):
    consep = read_consep(data_dir / "consep", "Test")
    assert sum(len(np.unique(image.labels)) - 1 for image in consep) == 8777
    assert len(list(read_tnbc(data_dir / "tnbc"))) == 27
    assert len(list(read_monuseg(data_dir / "monuseg_train"))) == 8
