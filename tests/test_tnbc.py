from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.datasets.tnbc import read_tnbc
from ccrl_wsi.errors import StoreError
from tests.image_folders import RGB, save_image


def test_pieces_become_nuclei_also_across_a_corner_and_alpha_is_dropped(tmp_path):
    mask = np.zeros((4, 4), np.uint8)
    mask[0, 0] = mask[1, 1] = mask[3, 3] = 255
    save_image(tmp_path / "Slide/01_1.png", np.dstack([RGB, np.full((4, 4), 255, np.uint8)]))
    save_image(tmp_path / "Masks/01_1.png", np.dstack([mask] * 3))
    (image,) = read_tnbc(tmp_path)
    np.testing.assert_array_equal(image.rgb, RGB)
    assert image.ids.tolist() == [1, 2]
    assert image.labels[0, 0] == image.labels[1, 1] != image.labels[3, 3]


def test_a_missing_mask_is_an_error(tmp_path):
    save_image(tmp_path / "Slide/01_1.png", RGB)
    with pytest.raises(StoreError, match="no file .*Masks"):
        list(read_tnbc(tmp_path))


@pytest.mark.data
def test_the_real_folder_is_read(data_dir):
    images = list(read_tnbc(data_dir / "tnbc"))
    assert len(images) == 27
    assert all(len(image.ids) > 3 for image in images)
