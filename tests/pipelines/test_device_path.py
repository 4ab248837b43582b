"""A partition whose network is on a GPU: the cells of one on CPU cores, cut and filtered there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ccrl_wsi.config import load_settings
from ccrl_wsi.nuclei import compact, tile_maps
from ccrl_wsi.parts import read_part
from ccrl_wsi.records import SlideSource
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide
from pipelines import tile_pass
from pipelines.output_folder import made_folder
from pipelines.partitions import run_partition
from pipelines.plan import identify_slide, job_of, plan_slide
from pipelines.resolved_settings import resolved
from pipelines.stopwatch import Stopwatch

MPP = 0.25
SETTINGS = (
    "nuclei.segmenter=compact",
    f"tiles.mpp={MPP}",
    "tiles.core_px=192",
    "tiles.partition_side=4",
    "crops.keep=true",
    "compute.extract_behind=2",
    "report.make=false",
)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    drawn = draw_slide(DrawnSlideSpec(width_px=420, height_px=400, n_nuclei=80, seed=5))
    path = tmp_path_factory.mktemp("slides") / "drawn.tif"
    write_pyramid(path, drawn.rgb, MPP, compression="deflate")
    return path


# Windows so wide that some reach beyond the pixels of their tile.
WIDE = ("embedding.encoder=morphology", "crops.scale=8", "crops.size_px=32")


def job_on(device, slide, folder, *more):
    settings = resolved(load_settings(overrides=[*SETTINGS, f"compute.device={device}", *more]))
    out = made_folder(folder)
    plan = plan_slide(identify_slide(SlideSource(slide, "drawn"), settings, ""), settings, out)
    job = job_of(plan, plan.partitions[0], settings, out)
    job.target.parent.mkdir(parents=True)
    return job


def same_cells(here, there):
    assert len(here) == len(there) > 40
    assert here.outlines.xy.tobytes() == there.outlines.xy.tobytes()
    for name in ("centroid_px", "measurements", "embedding", "probability", "tile"):
        assert getattr(here, name).tobytes() == getattr(there, name).tobytes()
    off = np.abs(here.crops.astype(int) - there.crops)
    assert off.max() <= 1
    assert (off > 0).mean() <= 1e-4


def counting(cut, counts):
    def call(rgb, windows, size_px):
        counts.append(len(windows))
        return cut(rgb, windows, size_px)

    return call


def test_the_device_path_gives_the_cells_of_the_host(slide, tmp_path, pretended_gpu, monkeypatch):
    job = job_on("cpu", slide, tmp_path / "out", *WIDE)
    tally = run_partition(job)
    here = read_part(job.target)

    def on_gpu(rgb, windows, question):
        with torch.inference_mode():
            return tile_maps._on_gpu(rgb, windows, question)

    monkeypatch.setattr(compact, "predict_tile", on_gpu)
    on_host = []
    monkeypatch.setattr(tile_pass, "cut_crops", counting(tile_pass.cut_crops, on_host))
    watch = Stopwatch(keeps_events=True)
    beside = run_partition(replace(job, target=job.target.with_name("gpu.part")), watch)

    same_cells(here, read_part(job.target.with_name("gpu.part")))
    # What a tile does not hold is cut on the host, one by one; all else where the pixels are.
    assert on_host == [1] * beside.n_read_again
    assert beside.n_read_again == tally.n_read_again > 0
    # Streams do not wait for more than they must: crops for the tile, not for the network.
    crops = pretended_gpu.stream("crops")
    assert len(crops.waits) == beside.n_tiles
    assert {event.recorded_on for event in crops.waits} == {pretended_gpu.stream("upload")}
    of_gpu = [event for event in watch.events if event.lane.startswith("GPU")]
    assert {event.lane for event in of_gpu} == {"GPU network", "GPU crops"}
    # A pretended GPU works when the host does, and its bars lie there.
    first, last = (
        f(getattr(e, m) for e in watch.events) for f, m in ((min, "begin"), (max, "end"))
    )
    assert all(first - 1e-3 < event.begin < event.end < last + 1e-3 for event in of_gpu)
    longest = sum(event.end - event.begin for event in of_gpu)
    assert 0 < beside.device_seconds <= longest
    assert 0 < beside.lane_shares()["gpu"] <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_gives_the_cells_of_the_cpu_but_for_rounding(slide, tmp_path):
    ccrl = "embedding.encoder=ccrl"
    jobs = [job_on(device, slide, tmp_path / device, ccrl) for device in ("cpu", "cuda")]
    watches = [Stopwatch(keeps_events=True) for _ in jobs]
    tallies = [run_partition(job, watch) for job, watch in zip(jobs, watches, strict=True)]
    here, there = (read_part(job.target) for job in jobs)

    assert len(there) == pytest.approx(len(here), rel=0.05)
    gpu = tallies[1]
    lanes = {event.lane for event in watches[1].events if event.lane.startswith("GPU")}
    assert lanes == {"GPU network", "GPU crops", "GPU encoder"}
    assert 0 < gpu.device_seconds <= gpu.wall_seconds
    # Of nuclei with the same box, the crop is the same.
    gap = np.linalg.norm(here.centroid_px[:, None] - there.centroid_px, axis=2)
    twin, is_same = gap.argmin(axis=1), gap.min(axis=1) < 0.05
    assert is_same.mean() > 0.5
    off = np.abs(here.crops[is_same].astype(int) - there.crops[twin[is_same]])
    assert np.median(off.reshape(len(off), -1).max(axis=1)) <= 1
