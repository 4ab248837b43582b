"""Workers, scheduler and driver are killed at random points; nothing may be lost or doubled.

    python benchmarks/chaos.py                     # 20 times each, about a quarter of an hour
    python benchmarks/chaos.py --times 3 --what driver

A small cohort of drawn slides is run by real processes on loopback: `dask scheduler`, two
`dask worker` and `ccrl-wsi run --on tcp://...`. At a random moment one of them gets SIGKILL. A
killed worker is replaced and the run must end by itself; after the death of the scheduler or the
driver the same command is given again. Then every file of every store and overlay must equal, byte
for byte, those of a run in one process that nobody disturbed, and `verify` must find nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from measured import Table

from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide

SETTINGS = (
    "nuclei.segmenter=watershed",
    "embedding.encoder=morphology",
    "tiles.mpp=0.5",
    "tiles.core_px=128",
    "tiles.partition_side=1",
    "clusters.k=3",
    "clusters.n_init=2",
    "report.make=false",
)
VICTIMS = ("worker", "scheduler", "driver")
WAIT_SECONDS = 600
TABLES = ("composition.csv", "slides.csv", "codebook.safetensors")


def draw_cohort(folder: Path, n_slides: int) -> list[Path]:
    """Small drawn slides, each another one."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(n_slides):
        spec = DrawnSlideSpec(width_px=420, height_px=380, mpp=0.5, n_nuclei=70, seed=number)
        path = folder / f"drawn{number}.tif"
        write_pyramid(path, draw_slide(spec).rgb, 0.5, compression="deflate")
        paths.append(path)
    return paths


def start_driver(slides: Sequence[Path], out: Path, on: str) -> subprocess.Popen[str]:
    """`ccrl-wsi run` in a process group of its own; what it says goes to ``out``.log.

    It stands in the folder of ``out`` and is told relative paths, as people do.
    """
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    names = [os.path.relpath(slide, out.parent) for slide in slides]
    command = [sys.executable, "-m", "pipelines.cli", "run", *names, "-o", out.name]
    with out.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [*command, *options, "--on", on],
            cwd=out.parent,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )


