from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.datasets.monuseg import read_monuseg
from ccrl_wsi.errors import StoreError
from tests.image_folders import LABELS, RGB, save_image


def test_labels_above_255_are_kept(tmp_path):
    save_image(tmp_path / "images/a.png", RGB)
    save_image(tmp_path / "labels/a.png", LABELS.astype(np.uint16))
    (image,) = read_monuseg(tmp_path)
    np.testing.assert_array_equal(image.rgb, RGB)
    np.testing.assert_array_equal(image.labels, LABELS)
    assert (image.ids.tolist(), image.class_names, image.mpp) == ([2, 7, 300], (), 0.25)


def test_an_image_without_labels_is_an_error(tmp_path):
    save_image(tmp_path / "images/a.png", RGB)
    with pytest.raises(StoreError, match=r"no file .*labels.*a\.png"):
        list(read_monuseg(tmp_path))


@pytest.mark.data
def test_the_real_folder_is_read(data_dir):
    images = list(read_monuseg(data_dir / "monuseg_train"))
    assert len(images) == 8
    assert all(len(image.ids) > 100 for image in images)
