from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest

from ccrl_wsi.config import SlideSettings
from ccrl_wsi.errors import SlideError
from ccrl_wsi.geometry import Box
from ccrl_wsi.records import SlideSource
from ccrl_wsi.slides import openslide_reader
from ccrl_wsi.slides.appearance import he_warning
from ccrl_wsi.slides.openslide_reader import OpenSlideReader, open_slide
from ccrl_wsi.slides.resampling import make_grid
from ccrl_wsi.slides.thumbnail import read_thumbnail
from tests.slide_files import noise, spoil_tile, write_tiff


def opened(path, mpp=None, **settings):
    return open_slide(SlideSource(path, "s", mpp), SlideSettings(**settings))


@pytest.fixture
def slide(tmp_path):
    return write_tiff(tmp_path / "a slide [1].tiff", [noise(200, 300)], 0.5)


def test_the_slide_list_outweighs_the_settings_and_these_the_file(slide):
    assert opened(slide).info.mpp == pytest.approx(0.5)
    assert opened(slide, mpp=None, **{"max_mpp": 1}).info.mpp == pytest.approx(0.5)
    settings = SlideSettings(mpp=0.3)
    assert open_slide(SlideSource(slide, "s"), settings).info.mpp == 0.3
    assert open_slide(SlideSource(slide, "s", mpp=0.2), settings).info.mpp == 0.2


def test_a_slide_named_from_its_folder_opens_from_another(slide, tmp_path, monkeypatch):
    monkeypatch.chdir(slide.parent)
    info = opened(Path(slide.name)).info
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    OpenSlideReader(info).close()


def test_a_missing_pixel_size_is_asked_for(tmp_path):
    path = write_tiff(tmp_path / "a.tiff", [noise(100, 100)], None)
    with pytest.raises(SlideError, match=r"a\.tiff stores no pixel size.*--set slides\.mpp=0\.25"):
        opened(path)
    assert opened(path, mpp=0.25).info.mpp == 0.25


@pytest.mark.parametrize("stored", [1000.0, 0.001])
def test_an_absurd_pixel_size_is_refused(tmp_path, stored):
    path = write_tiff(tmp_path / "a.tiff", [noise(100, 100)], stored)
    with pytest.raises(SlideError, match=rf"the file gives.*{stored:g} um.*0\.05 and 4.*mpp"):
        opened(path)
    with pytest.raises(SlideError, match="the slide list gives a pixel size of 25 um"):
        opened(path, mpp=25)


def test_pixels_that_are_not_square_are_refused_until_a_size_is_given(tmp_path):
    path = write_tiff(tmp_path / "a.tiff", [noise(100, 100)], (0.25, 0.30))
    with pytest.raises(SlideError, match=r"not square: 0\.25 x 0\.3 um"):
        opened(path)
    assert opened(path, mpp=0.25).info.mpp == 0.25
    nearly = write_tiff(tmp_path / "b.tiff", [noise(100, 100)], (0.25, 0.26))
    assert opened(nearly).info.mpp == pytest.approx(0.255)


def test_the_objective_is_mentioned_but_not_turned_into_a_pixel_size(slide):
    with pytest.raises(SlideError, match=r"only the objective's power, 40x"):
        openslide_reader._stored_mpp(slide, {openslide.PROPERTY_NAME_OBJECTIVE_POWER: "40"})


def test_bounds_are_honoured_and_cut_at_the_slide():
    names = ("BOUNDS_X", "BOUNDS_Y", "BOUNDS_WIDTH", "BOUNDS_HEIGHT")
    names = [getattr(openslide, f"PROPERTY_NAME_{name}") for name in names]
    whole = Box(0, 0, 1000, 800)

    def find(*values):
        return openslide_reader._find_bounds(
            dict(zip(names, map(str, values), strict=False)), whole
        )

    assert find(100, 50, 300, 200) == Box(100, 50, 300, 200)
    assert find(900, 50, 300, 200) == Box(900, 50, 100, 200)
    assert find(100, 50) == find(2000, 50, 300, 200) == whole


def test_the_content_key_follows_the_pixels_not_the_name(slide, tmp_path):
    copy = shutil.copy(slide, tmp_path / "copy.tiff")
    other = write_tiff(tmp_path / "other.tiff", [noise(200, 300, seed=9)], 0.5)
    assert opened(copy).info.content_key == opened(slide).info.content_key
    assert opened(other).info.content_key != opened(slide).info.content_key
    assert openslide_reader._hash_file(copy) == openslide_reader._hash_file(slide)
    assert openslide_reader._hash_file(other) != openslide_reader._hash_file(slide)


def test_transparent_pixels_are_laid_on_white():
    # Premultiplied, blue first: half-covering red, nothing, opaque.
    argb = np.array([[[0, 0, 128, 128], [0, 0, 0, 0], [1, 2, 3, 255]]], np.uint8)
    rgb = openslide_reader._on_white(argb)
    assert rgb.tolist() == [[[255, 127, 127], [255, 255, 255], [3, 2, 1]]]


