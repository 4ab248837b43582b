"""SLURM as far as it can be tried without it: jobs are scripts that `sbatch` runs at once, here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ccrl_wsi.slides.slide_list import list_slides
from pipelines import dask_clusters
from pipelines.lanes import CORES
from pipelines.machines import SlurmMachine
from pipelines.run import run_cohort
from pipelines.verify import verify_output

pytest.importorskip("dask_jobqueue")

SBATCH = """#!{python}
import subprocess, sys
with open({log!r}, "a") as log:
    job = subprocess.Popen(["bash", sys.argv[-1]], stdout=log, stderr=log, start_new_session=True)
print("Submitted batch job", job.pid)
"""
SCANCEL = """#!{python}
import os, signal, sys
open({cancelled!r}, "a").write(sys.argv[-1] + "\\n")
try:
    os.killpg(int(sys.argv[-1]), signal.SIGTERM)
except ProcessLookupError:
    pass
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """`sbatch` and `scancel` in a folder that comes first in PATH; returns the log of the jobs."""
    commands, log = tmp_path / "bin", tmp_path / "jobs.log"
    commands.mkdir()
    places = {"python": sys.executable, "log": str(log), "cancelled": str(tmp_path / "cancelled")}
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (commands / name).write_text(text.format(**places))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return log


def test_jobs_come_do_the_work_and_are_cancelled(slide_file, smoke, tmp_path, slurm):
    machine = SlurmMachine(
        cores=1, memory="2 GB", minimum_jobs=1, maximum_jobs=1, interface="lo",
        local_directory=str(tmp_path / "scratch"),
    )  # fmt: skip
    out = tmp_path / "out"
    result = run_cohort(list_slides([str(slide_file)]), out, smoke, machine)
    assert result.exit_code == 0, slurm.read_text()
    assert verify_output(out)[0] == []
    assert "Start worker at" in slurm.read_text()
    assert (tmp_path / "cancelled").read_text().strip().isdigit()


@pytest.mark.parametrize(
    ("machine", "threads"),
    [
        (SlurmMachine(cores=8, memory="8 GB", processes=8), 1),
        (SlurmMachine(cores=8, memory="8 GB", processes=2), 1),
        (SlurmMachine(cores=11, memory="8 GB", processes=4), 1),
        (SlurmMachine(cores=3, memory="8 GB", gpu=True), 3),
    ],
)
def test_libraries_of_a_job_share_its_cores(slurm, machine, threads):
    with dask_clusters._slurm(machine.model_copy(update={"minimum_jobs": 0})) as cluster:
        script = cluster.job_script()
    for name in (*dask_clusters.ONE_THREAD, CORES):
        assert f"export {name}={threads}\n" in script


def test_a_worker_of_a_job_has_its_share_and_what_the_user_said(slurm, tmp_path):
    machine = SlurmMachine(
        cores=3, memory="2 GB", gpu=True, minimum_jobs=1, maximum_jobs=1, interface="lo",
        local_directory=str(tmp_path / "scratch"),
        job_script_prologue=("export MKL_NUM_THREADS=2",),
    )  # fmt: skip
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", CORES)
    with dask_clusters.connect(machine) as workers:
        workers.client.wait_for_workers(1, timeout=60)
        (told,) = workers.client.run(lambda: [os.environ.get(name) for name in names]).values()
    assert told == ["3", "2", "3"]
