"""The slides of a report: what is known of them, and how they look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.clusters.codebook import Codebook
from ccrl_wsi.clusters.composition import count_clusters
from ccrl_wsi.cohort.slide_traits import Traits
from ccrl_wsi.config import ReportSettings, SlideSettings
from ccrl_wsi.errors import CcrlError, SlideError, StoreError
from ccrl_wsi.geometry import Box
from ccrl_wsi.interfaces import SlideReader
from ccrl_wsi.outputs.report.cell_maps import count_cells, paint_clusters, paint_one
from ccrl_wsi.records import SlideSource
from ccrl_wsi.report_content import ClusterMap, Color, ReportSlide, SlidePicture
from ccrl_wsi.slides.openslide_reader import open_slide
from ccrl_wsi.slides.thumbnail import read_thumbnail
from ccrl_wsi.store import SlideStore, codebook_of, open_store, telling_damage
from pipelines.output_folder import OutputFolder
from pipelines.report_names import ReportNames
from pipelines.state import SlideState

ROWS = 262_144
"""Cells in memory at once."""

MAP_PX = 150
"""Width of the small pictures on the clusters' cards."""

MOST_NEIGHBOURS = 2_000_000
"""Cells kept for the clusters' neighbours; a picture of more does not change."""

OTHER_CLUSTERS = (
    "{} has clusters of another codebook than the cohort, so they are left out. `ccrl-wsi cluster` "
    "gives it those of the cohort."
)

NO_CLUSTERS: tuple[Color, ...] = ((70, 90, 130),)


class UnreadableSlideError(StoreError):
    """A slide whose store opens but cannot be read to the end."""

    def __init__(self, slide_id: str, message: str) -> None:
        super().__init__(message)
        self.slide_id = slide_id


@contextmanager
def reading(store: SlideStore) -> Iterator[None]:
    """Raise what damaged files of ``store`` cause as :class:`UnreadableSlideError`."""
    try:
        with telling_damage(store.path):
            yield
    except StoreError as error:
        raise UnreadableSlideError(store.slide_id, str(error)) from error


@dataclass(frozen=True, slots=True)
class OpenReportSlide:
    """A slide that can be read."""

    state: SlideState
    store: SlideStore
    entry: ReportSlide


@dataclass(frozen=True, eq=False, slots=True)
class Views:
    """What looking at all cells of some slides gives.

    Parameters
    ----------
    maps
        By cluster number, those of the slides that were asked for.
    places
        Of each slide, centroids (n, 2) in micrometres and clusters (n,).
    """

    pictures: dict[str, SlidePicture]
    maps: dict[int, list[ClusterMap]]
    places: list[tuple[FloatArray, IntArray]]


def open_slides(
    folder: OutputFolder,
    states: Sequence[SlideState],
    names: ReportNames,
    traits: Mapping[str, Traits],
    codebook: Codebook | None,
) -> tuple[list[OpenReportSlide], list[str]]:
    """The slides that can be read, and sentences about the others.

    Only clusters of ``codebook`` are counted.
    """
    found, problems = [], []
    for state in states:
        path = folder.store(state.slide_id)
        try:
            with telling_damage(path):
                store = open_store(path)
                counts = None
                if codebook is not None and state.finish and store.has_clusters:
                    if codebook_of(path) == codebook.fingerprint:
                        counts = count_clusters(known(store.obs("cluster")), codebook.k)
                    else:
                        problems.append(OTHER_CLUSTERS.format(state.slide_id))
        except StoreError as error:
            problems.append(folder.told(str(error)))
            continue
        entry = ReportSlide(
            slide_id=state.slide_id,
            patient=traits[state.slide_id].patient,
            group=traits[state.slide_id].group,
            mpp=state.mpp,
            tissue_mm2=state.tissue_mm2,
            n_cells=state.tally.n_cells,
            n_clipped=state.tally.n_clipped,
            warnings=tuple(map(names.cleaned, state.warnings)),
            counts=counts,
            overlays=tuple(f"overlays/{name}" for name in state.overlays),
        )
        found.append(OpenReportSlide(state, store, entry))
    return found, problems


def known(cluster: IntArray) -> IntArray:
    """Those that have a cluster."""
    own: IntArray = cluster[cluster >= 0]
    return own


