"""Small slides that the whole job is run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccrl_wsi.config import Settings, load_settings
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.synthetic import DrawnSlide, DrawnSlideSpec, draw_slide
from pipelines.resolved_settings import resolved

SMOKE = (
    "nuclei.segmenter=watershed",
    "tiles.mpp=0.5",
    "tiles.core_px=192",
    "tiles.partition_side=1",
    "clusters.k=3",
    "clusters.n_init=2",
    "embedding.encoder=morphology",
    "report.make=false",
)


@pytest.fixture(scope="session")
def drawn() -> DrawnSlide:
    return draw_slide(DrawnSlideSpec(width_px=640, height_px=520, mpp=0.5, n_nuclei=160, seed=3))


@pytest.fixture(scope="session")
def slide_file(drawn: DrawnSlide, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "drawn.tif"
    write_pyramid(path, drawn.rgb, 0.5, compression="deflate")
    return path


@pytest.fixture(scope="session")
def smoke() -> Settings:
    return resolved(load_settings(overrides=SMOKE))
