"""The settings: one frozen tree, each default in one place, misspelt keys refused.

``load_settings`` merges, in this order: the defaults below, YAML files, ``key=value`` overrides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from ccrl_wsi.cluster_settings import ClusterSettings as ClusterSettings
from ccrl_wsi.measurement_names import NAMES as MEASUREMENT_NAMES
from ccrl_wsi.section import Positive as Positive
from ccrl_wsi.section import Section as Section
from ccrl_wsi.settings_tree import load_tree

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def _in_order(
    low: str, low_value: float, high: str, high_value: float, *, may_meet: bool = False
) -> None:
    if low_value > high_value or (low_value == high_value and not may_meet):
        raise ValueError(
            f"{low}={low_value:g} is not below {high}={high_value:g}: lower the first or raise the "
            "second"
        )


class SlideSettings(Section):
    """How slide files are understood."""

    mpp: Positive | None = Field(
        None, description="Micrometres per level-0 pixel, for slides that do not say or are wrong."
    )
    min_mpp: Positive = Field(0.05, description="A smaller pixel size is taken for a mistake.")
    max_mpp: Positive = Field(4.0, description="A larger pixel size is taken for a mistake.")
    on_bad_tile: Literal["fail", "skip"] = Field(
        "fail",
        description="What pixels that cannot be decoded do. fail: the slide fails; skip: the tiles "
        "that need them are left out, counted and told.",
    )

    @model_validator(mode="after")
    def _mpp_is_believable(self) -> SlideSettings:
        _in_order("slides.min_mpp", self.min_mpp, "slides.max_mpp", self.max_mpp)
        if self.mpp is not None and not self.min_mpp <= self.mpp <= self.max_mpp:
            raise ValueError(
                f"slides.mpp={self.mpp:g} is not between slides.min_mpp={self.min_mpp:g} and "
                f"slides.max_mpp={self.max_mpp:g}: give micrometres per level-0 pixel, such as 0.25"
            )
        return self


class TissueSettings(Section):
    """Where to look for nuclei."""

    method: Literal["otsu", "none", "geojson"] = Field(
        "otsu", description="otsu: stained areas; none: everywhere; geojson: inside given regions."
    )
    regions: Path | None = Field(
        None,
        description="GeoJSON of one slide in level-0 px, or a folder with <slide_id>.geojson. "
        "Areas of classes that QuPath ignores (Ignore*) are cut out of the others.",
    )
    mpp: Positive = Field(8.0, description="Resolution of the mask, um per pixel.")
    min_area_um2: float = Field(5000.0, ge=0, description="Smaller specks are not tissue.")
    max_hole_um2: float = Field(20000.0, ge=0, description="Smaller holes are filled.")
    margin_um: float = Field(24.0, ge=0, description="The mask is widened by this much.")
    min_chroma: float = Field(
        0.04, ge=0, le=1, description="Floor of Otsu's threshold: greyer areas are never tissue."
    )
    max_chroma: float = Field(
        0.08, ge=0, le=1, description="Ceiling of Otsu's threshold, for slides without glass."
    )
    regions_from_bounds: bool = Field(
        True, description="Regions count from the scanned area (OpenSlide bounds), as in QuPath."
    )

    @model_validator(mode="after")
    def _regions_go_with_geojson(self) -> TissueSettings:
        if (self.method == "geojson") != (self.regions is not None):
            raise ValueError("method=geojson and regions=FILE belong together: give both or none")
        _in_order(
            "tissue.min_chroma",
            self.min_chroma,
            "tissue.max_chroma",
            self.max_chroma,
            may_meet=True,
        )
        return self


class TileSettings(Section):
    """How the slide is cut."""

    mpp: Positive = Field(0.25, description="Resolution everything is computed at, um per pixel.")
    mpp_tolerance: float = Field(
        0.01, ge=0, lt=0.2, description="A level this close to mpp (relative) is used as stored."
    )
    core_px: int = Field(
        2048, ge=64, multiple_of=8, description="Side of the area a tile answers for."
    )
    align_to_file: bool = Field(
        False,
        description="Where a stored level is used, cores end where the file's own tiles do, if "
        "that changes core_px by an eighth at most and saves decodes (2160 for tiles of 240 px).",
    )
    halo_um: float = Field(32.0, ge=0, description="Extra margin; larger than any nucleus.")
    partition_side: int = Field(2, ge=1, description="A partition is this many tiles squared.")


class WatershedSettings(Section):
    """The segmenter that needs no weights. Densities are optical densities of the stain."""

    smooth_um: Positive = Field(0.2, description="Sigma of the blur on the stain.")
    smooth_edge_um: Positive = Field(0.4, description="Sigma of the blur that rounds outlines.")
    window_um: Positive = Field(
        20.0, description="Side of the window of the local threshold; the halo must exceed it."
    )
    level: float = Field(
        0.4, gt=0, lt=1, description="Threshold between pale (0) and dark (1) of the window."
    )
    min_contrast: Positive = Field(0.04, description="Threshold above the pale part, at least.")
    min_mean_contrast: float = Field(
        0.015, ge=0, description="A nucleus exceeds its threshold by this on average."
    )
    open_um: float = Field(0.25, ge=0, description="Threads thinner than twice this are cut.")
    max_hole_um2: float = Field(12.0, ge=0, description="Smaller holes in nuclei are filled.")
    seed_distance_um: Positive = Field(2.0, description="Two nuclei's centres are further apart.")
    core_share: float = Field(
        0.9, gt=0, le=1, description="Of the greatest depth around, that a nucleus' core reaches."
    )
    smooth_relief_um: Positive = Field(0.6, description="Sigma of the blur before splitting.")
    density_um: float = Field(
        10.0, ge=0, description="Stain of density 1 makes a seed as likely as this much depth."
    )


class CompactSettings(Section):
    """The segmenter that comes with the package."""

    separation: Literal["offset", "depth"] = Field(
        "offset",
        description="What parts touching nuclei. offset: the place relative to their centre, as "
        "HoVer-Net does; depth: the distance to their own edge.",
    )
    views: Literal[1, 8] = Field(
        1,
        description="8: looks at each window turned and mirrored too and takes the mean: a little "
        "better, at eight times the cost.",
    )


class NucleiSettings(Section):
    """How nuclei are found."""

    segmenter: str = Field(
        "hovernet_fast-pannuke",
        description="A HoVer-Net of TIAToolbox, compact, watershed, or module:Class of a ModelABC.",
    )
    weights: Path | None = Field(
        None, description="Local weight file; else TIAToolbox's cache, or what compact comes with."
    )
    window_px: Annotated[int, Field(ge=256)] | None = Field(
        None,
        description="Longest side of what the network sees at once; null: 2048 on a GPU, where "
        "fewer pixels are seen twice; 1024 on CPU cores, for the memory.",
    )
    batch_size: int = Field(
        4,
        ge=1,
        description="On a GPU, windows of 1024 x 1024 px the network takes at once, or as many "
        "pixels in others. CPU cores take one window. A TIAToolbox ModelABC takes so many windows "
        "at once, of whatever size, on every device.",
    )
    precision: Precision = Field(
        "auto", description="auto: bfloat16 where CUDA has it, float16 on older GPUs, else float32."
    )
    boundary_scale: Literal["fixed", "tile"] = Field(
        "fixed",
        description="HoVer-Net: what splits nuclei. fixed: the same everywhere; tile: scaled to "
        "each tile's extremes, as TIAToolbox does, so that results depend on the tile size.",
    )
    min_area_um2: float = Field(8.0, ge=0, description="Smaller objects are not nuclei.")
    max_area_um2: Positive = Field(1500.0, description="Larger objects are not nuclei.")
    compact: CompactSettings = CompactSettings()
    watershed: WatershedSettings = WatershedSettings()

    @model_validator(mode="after")
    def _areas_are_a_range(self) -> NucleiSettings:
        _in_order(
            "nuclei.min_area_um2", self.min_area_um2, "nuclei.max_area_um2", self.max_area_um2
        )
        return self


class CropSettings(Section):
    """How a nucleus becomes an image (papers: the adaptive window)."""

    scale: Positive | None = Field(
        None,
        description="Window side / long side of the nucleus' box; null: as the encoder asks, or 2.",
    )
    size_px: int | None = Field(
        None, ge=8, description="Side of the crop after resizing; null: as the encoder asks, or 32."
    )
    keep: bool = Field(False, description="Keep the crops in the store.")

    @property
    def rule(self) -> tuple[float, int]:
        """Scale and side in px.

        Raises
        ------
        ValueError
            If they are left to the encoder, which must have been asked before.
        """
        if self.scale is None or self.size_px is None:
            raise ValueError("crops.scale and crops.size_px are left open: ask the encoder first")
        return self.scale, self.size_px


class EmbeddingSettings(Section):
    """How a crop becomes a vector."""

    encoder: str = Field(
        "ccrl",
        description="ccrl: the bundled one; morphology: measurements; or a checkpoint's path. "
        "To compare with: morphological, manual, imagenet, imagenet50.",
    )
    weights: Path | None = Field(
        None, description="imagenet, imagenet50: local weight file; null: torchvision's download."
    )
    batch_size: int = Field(1024, ge=1, description="Crops the network takes at once.")
    precision: Precision = Field(
        "float32",
        description="What networks compute in. float32: embeddings are what is measured, and do "
        "not depend on the device beyond rounding; others are faster where the device has them. "
        "auto: as nuclei.precision.",
    )


class OverlaySettings(Section):
    """What QuPath reads."""

    points_above: int = Field(
        1_000_000, ge=0, description="Slides with more cells get centroids instead of outlines."
    )
    split_above: int = Field(
        2_000_000, ge=1, description="Objects in one file; more go to numbered files."
    )
    crop_to_bounds: bool = Field(
        True, description="Count from the scanned area as QuPath does; false: --no-crop."
    )
    measurements: tuple[str, ...] = Field(
        ("area_um2", "circularity", "eccentricity", "haematoxylin_mean"),
        description="Columns shown in QuPath besides cluster, distance and probabilities.",
    )

    @field_validator("measurements")
    @classmethod
    def _measurements_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in MEASUREMENT_NAMES]
        if unknown:
            known = ", ".join(MEASUREMENT_NAMES)
            raise ValueError(f"no measurement {unknown[0]!r}; there are {known}")
        return names


class ReportSettings(Section):
    """The cohort report. It changes no result."""

    make: bool = Field(True, description="Write report.html at the end of run and of cluster.")
    slides_shown: int = Field(40, ge=0, description="Slides shown as pictures; all else has all.")
    picture_px: int = Field(560, ge=64, le=2000, description="Long side of a slide's picture.")
    maps_per_cluster: int = Field(6, ge=0, description="Slides on a cluster's card.")
    crops_per_cluster: int = Field(
        12, ge=0, description="Nearest cells on a cluster's card, and as many at random."
    )
    cells_looked_at: int = Field(
        200_000, ge=1, description="Cells of the cohort that cards describe, slides alike."
    )
    n_permutations: int = Field(
        10_000, ge=99, description="Ways of dealing patients into groups that are looked at."
    )
    n_bootstrap: int = Field(2000, ge=100, description="Draws for the intervals of differences.")


class ComputeSettings(Section):
    """The machine. Never part of a fingerprint; networks round as the device does."""

    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N."
    )
    read_ahead: int = Field(2, ge=0, description="Tiles read before they are needed.")
    retries: int = Field(
        2, ge=0, description="How often a partition is tried again before its slide fails."
    )
    extract_behind: Literal["auto"] | NonNegativeInt = Field(
        "auto",
        description="Threads that finish nuclei while the network looks at the next tile; 0: in "
        "turn with it. auto: 0 where the network is on CPU cores, up to 4 where it is on a GPU.",
    )
    compile: bool = Field(
        False,
        description="HoVer-Net and compact: compile the network with torch.compile, which takes "
        "minutes at the start of each worker and needs a C++ compiler.",
    )


class Settings(Section):
    """Everything a run can be told."""

    seed: int = Field(0, ge=0, description="Of the clusters' sample and starts.")
    slides: SlideSettings = SlideSettings()
    tissue: TissueSettings = TissueSettings()
    tiles: TileSettings = TileSettings()
    nuclei: NucleiSettings = NucleiSettings()
    crops: CropSettings = CropSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    clusters: ClusterSettings = ClusterSettings()
    overlay: OverlaySettings = OverlaySettings()
    report: ReportSettings = ReportSettings()
    compute: ComputeSettings = ComputeSettings()

    @model_validator(mode="after")
    def _halo_holds_the_window(self) -> Settings:
        window_um, halo_um = self.nuclei.watershed.window_um, self.tiles.halo_um
        if self.nuclei.segmenter == "watershed" and halo_um < window_um:
            raise ValueError(
                f"tiles.halo_um={halo_um:g} is less than nuclei.watershed.window_um={window_um:g}: "
                "nuclei at seams would depend on the tile. Raise the first or lower the second"
            )
        return self


def load_settings(
    files: Iterable[Path] = (),
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of a run: :func:`load_tree` of :class:`Settings`."""
    return load_tree(Settings, files, overrides, base)


def with_absolute_paths(settings: Settings) -> Settings:
    """The same settings, understood from any folder: workers may run in another one."""
    nuclei, tissue, clusters = settings.nuclei, settings.tissue, settings.clusters
    encoder = settings.embedding.encoder
    if is_path(encoder):
        encoder = str(Path(encoder).expanduser().absolute())
    return settings.model_copy(
        update={
            "nuclei": nuclei.model_copy(update={"weights": _absolute(nuclei.weights)}),
            "tissue": tissue.model_copy(update={"regions": _absolute(tissue.regions)}),
            "clusters": clusters.model_copy(update={"codebook": _absolute(clusters.codebook)}),
            "embedding": settings.embedding.model_copy(
                update={"encoder": encoder, "weights": _absolute(settings.embedding.weights)}
            ),
        }
    )


def is_path(encoder: str) -> bool:
    """Whether ``embedding.encoder`` is the path of a checkpoint, not the name of an encoder."""
    path = Path(encoder)
    return bool(path.suffix) or len(path.parts) > 1


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser().absolute()
