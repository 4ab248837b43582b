from __future__ import annotations

import numpy as np
import openslide
import pytest

from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide


@pytest.fixture(scope="module")
def drawn():
    return draw_slide(DrawnSlideSpec(1000, 700, mpp=0.25, n_nuclei=60))


def test_openslide_reads_back_every_pixel_level_and_the_pixel_size(drawn, tmp_path):
    write_pyramid(tmp_path / "a.tif", drawn.rgb, 0.25)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.level_dimensions == ((1000, 700), (500, 350), (250, 175))
        assert slide.level_downsamples == pytest.approx((1, 2, 4))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25, rel=1e-5)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.25, rel=1e-5)
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
        half = np.asarray(slide.read_region((0, 0), 1, (500, 350)))[..., :3]
    assert np.array_equal(pixels, drawn.rgb)
    means = drawn.rgb.reshape(350, 2, 500, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - means).max() <= 0.5


def test_jpeg_is_close_and_smaller(drawn, tmp_path):
    write_pyramid(tmp_path / "a.tif", drawn.rgb, 0.25, levels=1)
    write_pyramid(tmp_path / "b.tif", drawn.rgb, 0.25, levels=1, compression="jpeg")
    with openslide.OpenSlide(tmp_path / "b.tif") as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    assert np.abs(pixels.astype(float) - drawn.rgb).mean() < 4
    assert (tmp_path / "b.tif").stat().st_size < (tmp_path / "a.tif").stat().st_size / 2


def test_a_slide_without_pixel_size_can_be_written(drawn, tmp_path):
    write_pyramid(tmp_path / "a.tif", drawn.rgb, None, tile_px=128)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert "openslide.mpp-x" not in slide.properties
        assert slide.properties["openslide.level[0].tile-width"] == "128"


def test_odd_sizes_survive(tmp_path):
    rgb = draw_slide(DrawnSlideSpec(533, 301, n_nuclei=10)).rgb
    write_pyramid(tmp_path / "a.tif", rgb, 0.5, levels=3)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert slide.level_dimensions == ((533, 301), (266, 150), (133, 75))
