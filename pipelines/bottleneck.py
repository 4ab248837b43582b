"""Which stage holds a run up, and what would help."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.jobs import Tally

ADVICE = {
    "read": "reader-bound: read more tiles ahead (compute.read_ahead), or give more workers or a "
    "faster disk",
    "network": "the segmentation network binds: a GPU, or more of them, would help",
    "gpu": "the GPU binds, which is what a GPU is for: more of them would help",
    "nuclei": "nuclei bind, not pixels: more workers, or beside a GPU more threads "
    "(compute.extract_behind), would help",
    "embed": "the encoder binds: a GPU, or a larger embedding.batch_size, would help",
    "load": "opening slides and loading networks binds: larger partitions would help "
    "(tiles.partition_side)",
}
"""By lane, and by stage for what lies outside the lanes."""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The lane or stage that binds, its share of all work, and a sentence."""

    stage: str
    share: float
    advice: str


def find_bottleneck(tally: Tally) -> Bottleneck | None:
    """What holds the tally's partitions up most; None where nothing took time.

    Lanes work side by side, so that the longest of them binds; what lies outside them comes on top.
    A network on a GPU is asked in no time: what counts is how long the GPU took, for crops and
    embeddings too.
    """
    busy = dict(tally.lane_seconds)
    busy |= {stage: s for stage, s in tally.seconds.items() if stage in ("embed", "load")}
    if tally.device_seconds:
        # Partitions done at the same time share the GPU, and so they do here what is theirs.
        at_once = tally.elapsed_seconds / tally.wall_seconds if tally.wall_seconds else 1.0
        busy = {stage: seconds / max(at_once, 1.0) for stage, seconds in busy.items()}
        busy.pop("network", None)
        busy["gpu"] = tally.device_seconds
    total = sum(busy.values())
    if total <= 0:
        return None
    stage = max(sorted(busy), key=lambda name: busy[name])
    return Bottleneck(stage, round(busy[stage] / total, 3), ADVICE[stage])
