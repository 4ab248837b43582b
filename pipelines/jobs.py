"""The records that travel to workers and back: paths, boxes and settings, never pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ccrl_wsi.config import Settings
from ccrl_wsi.geometry import PixelGrid
from ccrl_wsi.records import Partition, SlideInfo, SlideSource
from pipelines.used_regions import UsedRegions

NO_NUCLEI = (
    "no nuclei found in its tissue; see whether it is an H&E slide, its pixel size (`ccrl-wsi "
    "info`) and the nuclei settings"
)
"""Of a slide that was looked at."""


@dataclass(frozen=True, slots=True)
class SlidePlan:
    """What is to be done for one slide.

    Parameters
    ----------
    core_px
        Side of the tiles' cores in grid pixels.
    tissue_mm2
        Area to be looked at.
    fingerprint
        Changes with the slide's pixels and with every setting that decides its cells.
    warnings
        Sentences for the user.
    regions
        The drawn regions it is looked for nuclei in; None where there are none.
    """

    source: SlideSource
    info: SlideInfo
    grid: PixelGrid
    core_px: int
    tissue_mm2: float
    partitions: tuple[Partition, ...]
    fingerprint: str
    warnings: tuple[str, ...]
    regions: UsedRegions | None = None

    @property
    def slide_id(self) -> str:
        """The slide's name in every output."""
        return self.info.slide_id


@dataclass(frozen=True, slots=True)
class PartitionJob:
    """One partition, with all a worker needs to do it."""

    info: SlideInfo
    grid: PixelGrid
    tissue: Path
    partition: Partition
    fingerprint: str
    target: Path
    settings: Settings

    @property
    def slide_id(self) -> str:
        """The slide the partition belongs to."""
        return self.info.slide_id

    @property
    def path(self) -> Path:
        """The slide's file."""
        return self.info.path

    @property
    def where(self) -> str:
        """The partition, for messages."""
        return f"partition {self.partition.number}"

    @property
    def reads(self) -> tuple[Path, ...]:
        """What must be there before."""
        return (self.tissue,)

    @property
    def writes(self) -> tuple[Path, ...]:
        """What is there afterwards."""
        return (self.target,)


@dataclass(frozen=True, slots=True)
class Tally:
    """What a partition, or several, came to.

    Parameters
    ----------
    n_cells
        Nuclei owned.
    n_clipped
        Those cut off by the edge of what their tile could see.
    n_read_again
        Crops whose window reached beyond the tile, so that it was read anew.
    n_tiles
        Tiles of the partition.
    area_mm2
        Area of the cores of those that were looked at.
    n_skipped, skipped_tissue_mm2
        Tiles that could not be decoded and were left out, and the tissue in their cores.
    seconds
        Time by stage, of all threads that were at it.
    lane_seconds
        Time by lane (reading, network, nuclei), shared by its threads: the longest one binds.
    elapsed_seconds
        From opening the slide to the part on disk (in the part's own header: to its writing).
        Loading networks, once a worker, is not in it. Partitions done at the same time count in
        full.
    wall_seconds, device_seconds
        The same, shared by the partitions that a process does at the same time; and of that, how
        long its GPU was at the segmenter's tiles, at crops and at the encoder's batches. What it
        did at the same time counts once; pauses between kernels of one tile or batch count.
    """

    n_cells: int = 0
    n_clipped: int = 0
    n_read_again: int = 0
    n_tiles: int = 0
    area_mm2: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    lane_seconds: dict[str, float] = field(default_factory=dict)
    elapsed_seconds: float = 0.0
    wall_seconds: float = 0.0
    device_seconds: float = 0.0
    n_skipped: int = 0
    skipped_tissue_mm2: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.n_cells + other.n_cells,
            self.n_clipped + other.n_clipped,
            self.n_read_again + other.n_read_again,
            self.n_tiles + other.n_tiles,
            self.area_mm2 + other.area_mm2,
            _added(self.seconds, other.seconds),
            _added(self.lane_seconds, other.lane_seconds),
            self.elapsed_seconds + other.elapsed_seconds,
            self.wall_seconds + other.wall_seconds,
            self.device_seconds + other.device_seconds,
            self.n_skipped + other.n_skipped,
            self.skipped_tissue_mm2 + other.skipped_tissue_mm2,
        )

    @property
    def found_nothing(self) -> bool:
        """Whether there was tissue to look at, and no nucleus in it."""
        return self.n_tiles > self.n_skipped and not self.n_cells

    def lane_shares(self) -> dict[str, float]:
        """Share of the time that each lane was busy; a GPU takes the place of asking it."""
        if not self.elapsed_seconds:
            return {}
        shares = {lane: busy / self.elapsed_seconds for lane, busy in self.lane_seconds.items()}
        if self.device_seconds:
            shares.pop("network", None)
            shares["gpu"] = self.device_seconds / self.wall_seconds
        return shares


def tissue_seen_mm2(plan: SlidePlan, tally: Tally) -> float:
    """Area of the tissue without that of tiles that were left out: what densities are of."""
    return max(0.0, plan.tissue_mm2 - tally.skipped_tissue_mm2)


def _added(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {key: one.get(key, 0.0) + other.get(key, 0.0) for key in {**one, **other}}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a slide has no result; ``log`` is a file in the output folder."""

    slide_id: str
    path: str
    stage: str
    where: str
    message: str
    log: str = ""
