"""Everything but the network: TIAToolbox's own engine beside the whole job, in one run.

    python benchmarks/engine_overhead.py           # three rounds: about ten minutes

Both see a slide of 4.2 mm2 (8192 px at 0.25 um per pixel) with about 5000 nuclei per mm2, and both
have a network that costs nothing: the maps are made of the known nuclei beforehand. The engine
reads, puts patches together, extracts instances and writes its Zarr; our job does that and also
measures, crops, embeds, clusters and writes overlays. One thread each. The sides take turns, each
in a process of its own that has done a small slide before; told are medians, and of the ratio the
lowest and highest. A nucleus is lost if nothing is found within 3 px of its centroid in the maps of
the whole slide at once.
"""

from __future__ import annotations

import argparse

from known_nuclei import MPP, compare
from measured import Table

GOAL = 5.0


def main() -> None:
    """Run both and print what they cost per mm2, what they lose, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--px", type=int, default=8192, help="side of the slide")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    asked = parser.parse_args()
    mm2 = (asked.px * MPP / 1000) ** 2
    compared = compare(asked.px, is_real=False, threads=1, rounds=asked.rounds)
    table = Table(
        f"Everything around the network, {mm2:.2f} mm2, one thread, medians of {asked.rounds} "
        f"(goal: {GOAL:g} times less)",
        ("path", "core-s/mm2", "times ours", "from-to", "nuclei", "lost", "peak MiB"),
    )
    ratio = compared.times_ours(lambda run: run["core_s"])
    sides = (
        ("TIAToolbox's engine", compared.engine, ratio),
        ("our whole job", compared.ours, (1.0, None)),
    )
    for name, side, times in sides:
        found = f"{side['n_found']:.0f} of {compared.n_known}"
        table.row(name, side["core_s"] / mm2, *times, found, int(side["n_lost"]), side["peak_mib"])
    table.publish("engine_overhead")


if __name__ == "__main__":
    main()
