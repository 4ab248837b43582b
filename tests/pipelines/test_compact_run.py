"""The whole job with the bundled segmenter: same bytes for any workers, each nucleus once."""

from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.config import load_settings
from ccrl_wsi.slides.array_reader import open_array
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.resampling import make_grid
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.slides.tissue import Tissue
from ccrl_wsi.store import open_store
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide
from ccrl_wsi.tiles.grid import cut_tiles
from pipelines.machines import load_machine
from pipelines.resolved_settings import resolved
from pipelines.run import run_cohort
from pipelines.stopwatch import Stopwatch
from pipelines.tile_pass import SlideView, TilePixels, cells_of_tile
from pipelines.tools import segmenter_of
from pipelines.verify import verify_output

MPP, HALO_PX = 0.25, 128
COMPACT = (
    "nuclei.segmenter=compact",
    "tiles.core_px=256",
    "tiles.partition_side=1",
    "clusters.k=3",
    "clusters.n_init=2",
    "embedding.encoder=morphology",
)


@pytest.fixture(scope="module")
def settings():
    return resolved(load_settings(overrides=COMPACT))


@pytest.fixture(scope="module")
def tissue():
    spec = DrawnSlideSpec(width_px=640, height_px=512, n_nuclei=170, seed=11, touching_share=0.3)
    return draw_slide(spec)


@pytest.fixture(scope="module")
def serial(settings, tissue, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compact")
    write_pyramid(folder / "drawn.tif", tissue.rgb, MPP, compression="deflate")
    result = run_cohort(
        list_slides([str(folder / "drawn.tif")]), folder / "out", settings, load_machine("serial")
    )
    assert result.exit_code == 0
    return folder


def test_a_run_finds_the_drawn_nuclei_and_verifies(serial, tissue):
    problems, _ = verify_output(serial / "out")
    store = open_store(serial / "out" / "slides" / "drawn.zarr")

    assert problems == []
    assert store.n_cells == pytest.approx(len(tissue.area_px), rel=0.2)


def test_workers_give_the_same_bytes(serial, settings, tmp_path):
    machine = tmp_path / "two.yaml"
    machine.write_text("kind: local\nworkers: 2\nthreads: 1\n")
    slides = list_slides([str(serial / "drawn.tif")])

    run_cohort(slides, tmp_path / "out", settings, load_machine(str(machine)))

    one, two = (f / "slides" / "drawn.zarr" for f in (serial / "out", tmp_path / "out"))
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    assert [str(f) for f in files if (one / f).read_bytes() != (two / f).read_bytes()] == []


def cells(tissue, settings, core_px):
    reader = open_array([tissue.rgb], MPP)
    grid = make_grid(reader.info, MPP, 0.01)
    view = SlideView(reader, grid, Tissue(np.ones((grid.height, grid.width), bool), grid))
    found = []
    for tile in cut_tiles(grid.extent, core_px, HALO_PX):
        rgb = reader.read(tile.read, grid)
        segmenter = segmenter_of(settings)
        found.append(
            cells_of_tile(TilePixels(rgb), tile, view, segmenter, settings, Stopwatch())[0]
        )
    return np.concatenate([part.centroid_px for part in found])


@pytest.mark.parametrize("core_px", [128, 200, 384])
def test_at_seams_every_nucleus_comes_out_once(tissue, settings, core_px):
    whole, cut = cells(tissue, settings, 1024), cells(tissue, settings, core_px)

    away = np.linalg.norm(whole[:, None] - cut[None], axis=2)
    is_found = away.min(axis=1) < 1
    assert is_found.mean() > 0.98
    assert len(cut) == pytest.approx(len(whole), abs=2)
    twins = np.linalg.norm(cut[:, None] - cut[None], axis=2) + 1e9 * np.eye(len(cut))
    assert twins.min() > 4
