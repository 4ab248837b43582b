"""What slides hold, in words."""

from __future__ import annotations

from collections.abc import Sequence

from ccrl_wsi.config import Settings
from ccrl_wsi.errors import CcrlError
from ccrl_wsi.records import SlideInfo, SlideSource
from ccrl_wsi.slides.appearance import he_warning
from ccrl_wsi.slides.openslide_reader import open_slide
from ccrl_wsi.slides.thumbnail import read_thumbnail
from ccrl_wsi.slides.tissue import find_tissue
from pipelines.slide_grid import core_px, grid_of


def describe_slides(sources: Sequence[SlideSource], settings: Settings) -> tuple[str, bool]:
    """One paragraph a slide, and whether all of them can be processed."""
    paragraphs, all_usable = [], True
    for source in sources:
        try:
            paragraphs.append("\n".join(_describe(source, settings)))
        except CcrlError as error:
            all_usable = False
            paragraphs.append(f"{source.path}\n  cannot be processed: {error}")
    return "\n\n".join(paragraphs), all_usable


def _describe(source: SlideSource, settings: Settings) -> list[str]:
    reader = open_slide(source, settings.slides)
    try:
        info = reader.info
        grid = grid_of(info, settings)
        thumbnail = read_thumbnail(reader, settings.tissue.mpp)
        tissue = find_tissue(thumbnail, info, settings.tissue)
    finally:
        reader.close()
    bounds = info.bounds_px
    lines = [
        str(source.path),
        f"  id          {info.slide_id}",
        f"  format      {info.vendor}",
        f"  level 0     {info.width_px} x {info.height_px} px, {info.mpp:.4g} um per pixel",
        f"  scanned     {bounds.width} x {bounds.height} px at ({bounds.left}, {bounds.top})",
        f"  levels      {', '.join(f'{d:g}' for d in info.level_downsamples)} (downsamples)",
        f"  file tiles  {_file_tiles(info)}",
        f"  tissue      {tissue.area_um2 / 1e6:.3f} mm2",
        f"  worked on   {grid.width} x {grid.height} px at {grid.mpp:.4g} um per pixel, "
        f"in tiles of {core_px(info, grid, settings)} px",
    ]
    warnings = [he_warning(thumbnail.rgb), "no tissue found" if tissue.is_empty else None]
    return [*lines, *(f"  warning     {warning}" for warning in warnings if warning)]


def _file_tiles(info: SlideInfo) -> str:
    sizes = [
        "unknown" if tile is None else f"{tile[0]} x {tile[1]}" for tile in info.level_tiles_px
    ]
    return f"{', '.join(dict.fromkeys(sizes)) or 'unknown'} px"
