"""What is to be done for a slide: its grid, its tissue, its partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ccrl_wsi.cell_identity import fingerprint
from ccrl_wsi.config import Settings
from ccrl_wsi.errors import StoreError
from ccrl_wsi.interfaces import SlideReader
from ccrl_wsi.parts import part_manifest
from ccrl_wsi.records import Partition, SlideInfo, SlideSource
from ccrl_wsi.slides.appearance import he_warning
from ccrl_wsi.slides.openslide_reader import open_slide
from ccrl_wsi.slides.pixel_sizes import enlarged_sentence
from ccrl_wsi.slides.regions import regions_digest
from ccrl_wsi.slides.thumbnail import read_thumbnail
from ccrl_wsi.slides.tissue import find_tissue
from ccrl_wsi.tiles.grid import cut_tiles, group_tiles
from pipelines.jobs import PartitionJob, SlidePlan, Tally
from pipelines.output_folder import OutputFolder
from pipelines.slide_grid import core_px, grid_of, halo_px
from pipelines.used_regions import used_regions


@dataclass(frozen=True, slots=True)
class OpenedSlide:
    """A slide that can be opened, and the fingerprint its cells will have."""

    source: SlideSource
    reader: SlideReader
    fingerprint: str

    @property
    def info(self) -> SlideInfo:
        """What the slide says of itself."""
        return self.reader.info


def identify_slide(source: SlideSource, settings: Settings, models: str) -> OpenedSlide:
    """Open a slide, without looking at its pixels.

    Parameters
    ----------
    models
        Fingerprints of segmenter and encoder, as text.

    Raises
    ------
    SlideError
        If the slide cannot be opened or has no usable pixel size.
    """
    reader = open_slide(source, settings.slides)
    info = reader.info
    drawn = settings.tissue.method == "geojson"
    regions = regions_digest(info, settings.tissue) if drawn else ""
    identity = f"{info.content_key} {info.mpp} {models} {regions}"
    core = core_px(info, grid_of(info, settings), settings)
    if core != settings.tiles.core_px:
        identity += f" core_px={core}"
    return OpenedSlide(source, reader, fingerprint(settings, identity))


def plan_slide(opened: OpenedSlide, settings: Settings, folder: OutputFolder) -> SlidePlan:
    """Find the tissue of a slide and cut it into partitions. Leaves the mask for the workers.

    Raises
    ------
    SlideError
        If the slide cannot be decoded.
    """
    reader, info = opened.reader, opened.info
    grid = grid_of(info, settings)
    thumbnail = read_thumbnail(reader, settings.tissue.mpp)
    tissue = find_tissue(thumbnail, info, settings.tissue)
    folder.make(folder.work(info.slide_id))
    tissue.to_npz(folder.tissue(info.slide_id))
    folder.publish(folder.tissue(info.slide_id))
    core = core_px(info, grid, settings)
    tiles = cut_tiles(grid.extent, core, halo_px(settings, grid.mpp))
    partitions = group_tiles(
        tiles, settings.tiles.partition_side, lambda core: tissue.touches(core, grid)
    )
    return SlidePlan(
        source=opened.source,
        info=info,
        grid=grid,
        core_px=core,
        tissue_mm2=tissue.area_um2 / 1e6,
        # One partition without tiles carries the columns of a slide without cells.
        partitions=partitions or (Partition(0, ()),),
        fingerprint=opened.fingerprint,
        warnings=_warnings(info, grid.mpp, he_warning(thumbnail.rgb), is_empty=not partitions),
        regions=used_regions(info, settings.tissue),
    )


def largest_first(sources: Sequence[SlideSource]) -> list[SlideSource]:
    """``sources`` by the size of their files, which tells the area well enough.

    What cannot be looked at comes last, and fails there.
    """
    return sorted(sources, key=lambda source: -_size_of(source.path))


def _size_of(path: Path) -> int:
    # MIRAX keeps the pixels in a folder beside the file.
    beside = path.with_suffix("")
    try:
        size = path.stat().st_size
        if path.suffix.lower() == ".mrxs" and beside.is_dir():
            size += sum(file.stat().st_size for file in beside.iterdir())
    except OSError:
        return 0
    return size


def job_of(
    plan: SlidePlan, partition: Partition, settings: Settings, folder: OutputFolder
) -> PartitionJob:
    """The job that does ``partition``."""
    return PartitionJob(
        info=plan.info,
        grid=plan.grid,
        tissue=folder.tissue(plan.slide_id),
        partition=partition,
        fingerprint=plan.fingerprint,
        target=folder.part(plan.slide_id, partition.name),
        settings=settings,
    )


def committed_tally(job: PartitionJob, part: Path | BinaryIO | None = None) -> Tally | None:
    """What the partition came to, if an earlier run committed it with the same settings.

    ``part`` is its result where that is not a file at ``job.target``.
    """
    try:
        manifest = part_manifest(job.target if part is None else part)
    except StoreError:
        return None
    if manifest["fingerprint"] != job.fingerprint:
        return None
    tally = Tally(**manifest["tally"])
    # What was left out as a whole is tried again: the file may be another one now.
    is_unseen = 0 < tally.n_tiles == tally.n_skipped
    return tally if tolerates(tally, job.settings) and not is_unseen else None


def tolerates(tally: Tally, settings: Settings) -> bool:
    """Whether cells that an earlier run found may lack what they lack."""
    return settings.slides.on_bad_tile == "skip" or not tally.n_skipped


def _warnings(
    info: SlideInfo, mpp: float, appearance: str | None, *, is_empty: bool
) -> tuple[str, ...]:
    found = [said for said in (appearance, enlarged_sentence(info.mpp, mpp)) if said]
    if is_empty:
        found.append("no tissue found, so there are no cells (see the tissue settings).")
    return tuple(f"{info.path.name}: {sentence}" for sentence in found)