@dataclass
class Cluster:
    """A Dask scheduler and its workers as processes of their own."""

    folder: Path
    n_workers: int = 2
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    address: str = ""

    def start(self) -> None:
        """Start what does not run."""
        if self.scheduler is None:
            file = self.folder / "scheduler.json"
            file.unlink(missing_ok=True)
            options = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)]
            self.scheduler = self._dask("scheduler", *options, "--no-dashboard")
            self.address = _address(file)
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < self.n_workers:
            options = ["--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
            place = ["--local-directory", str(self.folder / "scratch")]
            self.workers.append(self._dask("worker", self.address, *options, *place))

    def kill_worker(self) -> None:
        """SIGKILL to one worker, and another one in its place."""
        victim = self.workers.pop(0)
        victim.kill()
        victim.wait()
        self.start()

    def kill_scheduler(self) -> None:
        """SIGKILL to the scheduler alone; its workers live on for a while. All start anew."""
        assert self.scheduler is not None
        self.scheduler.kill()
        self.scheduler.wait()
        time.sleep(1)
        self.stop()
        self.start()

    def stop(self) -> None:
        """SIGKILL to all."""
        for process in (self.scheduler, *self.workers):
            if process is not None:
                process.kill()
                process.wait()
        self.scheduler, self.workers = None, []

    def _dask(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "dask.log").open("ab") as log:
            command = [sys.executable, "-m", "dask", *arguments]
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _address(file: Path) -> str:
    import json

    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            return str(json.loads(file.read_text())["address"])
        except (OSError, ValueError, KeyError):
            time.sleep(0.1)
    raise TimeoutError("The scheduler did not start.")


@contextmanager
def cluster_in(folder: Path, n_workers: int = 2) -> Iterator[Cluster]:
    """A running cluster that is gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder, n_workers)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


def run_and_kill(
    victim: str, slides: Sequence[Path], out: Path, cluster: Cluster, delay: float
) -> tuple[bool, str]:
    """One run that loses ``victim`` after ``delay`` seconds, and the same command again.

    A driver's seconds count from its start, those of others from its connection with the cluster.
    Returns whether the victim died before the run had ended, and what is wrong at the end.
    """
    driver = start_driver(slides, out, cluster.address)
    if victim != "driver":
        wait_for_connection(driver, out)
    time.sleep(delay)
    was_running = driver.poll() is None
    if victim == "worker":
        cluster.kill_worker()
    elif victim == "scheduler":
        cluster.kill_scheduler()
    else:
        driver.send_signal(signal.SIGKILL)
        cluster.kill_worker()  # A worker that joins when the driver is gone must stay.
    code = driver.wait(timeout=WAIT_SECONDS)
    if victim == "worker" and code != 0:
        return was_running, f"the run ended with exit code {code}"
    said = out.with_suffix(".log").read_text()
    if "Traceback" in said:
        return was_running, "the run ended with a traceback"
    if victim == "scheduler" and code and (code != 1 or "stopped answering" not in said):
        return was_running, f"the run without scheduler ended with exit code {code}"
    code = start_driver(slides, out, cluster.address).wait(timeout=WAIT_SECONDS)
    return was_running, "" if code == 0 else f"the second run ended with exit code {code}"


def wait_for_connection(driver: subprocess.Popen[str], out: Path) -> None:
    """Until the run has workers."""
    while driver.poll() is None and not (out / "progress.json").exists():
        time.sleep(0.02)


def difference(reference: Path, out: Path) -> str:
    """What differs between the results of two runs; empty where nothing does."""
    from pipelines.verify import verify_output

    for part in ("slides", "overlays"):
        wanted, found = _files(reference / part), _files(out / part)
        if wanted.keys() != found.keys():
            return f"{part}: other files: {sorted(wanted.keys() ^ found.keys())[:3]}"
        other = [name for name in wanted if wanted[name] != found[name]]
        if other:
            return f"{part}: {other[0]} differs"
    for table in TABLES:
        if (reference / table).read_bytes() != (out / table).read_bytes():
            return f"{table} differs"
    return "; ".join(verify_output(out)[0])


def _files(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def undisturbed(slides: Sequence[Path], folder: Path, cluster: Cluster) -> tuple[float, float]:
    """Seconds of a run from its connection, and from its start; workers are warm then."""
    seconds = (0.0, 0.0)
    for name in ("warm", "whole"):
        began = time.monotonic()
        driver = start_driver(slides, folder / name, cluster.address)
        wait_for_connection(driver, folder / name)
        connected = time.monotonic()
        assert driver.wait() == 0
        seconds = (time.monotonic() - connected, time.monotonic() - began)
    return seconds


def main() -> None:
    """Kill, run again, compare, and print how often all was well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20, help="of each kind")
    parser.add_argument("--what", nargs="+", choices=VICTIMS, default=VICTIMS)
    parser.add_argument("--slides", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    table = Table("killed at random points", ("killed", "times", "while running", "equal results"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slides = draw_cohort(folder / "slides", arguments.slides)
        reference = folder / "reference"
        assert start_driver(slides, reference, "serial").wait() == 0
        with cluster_in(folder / "cluster") as cluster:
            seconds = undisturbed(slides, folder, cluster)
            for victim in arguments.what:
                n_hit = n_equal = 0
                for number in range(arguments.times):
                    out = folder / f"{victim}{number}"
                    delay = rng.uniform(0, seconds[victim == "driver"])
                    was_running, problem = run_and_kill(victim, slides, out, cluster, delay)
                    problem = problem or difference(reference, out)
                    n_hit, n_equal = n_hit + was_running, n_equal + (not problem)
                    if problem:
                        print(f"{victim} killed after {delay:.2f} s: {problem}", flush=True)
                        print(out.with_suffix(".log").read_text()[-2000:])
                    shutil.rmtree(out)
                table.row(victim, arguments.times, n_hit, n_equal)
    table.publish("chaos")


if __name__ == "__main__":
    main()
