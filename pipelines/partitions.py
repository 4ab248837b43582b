"""One partition, from pixels to a part on disk: what a worker does in one go.

Three lanes work at the same time: pixels are read ahead of the network, and nuclei are found,
measured and cut out behind it. The order of tiles is kept, so that threads change no byte.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.device_work import listening
from ccrl_wsi.embeddings.encoders import NEED_OUTLINES
from ccrl_wsi.errors import SlideError
from ccrl_wsi.interfaces import Maps, NetworkSegmenter, Prediction, Segmenter, SlideReader
from ccrl_wsi.measurement_names import MEASUREMENTS
from ccrl_wsi.parts import write_part
from ccrl_wsi.records import Cells, Segmentation, Tile
from ccrl_wsi.tiles.grid import reading_order
from pipelines.faults import telling
from pipelines.freed_memory import freed_memory_kept
from pipelines.jobs import PartitionJob, Tally
from pipelines.lanes import Lanes, in_order, lanes_for
from pipelines.second_reading import SecondReading
from pipelines.stopwatch import SharedTime, Stopwatch
from pipelines.tile_pass import Segment, SlideView, TilePixels, cells_of_tile
from pipelines.tools import encoder_of, reader_of, segmenter_of, tissue_of

log = logging.getLogger("ccrl_wsi")

PASSING = SharedTime()
"""The time of this process, which several partitions may share."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A tile the network has been asked about.

    Parameters
    ----------
    rgb
        None where it cannot be decoded.
    prediction
        None where there is no network to ask.
    """

    tile: Tile
    rgb: ByteArray | None
    prediction: Prediction | None


def run_partition(job: PartitionJob, watch: Stopwatch | None = None) -> Tally:
    """Find, measure, crop and embed the nuclei of a partition and commit them at once.

    Raises
    ------
    SlideError, ModelError
        If the slide cannot be decoded there, or a network cannot be loaded.
    """
    watch = watch or Stopwatch()
    with watch.stage("load"):
        segmenter, encoder = segmenter_of(job.settings), encoder_of(job.settings)
    is_network = isinstance(segmenter, NetworkSegmenter)
    is_on_gpu = isinstance(segmenter, NetworkSegmenter) and segmenter.device.startswith("cuda")
    lanes = lanes_for(job.settings.compute, on_gpu=is_on_gpu)
    began = perf_counter()
    with (
        PASSING.share() as finding,
        freed_memory_kept(of_network=is_network and not is_on_gpu),
        listening(watch.device_worked),
    ):
        with watch.stage("load"):
            view = SlideView(_reader(job), job.grid, tissue_of(job.tissue))
        cells, n_again, skipped = _Pass(job, view, segmenter, lanes, watch).cells()
        with watch.stage("embed"):
            embedding = encoder(cells.crops, _measurements(cells, job))
    kept = cells.crops if job.settings.crops.keep else cells.crops[:0]
    cells = replace(cells, embedding=embedding, crops=kept)
    tally = Tally(
        n_cells=len(cells),
        n_clipped=int(cells.is_clipped.sum()),
        n_read_again=n_again,
        n_tiles=len(job.partition.tiles),
        n_skipped=len(skipped),
        skipped_tissue_mm2=sum(view.tissue.area_in_um2(t.core, job.grid) for t in skipped) / 1e6,
        area_mm2=_area_mm2(job, job.partition.tiles) - _area_mm2(job, skipped),
        seconds=watch.seconds,
        lane_seconds=lanes.busy(watch.seconds),
        elapsed_seconds=perf_counter() - began,
        wall_seconds=finding[0],
        device_seconds=watch.device_seconds,
    )
    with PASSING.share() as writing, watch.stage("write"):
        write_part(job.target, cells, {"fingerprint": job.fingerprint, "tally": asdict(tally)})
    return replace(
        tally,
        elapsed_seconds=perf_counter() - began,
        wall_seconds=finding[0] + writing[0],
    )


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass over the tiles of a partition."""

    job: PartitionJob
    view: SlideView
    segmenter: Segmenter
    lanes: Lanes
    watch: Stopwatch

    def cells(self) -> tuple[Cells, int, list[Tile]]:
        """All cells, not embedded yet; how many crops were read again, and tiles left out."""
        tiles, behind = self.job.partition.tiles, self.lanes.behind
        # One more than there are threads, so that none is idle while the network is asked.
        finished = in_order(
            self._finish, self._seen(), threads=behind, at_once=behind + 1, name="nuclei"
        )
        # Rows are in grid order, whatever the order tiles are read in.
        by_tile = dict(zip(reading_order(tiles), finished, strict=True))
        found = [done for tile in tiles if (done := by_tile[tile]) is not None]
        none = Cells.empty(len(MEASUREMENTS), 0, self.job.settings.crops.rule[1])
        return (
            Cells.concat([none, *(cells for cells, _ in found)]),
            sum(n_again for _, n_again in found),
            [tile for tile in tiles if by_tile[tile] is None],
        )

    def _seen(self) -> Iterator[_Seen]:
        """The tiles as the network is asked about them."""
        tiles, lanes = reading_order(self.job.partition.tiles), self.lanes
        pixels = in_order(
            self._read, tiles, threads=lanes.readers, at_once=lanes.ahead + 1, name="reader"
        )
        for tile in tiles:
            with self.watch.waiting("pixels"):
                rgb = next(pixels)
            with telling(place=_place(tile)):
                prediction = self._ask(rgb)
            yield _Seen(tile, rgb, prediction)

    def _read(self, tile: Tile) -> ByteArray | None:
        with telling(place=_place(tile)), self._skipping(), self.watch.stage("read"):
            return self.view.reader.read(tile.read, self.view.grid)
        return None

    def _ask(self, rgb: ByteArray | None) -> Prediction | None:
        if rgb is None or not isinstance(self.segmenter, NetworkSegmenter):
            return None
        with self.watch.stage("network"):
            return self.segmenter.predict(rgb, self.view.grid.mpp)

    def _finish(self, seen: _Seen) -> tuple[Cells, int] | None:
        """The cells of a tile and how many crops were read again; None if it is left out."""
        if seen.rgb is None:
            return None
        heard = listening(self.watch.device_worked)  # in this thread
        with telling(place=_place(seen.tile)), self._skipping(), heard:
            return self._cells_of(seen, seen.rgb)
        return None

    @contextmanager
    def _skipping(self) -> Iterator[None]:
        """Pixels that cannot be decoded fail the slide, unless the user wants to go on without."""
        try:
            yield
        except SlideError as error:
            if self.job.settings.slides.on_bad_tile == "fail":
                raise
            log.warning("%s: left out. %s", self.job.slide_id, error)

    def _cells_of(self, seen: _Seen, rgb: ByteArray) -> tuple[Cells, int]:
        """Waits for the maps of the tile."""
        segment: Segment = self.segmenter
        pixels = TilePixels(rgb)
        if isinstance(self.segmenter, NetworkSegmenter) and seen.prediction is not None:
            with self.watch.waiting("maps"):
                maps = seen.prediction.wait()
            segment = partial(_of_maps, self.segmenter, maps)
            pixels = TilePixels(rgb, seen.prediction.tile)
        return cells_of_tile(pixels, seen.tile, self.view, segment, self.job.settings, self.watch)


def _reader(job: PartitionJob) -> SlideReader:
    reader = reader_of(job.info)
    return reader if job.settings.slides.on_bad_tile == "fail" else SecondReading(reader)


def _area_mm2(job: PartitionJob, tiles: Sequence[Tile]) -> float:
    return sum(tile.core.area for tile in tiles) * job.grid.pixel_area_um2 / 1e6


def _place(tile: Tile) -> str:
    return f"tile in row {tile.row}, column {tile.column}"


def _of_maps(segmenter: NetworkSegmenter, maps: Maps, rgb: ByteArray, mpp: float) -> Segmentation:
    """What is left to do for a segmenter whose network has seen ``rgb``."""
    del rgb, mpp
    return segmenter.segment(maps)


def _measurements(cells: Cells, job: PartitionJob) -> FloatArray:
    """What the encoder is told of ``cells``: what is stored, and boundaries if it asks for them."""
    if job.settings.embedding.encoder not in NEED_OUTLINES:
        return cells.measurements
    from ccrl_wsi.nuclei.boundary_shapes import measure_boundaries

    shapes = measure_boundaries(cells.outlines, job.info.mpp)
    return np.hstack([cells.measurements, shapes])
