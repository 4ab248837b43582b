"""The whole job on a real H&E image that the tiatoolbox package brings along."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.clusters.codebook import load_codebook
from ccrl_wsi.clusters.composition import count_clusters
from ccrl_wsi.config import Settings, load_settings
from ccrl_wsi.config_files import find_config
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.outputs.picture import draw_outlines, save_png, side_by_side, with_legend
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import open_store
from pipelines.machines import MachineSettings
from pipelines.output_folder import OutputFolder
from pipelines.run import run_cohort

SLIDE_NAME = "demo_HE_40x"
MPP = 0.25
PICTURE_PX = 640


def run_demo(out: Path, overrides: list[str], machine: MachineSettings) -> str:
    """Make a slide of the image, run everything on it, and say what was found and where to look.

    Raises
    ------
    ConfigError
        If the image is not where the tiatoolbox package keeps it.
    """
    settings = load_settings([find_config("infer/demo")], overrides)
    rgb = np.asarray(Image.open(find_demo_image()).convert("RGB"))
    slide = out / f"{SLIDE_NAME}.tif"
    if not slide.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_pyramid(slide, rgb, MPP)
    result = run_cohort(list_slides([str(slide)]), out, settings, machine)
    if result.failures:
        raise ConfigError(f"The demo failed: {result.failures[0].message}")
    picture = out / "demo.png"
    save_png(picture, draw_result(rgb, result.folder, SLIDE_NAME))
    return _sentences(result.folder, settings, slide, picture)


def find_demo_image() -> Path:
    """The 40x H&E image inside the installed tiatoolbox, found without importing it.

    Raises
    ------
    ConfigError
        If tiatoolbox is not installed or has no such file.
    """
    spec = find_spec("tiatoolbox")
    image = Path(spec.origin or "").parent / "data" / "target_image.png" if spec else None
    if image is None or not image.is_file():
        raise ConfigError(
            "The demo image (data/target_image.png of the tiatoolbox package) is not installed. "
            "Run `pip install 'tiatoolbox>=2.1.3,<2.2'`, or `ccrl-wsi run` on a slide of your own."
        )
    return image


def draw_result(rgb: ByteArray, folder: OutputFolder, slide_id: str) -> ByteArray:
    """The middle of the slide, bare and with its nuclei coloured by cluster, over a legend."""
    store, codebook = open_store(folder.store(slide_id)), load_codebook(folder.codebook)
    top, left = (max(0, (size - PICTURE_PX) // 2) for size in rgb.shape[:2])
    part = rgb[top : top + PICTURE_PX, left : left + PICTURE_PX]
    drawn = part
    for batch in store.iter_cells(16384, ("cluster",)):
        moved = type(batch.outlines)(batch.outlines.xy - [left, top], batch.outlines.start)
        cluster = batch.columns["cluster"].astype(int)
        drawn = draw_outlines(drawn, moved, cluster, codebook.colors)
    counts = count_clusters(store.obs("cluster"), codebook.k)
    return with_legend(side_by_side([part, drawn]), codebook.names, codebook.colors, counts)


def _sentences(folder: OutputFolder, settings: Settings, slide: Path, picture: Path) -> str:
    store = open_store(folder.store(SLIDE_NAME))
    mm2 = store.attrs["notes"]["tissue_mm2"]
    path = folder.store(SLIDE_NAME)
    return "\n".join(
        [
            "",
            f"{store.n_cells} nuclei in {mm2:.3f} mm2, {store.n_dimensions} numbers each, "
            f"{settings.clusters.k} clusters.",
            f"  report    {folder.table('report.html')}",
            f"  picture   {picture.absolute()}",
            f"  slide     {slide.absolute()}",
            f"  QuPath    open the slide, drag {folder.overlays / SLIDE_NAME}.geojson.gz onto it",
            f'  Python    anndata.read_zarr("{path / "tables" / "cells"}")',
            f"  tables    {folder.table('slides.csv')}, {folder.table('composition.csv')}",
        ]
    )
