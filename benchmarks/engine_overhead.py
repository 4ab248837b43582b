"""Everything but the network: TIAToolbox's own engine beside the whole job, in one run.

    python benchmarks/engine_overhead.py           # about five minutes

Both see a slide of 4.2 mm2 (8192 px at 0.25 um per pixel) with about 5000 nuclei per mm2, and both
have a network that costs nothing: the maps are made of the known nuclei beforehand. The engine
reads, puts patches together, extracts instances and writes its Zarr; our job does that and also
measures, crops, embeds, clusters and writes overlays. One thread each. A nucleus is lost if
nothing is found within 3 px of its centroid in the maps of the whole slide at once.
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
    side_px = parser.parse_args().px
    mm2 = (side_px * MPP / 1000) ** 2
    figures = compare(side_px, is_real=False, threads=1)
    ours = figures["ours"]
    table = Table(
        f"Everything around the network, {mm2:.2f} mm2, one thread (goal: {GOAL:g} times less)",
        ("path", "core-s/mm2", "times ours", "nuclei", "lost", "peak MiB"),
    )
    for name, side in (("TIAToolbox's engine", figures["engine"]), ("our whole job", ours)):
        table.row(
            name,
            side["core_s"] / mm2,
            side["core_s"] / ours["core_s"],
            f"{side['n_found']} of {side['n_known']}",
            side["n_lost"],
            side["peak_mib"],
        )
    table.publish("engine_overhead")


if __name__ == "__main__":
    main()
