from __future__ import annotations

import numpy as np
import pytest
import tifffile

from ccrl_wsi.datasets.image_files import (
    list_images,
    read_channels,
    read_each,
    read_label_map,
    read_rgb,
    read_table,
    without_classes,
)
from ccrl_wsi.errors import StoreError
from tests.image_folders import LABELS, RGB, save_image


def test_images_come_in_natural_order_without_other_files(tmp_path):
    for name in ("a_10.png", "a_2.PNG", "a_1.tif", "._a_3.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a_1.tif", "a_2.PNG", "a_10.png"]


def test_a_folder_without_images_and_two_of_one_name_are_errors(tmp_path):
    with pytest.raises(StoreError, match="no images in .*nowhere"):
        list_images(tmp_path / "nowhere")
    (tmp_path / "a.png").touch()
    (tmp_path / "a.tif").touch()
    with pytest.raises(StoreError, match="two images named a"):
        list_images(tmp_path)


def test_alpha_is_dropped_and_grey_gets_three_channels(tmp_path):
    save_image(tmp_path / "rgba.png", np.dstack([RGB, np.full((4, 4), 9, np.uint8)]))
    save_image(tmp_path / "grey.png", RGB[..., 0])
    np.testing.assert_array_equal(read_rgb(tmp_path / "rgba.png"), RGB)
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), np.dstack([RGB[..., 0]] * 3))
    with pytest.raises(StoreError, match="three channels"):
        read_channels(tmp_path / "grey.png")


def test_colours_of_16_bits_are_refused(tmp_path):
    save_image(tmp_path / "deep.png", RGB.astype(np.uint16) * 256)
    with pytest.raises(StoreError, match="8 bits"):
        read_rgb(tmp_path / "deep.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_file_that_is_cut_off_is_never_filled_up(tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    save_image(path, np.random.default_rng(1).integers(0, 256, (90, 80, 3), dtype=np.uint8))
    assert read_rgb(path).shape == (90, 80, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(StoreError, match="cannot be read"):
        read_rgb(path)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_colours_and_numbers_of_a_tiff_that_is_cut_off_are_refused(tmp_path, compression):
    path = tmp_path / "a.tif"
    for values in (np.arange(9000).reshape(90, 100), np.zeros((90, 80, 3))):
        dtype = np.uint8 if values.ndim == 3 else np.uint16
        tifffile.imwrite(path, values.astype(dtype), compression=compression, rowsperstrip=10)
        read = read_rgb if values.ndim == 3 else read_label_map
        np.testing.assert_array_equal(read(path), values)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(StoreError, match="cannot be read"):
            read(path)


def test_a_jpeg_keeps_its_colours_in_order(tmp_path):
    red = np.full((16, 16, 3), (200, 60, 20), np.uint8)
    save_image(tmp_path / "a.jpg", red)
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - red).max() < 4


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"x" * 40])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
def test_what_is_no_image_is_one_store_error(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_rgb, read_label_map):
        with pytest.raises(StoreError, match=f"{name} cannot be read"):
            read(path)
    with pytest.raises(StoreError, match="no file"):
        read_label_map(tmp_path / "gone" / name)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint32, np.int64])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_label_maps_keep_large_numbers(tmp_path, dtype, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, LABELS.astype(dtype))
    elif suffix == ".tif":
        tifffile.imwrite(path, LABELS.astype(np.uint32 if dtype == np.int64 else dtype))
    else:
        save_image(path, LABELS.astype(np.uint16))
    found = read_label_map(path)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, LABELS)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (LABELS.astype(np.float32), "float32"),
        (LABELS > 0, "bool"),
        (-LABELS, "from -300 to 0"),
        (LABELS.astype(np.int64) << 30, "from 0 to"),
        (np.dstack([LABELS] * 3), "one channel"),
        (np.array([{}], object), "cannot be read"),
    ],
)
def test_what_is_no_label_map_is_refused(tmp_path, values, words):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(StoreError, match=words):
        read_label_map(tmp_path / "a.npy")


def test_all_bad_files_are_told_at_once_and_nothing_comes_after_the_first(tmp_path):
    def read(path):
        if path.stem in "bd":
            raise StoreError(f"{path.stem} is bad.")
        return without_classes(path, RGB, LABELS, 0.25)

    seen = []
    with pytest.raises(StoreError) as told:
        seen.extend(i.name for i in read_each([tmp_path / f"{n}.png" for n in "abcd"], read))
    assert seen == ["a"]
    assert str(told.value).splitlines() == ["2 images cannot be used:", "b is bad.", "d is bad."]


def test_one_bad_file_is_told_without_a_title(tmp_path):
    def read(path):
        raise StoreError("bad.")

    with pytest.raises(StoreError, match=r"^bad\.$"):
        list(read_each([tmp_path / "a.png"], read))


def test_ids_are_those_that_occur(tmp_path):
    image = without_classes(tmp_path / "a.png", RGB, LABELS, 0.5)
    assert (image.ids.tolist(), image.label.tolist()) == ([2, 7, 300], [-1, -1, -1])
    assert (image.name, image.slide, image.mpp, image.class_names) == ("a", "a", 0.5, ())
    empty = without_classes(tmp_path / "a.png", RGB, LABELS * 0, 0.5)
    assert (len(empty.ids), len(empty.label)) == (0, 0)
    with pytest.raises(StoreError, match="4 x 4 px, its labels are 4 x 3 px"):
        without_classes(tmp_path / "a.png", RGB, LABELS[:3], 0.5)


def test_tables_are_read_by_column_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\ufeffid,class\n3,a\n")
    assert read_table(path, ("id",)) == [{"id": "3", "class": "a"}]
    with pytest.raises(StoreError, match="no column name; it has: id, class"):
        read_table(path, ("name",))
    with pytest.raises(StoreError, match="no table"):
        read_table(tmp_path / "u.csv", ())
    path.write_bytes(b"id\n\xff\xfe\n")
    with pytest.raises(StoreError, match="cannot be read"):
        read_table(path, ("id",))
