"""How long each command takes on next to nothing: what is paid before the work begins.

    python benchmarks/start_up.py                  # two minutes

A slide of 0.07 mm2 is drawn and run once with ``watershed`` and ``morphology``, in one process.
Then every command is called in turns; the figures are medians of processor time of the command and
its children, beside what Python takes to begin and to load NumPy. A first round compiles all
modules, as the first call after an installation does, and is not counted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from measured import Table

from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide

COMMAND = [sys.executable, "-m", "pipelines.cli"]
PLAIN = "Python and NumPy alone"
CHEAP = ["nuclei.segmenter=watershed", "embedding.encoder=morphology", "clusters.k=3"]


def commands(slide: Path, out: Path) -> dict[str, list[str]]:
    """What is called, by how it is shown. The fresh run comes first: others read its folder."""
    setting = [part for text in CHEAP for part in ("--set", text)]
    run = ["run", str(slide), "--on", "serial", *setting]
    exports = out.parent / "exports"
    return {
        PLAIN: [sys.executable, "-c", "import numpy"],
        "--help": [*COMMAND, "--help"],
        "config": [*COMMAND, "config"],
        "info SLIDE": [*COMMAND, "info", str(slide)],
        "doctor": [*COMMAND, "doctor"],
        "run SLIDE, without report": [
            *COMMAND, *run, "--set", "report.make=false", "-o", str(out.with_name("fresh-{n}")),
        ],
        "run again, nothing to do": [*COMMAND, *run, "-o", str(out)],
        "cluster": [*COMMAND, "cluster", str(out), "--set", "report.make=false"],
        "export --to qupath": [
            *COMMAND, "export", str(out), "--to", "qupath", "-t", str(exports),
        ],
        "report": [*COMMAND, "report", str(out)],
        "verify": [*COMMAND, "verify", str(out)],
    }  # fmt: skip


def seconds_of(command: list[str]) -> tuple[float, float]:
    """Processor time of a command and of its children, and the time it took."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, os.times()
    # `doctor` says 1 where it finds something missing.
    if done.returncode not in ((0, 1) if command[-1] == "doctor" else (0,)):
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    core = after.children_user + after.children_system - before.children_user
    return core - before.children_system, wall


def main() -> None:
    """Draw, call and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    root = Path(__file__).resolve().parents[1]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    drawn = draw_slide(DrawnSlideSpec(width_px=1024, height_px=1024, mpp=0.25, n_nuclei=300))
    with tempfile.TemporaryDirectory() as name:
        slide, out = Path(name) / "drawn.tif", Path(name) / "out"
        write_pyramid(slide, drawn.rgb, 0.25)
        called = commands(slide, out)
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(name) / "compiled")
        seconds_of(called["run again, nothing to do"])  # which makes it
        for command in called.values():
            seconds_of([part.replace("{n}", "first") for part in command])
        found: dict[str, list[tuple[float, float]]] = {what: [] for what in called}
        for n in range(rounds):
            for what, command in called.items():
                found[what].append(seconds_of([part.replace("{n}", str(n)) for part in command]))
    table = Table("Start-up of each command", ("command", "core-s", "wall s", "times Python"))
    plain = median(core for core, _ in found[PLAIN])
    for what, pairs in found.items():
        core, wall = (median(column) for column in zip(*pairs, strict=True))
        table.row(what, core, wall, core / plain)
    table.publish("start_up")


if __name__ == "__main__":
    main()
