from __future__ import annotations

import dataclasses
import json
import time
import zipfile

import numpy as np
import pytest

from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.crops.cache import load_crop_set, save_crop_set
from ccrl_wsi.errors import StoreError
from ccrl_wsi.measurement_names import NAMES


def draw_crop_set(n, side=8, seed=0):
    rng = np.random.default_rng(seed)
    return CropSet(
        crops=rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8),
        measurements=rng.normal(size=(n, len(NAMES))).astype(np.float32),
        source=rng.integers(0, 3, n).astype(np.int32),
        label=rng.integers(-1, 2, n).astype(np.int32),
        source_names=("a", "ü/b", "c"),
        class_names=("misc", "épithelial"),
        scale=2.0,
        mpp=0.1,
    )


def assert_equal(one, other):
    for field in dataclasses.fields(CropSet):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert type(a) is type(b)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b


@pytest.mark.parametrize("n", [0, 1, 50])
def test_what_was_saved_comes_back(tmp_path, n):
    crops = draw_crop_set(n)
    save_crop_set(tmp_path / "new" / "c.npz", crops)
    assert_equal(load_crop_set(tmp_path / "new" / "c.npz"), crops)


def test_columns_of_other_strides_come_back(tmp_path):
    crops = draw_crop_set(20)
    reversed_ = crops.where(np.arange(20)[::-1])
    view = dataclasses.replace(crops, crops=crops.crops[::-1], source=crops.source[::-1])
    view = dataclasses.replace(view, label=crops.label[::-1], measurements=crops.measurements[::-1])
    save_crop_set(tmp_path / "c.npz", view)
    assert_equal(load_crop_set(tmp_path / "c.npz"), reversed_)


def test_equal_sets_make_equal_files_and_nothing_is_left_beside_them(tmp_path):
    for name in ("a", "b"):
        save_crop_set(tmp_path / name, draw_crop_set(9))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_damage_anywhere_is_told(tmp_path):
    path = tmp_path / "c.npz"
    save_crop_set(path, draw_crop_set(12))
    whole = path.read_bytes()
    # The archive's own words hold some bytes that nobody reads, such as dates.
    with zipfile.ZipFile(path) as archive:
        starts = {i.filename: i.header_offset + len(i.filename) + 60 for i in archive.infolist()}
    for name, place in starts.items():
        broken = bytearray(whole)
        broken[place] ^= 16
        path.write_bytes(broken)
        with pytest.raises(StoreError, match="Delete it"):
            load_crop_set(path)
        assert name
    for n_bytes in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(StoreError, match="Delete it"):
            load_crop_set(path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"format": "other"}, "of other"),
        ({"version": 99}, "crops 99"),
        ({"source_names": ["a"]}, "source must be"),
        ({"class_names": []}, "label must be"),
        ({"scale": None}, "float"),
        ([], "indices"),
    ],
)
def test_foreign_words_are_told(tmp_path, header, words):
    save_crop_set(tmp_path / "c.npz", draw_crop_set(30))
    with zipfile.ZipFile(tmp_path / "c.npz") as old, zipfile.ZipFile(tmp_path / "d", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".json"):
                tree = json.loads(content)
                content = json.dumps(tree | header if isinstance(header, dict) else header)
            new.writestr(name, content)
    with pytest.raises(StoreError, match=f"{words}.*Delete it"):
        load_crop_set(tmp_path / "d")


def test_a_file_of_other_types_is_told(tmp_path):
    save_crop_set(tmp_path / "c.npz", draw_crop_set(3))
    with zipfile.ZipFile(tmp_path / "c.npz") as old, zipfile.ZipFile(tmp_path / "d", "w") as new:
        for name in old.namelist():
            if name != "label.npy":
                new.writestr(name, old.read(name))
        with new.open("label.npy", "w") as member:
            np.save(member, np.zeros(3))
    with pytest.raises(StoreError, match="label are float64"):
        load_crop_set(tmp_path / "d")


def test_absence_and_a_place_that_cannot_be_written_are_told(tmp_path):
    with pytest.raises(StoreError, match="no crops at"):
        load_crop_set(tmp_path / "c.npz")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Cannot write"):
        save_crop_set(tmp_path / "file" / "c.npz", draw_crop_set(1))


def test_a_failed_save_leaves_the_old_set(tmp_path, monkeypatch):
    path = tmp_path / "c.npz"
    save_crop_set(path, draw_crop_set(5))

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ccrl_wsi.crops.cache.os.fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        save_crop_set(path, draw_crop_set(6))
    assert_equal(load_crop_set(path), draw_crop_set(5))
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_loading_25000_crops_takes_well_under_a_second(tmp_path):
    save_crop_set(tmp_path / "c.npz", draw_crop_set(25_000, side=32))
    seconds = []
    for _ in range(3):
        start = time.process_time()
        load_crop_set(tmp_path / "c.npz")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5
