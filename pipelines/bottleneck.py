"""Which stage holds a run up, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ADVICE = {
    "read": "reader-bound: give more tiles ahead (compute.read_ahead), more workers, or a faster "
    "disk",
    "segment": "the network or segmenter binds: a GPU, or more workers, would help",
    "embed": "the encoder binds: a GPU, or a larger embedding.batch_size, would help",
    "outline": "nuclei bind, not pixels: more workers would help",
    "measure": "nuclei bind, not pixels: more workers would help",
    "crop": "crops bind: more workers would help",
    "write": "the output folder is slow: give a faster disk with -o",
    "load": "opening slides and loading networks binds: larger partitions would help "
    "(tiles.partition_side)",
}
"""By stage; what a stage's time means differs from stage to stage."""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The slowest stage, its share of all time, and a sentence."""

    stage: str
    share: float
    advice: str


def find_bottleneck(seconds: Mapping[str, float]) -> Bottleneck | None:
    """The stage of ``seconds`` (by name) that took longest; None where nothing took time.

    Reading counts only what the next stage waited for it, as the stopwatch does.
    """
    total = sum(seconds.values())
    if total <= 0:
        return None
    stage = max(sorted(seconds), key=lambda name: seconds[name])
    advice = ADVICE.get(stage, f"{stage} takes longest")
    return Bottleneck(stage, round(seconds[stage] / total, 3), advice)
