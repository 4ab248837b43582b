"""What a report shows, before it is drawn: frozen records without any layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ccrl_wsi.arrays import ByteArray, FloatArray, IntArray
from ccrl_wsi.cohort_records import Components, GroupComparison, Tree

Color = tuple[int, int, int]
Quantiles = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ReportSlide:
    """A slide in the tables and figures.

    Parameters
    ----------
    slide_id
        The only name that is shown, since files may be named after people.
    mpp
        Micrometres per level-0 pixel.
    counts
        Cells of each cluster; None where the slide has no clusters.
    overlays
        Its overlay's files, relative to the report.
    """

    slide_id: str
    patient: str | None
    group: str | None
    mpp: float
    tissue_mm2: float
    n_cells: int
    n_clipped: int
    warnings: tuple[str, ...]
    counts: tuple[int, ...] | None
    overlays: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReportFailure:
    """A slide that has no result, and why."""

    slide_id: str
    stage: str
    message: str


@dataclass(frozen=True, slots=True)
class Overview:
    """Of the whole run.

    Parameters
    ----------
    facts
        Names and values, such as the number of slides.
    models
        Names of the segmenter and of the encoder.
    stage_seconds
        Processor time of each stage, in the order of the work.
    run_seconds
        From the start to the end of the last run that found cells.
    finish_seconds
        The same of a later one that found none, such as `cluster`; None where there was none.
    made
        When the report was made, for people.
    settings, versions
        As text: YAML, and name by name.
    regions
        Slide, file and SHA-256 of the drawn regions that nuclei were looked for in.
    """

    facts: tuple[tuple[str, str], ...]
    models: tuple[str, str]
    failures: tuple[ReportFailure, ...]
    stage_seconds: tuple[tuple[str, float], ...]
    run_seconds: float | None
    made: str
    settings: str
    versions: tuple[tuple[str, str], ...]
    finish_seconds: float | None = None
    regions: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Compositions:
    """What the figures on composition are drawn from.

    Parameters
    ----------
    slides
        n slides with cells and clusters.
    ratios
        (n, k) centred log-ratios.
    patients, patient_counts
        m patients with (m, k) cells; empty where every slide stands for itself.
    slide_tree, patient_tree, cluster_tree
        Which slides, which patients, and which clusters go together.
    """

    slides: tuple[ReportSlide, ...]
    ratios: FloatArray
    patients: tuple[str, ...]
    patient_counts: IntArray
    slide_tree: Tree
    patient_tree: Tree
    cluster_tree: Tree
    components: Components | None


@dataclass(frozen=True, eq=False, slots=True)
class SlidePicture:
    """A slide, small.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8 thumbnail; None where the slide's file cannot be read.
    cells
        (h, w, 4) uint8: cells in the colours of their clusters, transparent elsewhere.
    width_um
        What the picture's width is on the slide.
    note
        A sentence where something is missing.
    """

    slide_id: str
    rgb: ByteArray | None
    cells: ByteArray
    width_um: float
    note: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Exemplar:
    """A cell's crop (h, w, 3) uint8 and where it is from."""

    crop: ByteArray
    title: str
    distance: float


@dataclass(frozen=True, slots=True)
class MeasurementSummary:
    """Quartiles of one measurement in a cluster, and in all cells looked at."""

    name: str
    unit: str
    q25: float
    median: float
    q75: float
    cohort: tuple[float, float, float]


@dataclass(frozen=True, eq=False, slots=True)
class ClusterMap:
    """Where a cluster lies in a slide: (h, w, 4) uint8, transparent where there is no tissue."""

    title: str
    picture: ByteArray
    n_cells: int


@dataclass(frozen=True, slots=True)
class LargestSlide:
    """The slide with most cells of a cluster: its shares of these, and of all cells."""

    title: str
    of_cluster: float
    of_all: float


@dataclass(frozen=True, eq=False, slots=True)
class ClusterCard:
    """One cluster.

    Parameters
    ----------
    number
        Index from 0.
    n_cells, fraction, n_slides
        Of the cohort; slides that have at least one such cell.
    largest
        The slide with most of its cells; None where the cohort is one slide.
    measurements, type_fractions, distance
        Of the cells looked at: quartiles, shares by name, and the 5, 25, 50, 75, 95 % quantiles of
        the distance to the centre.
    silhouette
        Mean silhouette of a sample; None where it could not be computed.
    beside_more, beside_less
        Clusters found beside it more, and less, often than by chance.
    note
        A sentence where crops are missing.
    """

    number: int
    n_cells: int
    fraction: float
    n_slides: int
    measurements: tuple[MeasurementSummary, ...]
    type_fractions: tuple[tuple[str, float], ...]
    distance: Quantiles
    silhouette: float | None
    nearest: tuple[Exemplar, ...]
    random: tuple[Exemplar, ...]
    maps: tuple[ClusterMap, ...]
    beside_more: tuple[int, ...] = ()
    beside_less: tuple[int, ...] = ()
    note: str = ""
    largest: LargestSlide | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Neighbourhoods:
    """Which clusters lie beside which.

    Parameters
    ----------
    log2_ratio, z
        (k, k): observed over expected neighbours, and standard scores.
    n_cells, n_slides
        Cells looked at.
    how
        A sentence on graph and permutations.
    """

    log2_ratio: FloatArray
    z: FloatArray
    n_cells: int
    n_slides: int
    how: str


@dataclass(frozen=True, slots=True)
class KPoint:
    """One number of clusters: how stable it is and how far its clusters lie apart, with errors."""

    k: int
    stability: float
    stability_error: float
    silhouette: float
    silhouette_error: float


@dataclass(frozen=True, slots=True)
class KCurve:
    """How the number of clusters was chosen.

    Parameters
    ----------
    is_stable
        Whether it is as stable as asked.
    follows_slides
        Whether most of its clusters are nearly one slide's.
    """

    points: tuple[KPoint, ...]
    chosen: int
    is_stable: bool
    follows_slides: bool = False


@dataclass(frozen=True, slots=True)
class BatchFinding:
    """How well something about the slides' making is told from their cells.

    Parameters
    ----------
    trait
        Such as scanner or site.
    source
        What it is told from, such as composition.
    score, chance
        Balanced accuracy, 0 to 1, and what guessing gives; None where there are too few slides.
    sentence
        What that means.
    """

    trait: str
    source: str
    score: float | None
    chance: float | None
    sentence: str


@dataclass(frozen=True, eq=False, slots=True)
class LabelTable:
    """Classes people gave, against clusters: counts (labels, k)."""

    labels: tuple[str, ...]
    counts: IntArray
    agreement: float


@dataclass(frozen=True, slots=True)
class Groups:
    """Comparisons of groups of patients, and sentences about them."""

    comparisons: tuple[GroupComparison, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReportContent:
    """Everything the page shows. A part that is None is left out.

    Parameters
    ----------
    names, colors
        Of the clusters, by number.
    sentences
        What the reader should know first, such as unknown slides in the table of groups.
    pictures
        By slide_id, for the slides shown as pictures.
    """

    title: str
    overview: Overview
    slides: tuple[ReportSlide, ...]
    names: tuple[str, ...] = ()
    colors: tuple[Color, ...] = ()
    sentences: tuple[str, ...] = ()
    compositions: Compositions | None = None
    cards: tuple[ClusterCard, ...] = ()
    neighbourhoods: Neighbourhoods | None = None
    curve: KCurve | None = None
    pictures: Mapping[str, SlidePicture] | None = None
    groups: Groups | None = None
    batch: tuple[BatchFinding, ...] = ()
    labels: LabelTable | None = None