def test_pixels_are_those_of_the_public_call(slide):
    handle = openslide.OpenSlide(slide)
    image = handle.read_region((250, 150), 0, (90, 80))
    white = np.full((80, 90, 4), 255, np.uint8)
    alpha = np.asarray(image)[..., 3:] == 255
    expected = np.where(alpha, np.asarray(image), white)[..., :3]
    reader = opened(slide)
    grid = make_grid(reader.info, 0.5, 0.01)
    assert np.array_equal(reader.read(Box(250, 150, 90, 80), grid), expected)


def test_what_is_no_slide_is_said_in_one_sentence(tmp_path):
    (tmp_path / "text.svs").write_text("no slide")
    cv2.imwrite(str(tmp_path / "plain.png"), noise(50, 50))
    for name, sentence in {
        "missing.svs": "There is no file",
        "": "is a folder, not a slide",
        "text.svs": "not a slide that OpenSlide can read",
        "plain.png": "ccrl-wsi pyramid IMAGE",
    }.items():
        with pytest.raises(SlideError, match=sentence):
            opened(tmp_path / name)


def test_a_file_without_permission_is_said_so(slide, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    if os.geteuid() == 0:
        monkeypatch.setattr(type(slide), "open", refuse)
    slide.chmod(0)
    with pytest.raises(SlideError, match="may not be read by this user"):
        opened(slide)


def test_one_damaged_tile_is_named_and_spoils_no_other(tmp_path):
    pixels = noise(320, 320)
    path = write_tiff(tmp_path / "a.tiff", [pixels], 0.5)
    spoil_tile(path, 12)  # of 5 x 5 tiles of 64 px, the middle one
    reader = opened(path)
    grid = make_grid(reader.info, 0.5, 0.01)
    boxes = [Box(x, y, 64, 64) for y in range(0, 320, 64) for x in range(0, 320, 64)]

    def read(box):
        try:
            return reader.read(box, grid)
        except SlideError as error:
            return str(error)

    for workers in (1, 4):
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(read, boxes * 3))
        for box, result in zip(boxes * 3, results, strict=True):
            if box == boxes[12]:
                assert "a.tiff cannot be decoded at x=128, y=128 (level 0, 64 x 64 px)" in result
            else:
                expected = pixels[box.top : box.bottom, box.left : box.right]
                assert np.array_equal(result, expected)


@pytest.mark.data
def test_a_truncated_slide_is_refused(data_dir, tmp_path):
    whole = (data_dir / "slides" / "cmu-1-small-region.svs").read_bytes()
    path = tmp_path / "half.svs"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError, match=r"half\.svs is not a slide.*copied again"):
        opened(path)


@pytest.mark.data
def test_a_copy_that_stopped_fails_where_it_stopped(data_dir, tmp_path):
    path = tmp_path / "copy.svs"
    path.write_bytes((data_dir / "slides" / "cmu-1-small-region.svs").read_bytes())
    spoil_tile(path, 0)
    reader = opened(path)
    grid = make_grid(reader.info, 0.5, 0.01)
    with pytest.raises(SlideError, match=r"copy\.svs cannot be decoded at x=0, y=0"):
        reader.read(Box(0, 0, 100, 100), grid)
    assert reader.read(Box(1000, 1000, 100, 100), grid).shape == (100, 100, 3)


REAL = {
    "cmu-1-small-region.svs": (None, (2220, 2967), 0.499),
    "ectopic_pancreas_HE_40x_crop6144.svs": (None, (6144, 6144), 0.263018),
    "crohn_colon_biopsy_HE4_20x.tif": (None, (20014, 15177), 0.526036),
    "tcga-cr-7395-01a-01-ts1.svs": (0.25, (4443, 3567), 0.25),
    "BRACS_1640_N_3_cropped.tiff": (0.25, (650, 743), 0.25),
    "test3-TRITC 2 (560).ndpi": (None, (3968, 4864), 0.228175),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_slides_open_and_only_fluorescence_looks_foreign(data_dir, name):
    given, size, mpp = REAL[name]
    with opened(data_dir / "slides" / name, given) as reader:
        info = reader.info
        assert (info.width_px, info.height_px) == size
        assert info.mpp == pytest.approx(mpp, rel=1e-4)
        warning = he_warning(read_thumbnail(reader, 8.0).rgb)
    assert (warning is not None) == ("TRITC" in name)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "sentence"),
    {
        "tcga-cr-7395-01a-01-ts1.svs": "stores no pixel size",
        "BRACS_1640_N_3_cropped.tiff": "pixel size of 1000 um",
        "broken.svs": "not a slide that OpenSlide can read",
    }.items(),
)
def test_real_slides_that_cannot_be_measured_say_why(data_dir, name, sentence):
    with pytest.raises(SlideError, match=sentence):
        opened(data_dir / "slides" / name)


@pytest.mark.data
def test_a_stored_level_of_a_real_slide_does_not_depend_on_the_box(data_dir):
    reader = opened(data_dir / "slides" / "crohn_colon_biopsy_HE4_20x.tif")
    for mpp in (0.25, 2.1, 3.0):
        grid = make_grid(reader.info, mpp, 0.01)
        whole = reader.read(Box(2000, 1000, 700, 600), grid)
        part = reader.read(Box(2303, 1217, 211, 190), grid)
        assert np.array_equal(part, whole[217:407, 303:514])
