"""One partition, from pixels to a part on disk: what a worker does in one go."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.embeddings.encoders import NEED_OUTLINES
from ccrl_wsi.measurement_names import MEASUREMENTS
from ccrl_wsi.parts import write_part
from ccrl_wsi.records import Cells, Tile
from pipelines.freed_memory import keep_freed_memory
from pipelines.jobs import PartitionJob, Tally
from pipelines.stopwatch import Stopwatch
from pipelines.tile_pass import SlideView, cells_of_tile
from pipelines.tools import encoder_of, reader_of, segmenter_of, tissue_of


def run_partition(job: PartitionJob) -> Tally:
    """Find, measure, crop and embed the nuclei of a partition and commit them at once.

    Raises
    ------
    SlideError, ModelError
        If the slide cannot be decoded there, or a network cannot be loaded.
    """
    keep_freed_memory()
    watch = Stopwatch()
    with watch.stage("load"):
        view = SlideView(reader_of(job.info), job.grid, tissue_of(job.tissue))
        segmenter, encoder = segmenter_of(job.settings), encoder_of(job.settings)
    found = [Cells.empty(len(MEASUREMENTS), 0, job.settings.crops.rule[1])]
    n_again = 0
    for tile, rgb in _read_ahead(job, view, watch):
        cells, again = cells_of_tile(rgb, tile, view, segmenter, job.settings, watch)
        found.append(cells)
        n_again += again
    cells = Cells.concat(found)
    with watch.stage("embed"):
        embedding = encoder(cells.crops, _measurements(cells, job))
    kept = cells.crops if job.settings.crops.keep else cells.crops[:0]
    cells = replace(cells, embedding=embedding, crops=kept)
    tally = Tally(
        n_cells=len(cells),
        n_clipped=int(cells.is_clipped.sum()),
        n_read_again=n_again,
        n_tiles=len(job.partition.tiles),
        area_mm2=sum(t.core.area for t in job.partition.tiles) * job.grid.pixel_area_um2 / 1e6,
        seconds=watch.seconds,
    )
    with watch.stage("write"):
        write_part(job.target, cells, {"fingerprint": job.fingerprint, "tally": asdict(tally)})
    return tally


def _measurements(cells: Cells, job: PartitionJob) -> FloatArray:
    """What the encoder is told of ``cells``: what is stored, and boundaries if it asks for them."""
    if job.settings.embedding.encoder not in NEED_OUTLINES:
        return cells.measurements
    from ccrl_wsi.nuclei.boundary_shapes import measure_boundaries

    shapes = measure_boundaries(cells.outlines, job.info.mpp)
    return np.hstack([cells.measurements, shapes])


def _read_ahead(
    job: PartitionJob, view: SlideView, watch: Stopwatch
) -> Iterator[tuple[Tile, ByteArray]]:
    """Tiles with their pixels; the next ones are decoded while one is worked on."""
    tiles = job.partition.tiles
    ahead = job.settings.compute.read_ahead
    if ahead == 0:
        for tile in tiles:
            with watch.stage("read"):
                rgb = view.reader.read(tile.read, view.grid)
            yield tile, rgb
        return
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        coming: list[Future[ByteArray]] = []
        for number, tile in enumerate(tiles):
            for wanted in tiles[number + len(coming) : number + ahead + 1]:
                coming.append(pool.submit(view.reader.read, wanted.read, view.grid))
            with watch.stage("read"):
                rgb = coming.pop(0).result()
            yield tile, rgb
