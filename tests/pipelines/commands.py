"""`ccrl-wsi run` as a process of its own, to be stopped where a test wants it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.pipelines.conftest import SMOKE


def run_command(slide_file: Path, out: Path) -> list[str]:
    """The command of a small run in one process."""
    settings = [part for setting in SMOKE for part in ("--set", setting)]
    command = [sys.executable, "-m", "pipelines.cli", "run", str(slide_file), "-o", str(out)]
    return [*command, *settings, "--on", "serial"]


def start_until_first_part(slide_file: Path, out: Path) -> subprocess.Popen[str]:
    """A run of the slide ``drawn`` that has committed a partition and is not done."""
    process = subprocess.Popen(run_command(slide_file, out), stderr=subprocess.PIPE, text=True)
    while not list((out / "work" / "drawn" / "parts").glob("p*.npz")):
        time.sleep(0.005)
        assert process.poll() is None
    return process
