"""What every reader of slides promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ccrl_wsi.config import SlideSettings
from ccrl_wsi.geometry import Box
from ccrl_wsi.records import SlideSource
from ccrl_wsi.slides.array_reader import open_array
from ccrl_wsi.slides.openslide_reader import OpenSlideReader, open_slide
from ccrl_wsi.slides.resampling import make_grid
from tests.slide_files import noise, shrunk, write_tiff

MPP = 0.25
BASE = noise(330, 421)
# 421 / 106 and 330 / 83 differ from 4: positions on level 1 are fractions of a pixel.
LEVELS = (BASE, shrunk(BASE, 4))
GRIDS = (0.1, 0.25, 0.2631, 0.29, 0.4, 0.5, 0.9931, 1.3, 2.0, 8.0)


def array_reader(folder: Path):
    return open_array(LEVELS, MPP, "drawn")


def file_reader(folder: Path):
    path = write_tiff(folder / "drawn.tiff", LEVELS, MPP)
    return open_slide(SlideSource(path, "drawn"), SlideSettings())


def worker_reader(folder: Path):
    return OpenSlideReader(file_reader(folder).info)


@pytest.fixture(scope="module", params=[array_reader, file_reader, worker_reader])
def reader(request, tmp_path_factory):
    reader = request.param(tmp_path_factory.mktemp("slide"))
    yield reader
    reader.close()


def test_info_tells_size_pixel_size_and_levels(reader):
    info = reader.info
    assert (info.width_px, info.height_px, info.slide_id) == (421, 330, "drawn")
    assert info.bounds_px == Box(0, 0, 421, 330)
    assert info.mpp == pytest.approx(MPP)
    assert info.level_downsamples == pytest.approx((1, (421 / 106 + 330 / 83) / 2))
    assert info.content_key
    # An array has no tiles.
    assert info.level_tiles_px in ((), ((64, 64), (64, 64)))


def test_stored_pixels_come_back_unchanged(reader):
    grid = make_grid(reader.info, 0.25, 0.01)
    assert np.array_equal(reader.read(grid.extent, grid), BASE)


def test_reading_outside_the_slide_gives_white(reader):
    grid = make_grid(reader.info, 0.25, 0.01)
    rgb = reader.read(Box(-10, -20, 441, 370), grid)
    assert np.array_equal(rgb[20:350, 10:431], BASE)
    rgb[20:350, 10:431] = 255
    assert rgb.min() == 255
    assert reader.read(Box(-900, 5000, 30, 30), grid).min() == 255


@pytest.mark.parametrize("mpp", GRIDS)
def test_a_pixel_does_not_depend_on_the_box_it_is_read_with(reader, mpp):
    grid = make_grid(reader.info, mpp, 0.01)
    whole = reader.read(grid.extent.grown(9), grid)
    rng = np.random.default_rng(1)
    for _ in range(5):
        left, top = rng.integers(-9, [grid.width + 5, grid.height + 5])
        width, height = rng.integers(1, [grid.width + 10 - left, grid.height + 10 - top])
        part = reader.read(Box(int(left), int(top), int(width), int(height)), grid)
        rows, columns = slice(top + 9, top + 9 + height), slice(left + 9, left + 9 + width)
        assert np.array_equal(part, whole[rows, columns])


@pytest.mark.parametrize("mpp", GRIDS)
def test_all_readers_agree(reader, mpp):
    reference = array_reader(Path())
    grid = make_grid(reference.info, mpp, 0.01)
    ours = reader.read(grid.extent, grid).astype(int)
    theirs = reference.read(grid.extent, grid).astype(int)
    # Where a level's pixels do not lie on level 0's, OpenSlide interpolates between them.
    is_exact = mpp < 0.97
    assert np.abs(ours - theirs).mean() <= (0 if is_exact else 20)


def test_threads_read_what_one_reads(reader):
    grid = make_grid(reader.info, 0.4, 0.01)
    boxes = [Box(x, y, 90, 70) for x in range(0, 250, 25) for y in range(0, 200, 25)]
    alone = [reader.read(box, grid) for box in boxes]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda box: reader.read(box, grid), boxes))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_an_empty_box_is_an_empty_image(reader):
    for mpp in (0.25, 0.4, 1.0):
        assert reader.read(Box(3, 4, 0, 7), make_grid(reader.info, mpp, 0.01)).shape == (7, 0, 3)
