"""Where files cannot grow nothing half written counts as finished; the next run completes it."""

from __future__ import annotations

import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.output_folder import open_output
from pipelines.state import load_states
from tests.pipelines.commands import run_command, start_until_first_part
from tests.pipelines.test_run import files_of

pytestmark = pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs file limits")


def run(slide_file: Path, out: Path, limit_bytes: int | None = None) -> tuple[int, str]:
    """Exit code and words of a run whose files may not be larger than ``limit_bytes``."""

    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    done = subprocess.run(
        run_command(slide_file, out),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def reference(slide_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert run(slide_file, out)[0] == 0
    return out


@pytest.mark.parametrize("kib", [1, 8, 24, 40, 64])
def test_what_does_not_fit_is_told_and_made_good_by_the_next_run(
    slide_file, reference, tmp_path, kib
):
    code, said = run(slide_file, tmp_path, kib * 1024)
    assert code in (1, 2)
    assert "Traceback" not in said
    assert "File too large" in said
    if (tmp_path / "run.json").exists():
        for state in load_states(open_output(tmp_path)):
            name = f"{state.slide_id}.zarr/tables/cells/X"
            assert files_of(tmp_path / "slides" / name) == files_of(reference / "slides" / name)
    assert run(slide_file, tmp_path)[0] == 0
    for part in ("slides", "overlays"):
        assert files_of(tmp_path / part) == files_of(reference / part)
    assert not (tmp_path / "work").exists()


def test_a_folder_that_vanishes_under_a_run_is_told(slide_file, tmp_path):
    out = tmp_path / "out"
    process = start_until_first_part(slide_file, out)
    shutil.move(out, tmp_path / "gone")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "Traceback" not in said
    assert f"{out} is gone. Bring it back and give the same command" in said
    assert not out.exists()
    shutil.move(tmp_path / "gone", out)
    assert run(slide_file, out)[0] == 0
