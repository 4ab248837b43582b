"""A picture of one partition: what the reader, the network and the finishing threads do, and when.

    python benchmarks/timeline.py [SLIDE] [-o FOLDER] [--set KEY=VALUE ...]

Without a slide one is drawn (4096 px at 0.25 um per pixel, 5000 nuclei per mm2, JPEG). The
partition in the middle of the slide is done twice, first to warm up. Written are ``timeline.png``
and ``timeline.json``, which chrome://tracing and https://ui.perfetto.dev open. Printed is how
busy each lane was; the busiest one binds. Loading networks is in the picture, not in the seconds
per mm2. A GPU has a row for each kind of its work, which may overlap; its bars lie where the work
was, by a CUDA event whose time both it and the host know.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from measured import Table
from whole_job import BLOCK_PX, draw

from ccrl_wsi.config import load_settings
from ccrl_wsi.records import SlideSource
from pipelines.jobs import PartitionJob, Tally
from pipelines.models import find_models
from pipelines.output_folder import made_folder
from pipelines.partitions import run_partition
from pipelines.plan import identify_slide, job_of, plan_slide
from pipelines.resolved_settings import resolved
from pipelines.stopwatch import Event, Stopwatch

COLORS = {
    "load": "#bab0ac", "read": "#4e79a7", "network": "#f28e2b", "segment": "#59a14f",
    "outline": "#76b7b2", "measure": "#edc948", "crop": "#b07aa1", "embed": "#e15759",
    "write": "#9c755f", "GPU network": "#a85c12", "GPU crops": "#7c4a73", "GPU encoder": "#9e2f31",
}  # fmt: skip
WAITING = "#eeeeee"


def middle_job(slide: Path, folder: Path, overrides: Sequence[str]) -> PartitionJob:
    """The partition in the middle of ``slide``."""
    settings = resolved(
        load_settings(overrides=["nuclei.segmenter=compact", "tiles.core_px=1024", *overrides])
    )
    opened = identify_slide(
        SlideSource(slide, slide.stem), settings, find_models(settings).fingerprints
    )
    out = made_folder(folder)
    plan = plan_slide(opened, settings, out)
    job = job_of(plan, plan.partitions[len(plan.partitions) // 2], settings, out)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    return job


def observe(job: PartitionJob) -> tuple[Tally, list[Event]]:
    """What happened when, in the second of two passes."""
    run_partition(job)
    watch = Stopwatch(keeps_events=True)
    tally = run_partition(job, watch)
    first = min(event.begin for event in watch.events)
    return tally, [
        event._replace(begin=event.begin - first, end=event.end - first) for event in watch.events
    ]


def lanes_of(events: Sequence[Event]) -> list[str]:
    """The threads, in the order of the work; the GPU after the one that asks it."""
    order = {"reader": 0, "MainThread": 1, "GPU network": 2, "nuclei": 3}
    order |= {"GPU crops": 4, "GPU encoder": 5}
    return sorted({e.lane for e in events}, key=lambda lane: (order[lane.split("_")[0]], lane))


def write_trace(events: Sequence[Event], path: Path) -> None:
    """Chrome's trace format: one row a thread, times in microseconds."""
    rows = [
        {
            "name": event.stage,
            "ph": "X",
            "pid": 0,
            "tid": event.lane,
            "ts": event.begin * 1e6,
            "dur": (event.end - event.begin) * 1e6,
        }
        for event in events
    ]
    path.write_text(json.dumps({"traceEvents": rows}), encoding="utf-8")


def draw_timeline(events: Sequence[Event], path: Path) -> None:
    """One bar a thread; waiting is pale."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lanes = lanes_of(events)
    figure = Figure(figsize=(11, 0.5 * len(lanes) + 1.6), layout="constrained")
    axes = figure.subplots()
    for event in events:
        color = COLORS.get(event.stage, WAITING)
        place = (event.begin, event.end - event.begin)
        axes.broken_barh([place], (lanes.index(event.lane) - 0.4, 0.8), facecolors=color)
    axes.set_yticks(range(len(lanes)), lanes)
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    shown = [stage for stage in COLORS if any(e.stage == stage for e in events)]
    patches = [Patch(color=COLORS[stage], label=stage) for stage in shown]
    patches.append(Patch(color=WAITING, label="waiting"))
    figure.legend(handles=patches, loc="outside upper center", ncols=5)
    figure.savefig(path, dpi=120)


def table_of(tally: Tally) -> Table:
    """How busy each lane was, from opening the slide to the part on disk."""
    area_mm2 = tally.area_mm2
    per_mm2 = tally.wall_seconds / area_mm2
    table = Table(
        f"{area_mm2:.2f} mm2, {tally.n_cells} cells, {per_mm2:.2f} s/mm2 but for loading networks",
        ("lane", "s/mm2", "share of the time"),
    )
    for lane, share in tally.lane_shares().items():
        table.row(lane, share * per_mm2, share)
    return table


def main() -> None:
    """Read the command line, do the partition, write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path, nargs="?")
    parser.add_argument("-o", "--out", type=Path, default=Path())
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slide = asked.slide or draw((4096 // BLOCK_PX, 4096 // BLOCK_PX), Path(folder))
        job = middle_job(slide, Path(folder) / "out", asked.overrides)
        tally, events = observe(replace(job, target=job.target.with_suffix(".seen")))
    asked.out.mkdir(parents=True, exist_ok=True)
    write_trace(events, asked.out / "timeline.json")
    draw_timeline(events, asked.out / "timeline.png")
    table_of(tally).publish("timeline")


if __name__ == "__main__":
    main()
