"""Plain images become slides, and nothing is written over."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from ccrl_wsi.config import SlideSettings
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.slides.openslide_reader import open_slide
from ccrl_wsi.slides.resampling import make_grid
from ccrl_wsi.slides.slide_list import list_slides
from pipelines.cli import app
from pipelines.image_pyramids import make_pyramids


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (300, 700, 3), np.uint8)


def test_an_image_becomes_a_slide_of_the_same_pixels(rgb, tmp_path):
    image = tmp_path / "a b.png"
    cv2.imwrite(str(image), rgb[..., ::-1])
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    options = ["--mpp", "0.5", "-o", str(tmp_path / "slides")]
    done = CliRunner().invoke(app, ["pyramid", str(image), str(tmp_path / "bad.jpg"), *options])
    assert done.exit_code == 1
    assert "bad.jpg" in done.output
    [source] = list_slides([str(tmp_path / "slides")])
    with open_slide(source, SlideSettings()) as slide:
        grid = make_grid(slide.info, 0.5, 0.01)
        assert (source.slide_id, slide.info.mpp) == ("a_b", pytest.approx(0.5))
        assert slide.info.level_downsamples[1] == 2
        np.testing.assert_array_equal(slide.read(grid.extent, grid), rgb)


def test_images_are_not_written_over(rgb, tmp_path):
    for name in ("a.png", "a.tif", "b.tif"):
        cv2.imwrite(str(tmp_path / name), rgb)
    before = (tmp_path / "b.tif").read_bytes()
    with pytest.raises(ConfigError, match=r"b\.tif would be written to"):
        make_pyramids([tmp_path / "b.tif"], tmp_path, 0.5)
    with pytest.raises(ConfigError, match=r"a\.png would be written to"):
        make_pyramids([tmp_path / "a.png", tmp_path / "a.tif"], tmp_path / "out", 0.5)
    assert (tmp_path / "b.tif").read_bytes() == before
    assert not (tmp_path / "out").exists()