def reader_for(slide: OpenReportSlide, settings: SlideSettings) -> SlideReader:
    """The slide's file, if it is where it was and still the same.

    Raises
    ------
    SlideError
        If it is not.
    """
    state = slide.state
    source = SlideSource(Path(state.path), state.slide_id, mpp=state.mpp)
    reader = open_slide(source, settings)
    if reader.info.content_key != slide.store.attrs["slide"]["content_key"]:
        reader.close()
        raise SlideError("The slide's file is another one than when its cells were found.")
    return reader


def look_at(
    slides: Sequence[OpenReportSlide],
    shown: Set[str],
    colors: Sequence[Color],
    settings: ReportSettings,
    files: SlideSettings,
) -> Views:
    """Pictures of the slides ``shown`` (ids), maps of clusters, and where cells of all lie."""
    views = Views({}, {j: [] for j in range(len(colors))}, [])
    mapped = _most_of_each(slides, len(colors), settings.maps_per_cluster)
    for slide in slides:
        own = NO_CLUSTERS if slide.entry.counts is None else colors
        name = slide.entry.slide_id
        n_kept = sum(len(some) for _, some in views.places)
        has_room = not n_kept or n_kept + slide.store.n_cells <= MOST_NEIGHBOURS
        is_placed = slide.entry.counts is not None and has_room
        if not (is_placed or name in shown or name in mapped):
            continue
        counts, xy, cluster = _cells_of(slide, len(own), settings.picture_px)
        if is_placed:
            views.places.append((xy * slide.state.mpp, cluster))
        if name in shown:
            views.pictures[name] = _picture(slide, counts, own, files)
        for j in mapped.get(name, ()):
            picture = paint_one(counts, j, colors[j], MAP_PX)
            n = (slide.entry.counts or ())[j]
            views.maps[j].append(ClusterMap(slide.entry.slide_id, picture, n))
    return views


def _most_of_each(slides: Sequence[OpenReportSlide], k: int, n_slides: int) -> dict[str, list[int]]:
    """By slide, the clusters whose map it is on: each has those with most of its cells."""
    found: dict[str, list[int]] = {}
    for j in range(k):
        own = [(s.entry.counts[j], s.entry.slide_id) for s in slides if s.entry.counts]
        for n, name in sorted(own, key=lambda pair: (-pair[0], pair[1]))[:n_slides]:
            if n:
                found.setdefault(name, []).append(j)
    return found


def _cells_of(
    slide: OpenReportSlide, k: int, picture_px: int
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Cells in each place of a picture (k, h, w); centroids (n, 2) level-0 px; clusters (n,)."""
    store, bounds = slide.store, _bounds(slide)
    px_per_place = max(bounds.width, bounds.height) / picture_px
    height, width = (max(1, round(side / px_per_place)) for side in (bounds.height, bounds.width))
    counts = np.zeros((k, height, width))
    has_clusters = slide.entry.counts is not None
    places: list[FloatArray] = [np.zeros((0, 2))]
    clusters: list[IntArray] = [np.zeros(0, np.int16)]
    with reading(store):
        for start in range(0, store.n_cells, ROWS):
            xy = store.centroids(start, start + ROWS) - (bounds.left, bounds.top)
            cluster = (
                store.obs("cluster", start, start + ROWS).astype(np.int16)
                if has_clusters
                else np.zeros(len(xy), np.int16)
            )
            count_cells(counts, xy, cluster, px_per_place)
            places.append(xy)
            clusters.append(cluster)
    return counts, np.concatenate(places), np.concatenate(clusters)


def _picture(
    slide: OpenReportSlide, counts: FloatArray, colors: Sequence[Color], files: SlideSettings
) -> SlidePicture:
    height, width = counts.shape[1:]
    width_um = _bounds(slide).width * slide.state.mpp
    rgb, note = None, ""
    if slide.entry.counts is None:
        note = "Its cells have no clusters yet, so they are all of one colour. "
    try:
        reader = reader_for(slide, files)
        try:
            small = read_thumbnail(reader, width_um / width).rgb
        finally:
            reader.close()
        rgb = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
    except CcrlError:
        note += "The slide's own picture is missing: its file is not where it was, or has changed."
    painted = paint_clusters(counts, colors)
    return SlidePicture(slide.entry.slide_id, rgb, painted, width_um, note.strip())


def _bounds(slide: OpenReportSlide) -> Box:
    return Box(**slide.store.attrs["slide"]["bounds_px"])
