"""The doctor: right on this computer, and right about what is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from ccrl_wsi.config import EmbeddingSettings
from ccrl_wsi.embeddings import encoders
from pipelines import doctor
from pipelines.doctor import Check, check_output, check_weights, diagnose, render
from tests.small_checkpoints import write_small_checkpoint

Usage = namedtuple("Usage", "total used free")


def test_everything_is_looked_at_and_nothing_fails_here(tmp_path):
    checks = diagnose(tmp_path, start_workers=False)
    names = ["Python", "Packages", "OpenSlide", "OpenCV", "GPU", "Weights"]
    names += ["Segmenters", "Encoders", "Computer", "Output"]
    assert [check.name for check in checks] == names
    assert not [check for check in checks if check.state == "fail"]
    assert not [check for check in checks if (check.state == "ok") == bool(check.advice)]


def test_a_local_worker_answers():
    pytest.importorskip("pipelines.dask_clusters")
    check = doctor.check_dask()
    assert check.state == "ok", check.detail


def test_a_check_leaves_nothing_in_the_output_folder(tmp_path):
    assert check_output(tmp_path / "not" / "yet").state == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_fails(tmp_path):
    tmp_path.chmod(0o500)
    check = check_output(tmp_path)
    tmp_path.chmod(0o700)
    assert check.state == "fail"
    assert "-o" in check.advice


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody may write")
def test_a_folder_that_nobody_may_write_fails_even_for_root():
    assert check_output(Path("/proc/self/out")).state == "fail"


def test_the_folder_that_was_asked_about_is_named(tmp_path):
    wanted = tmp_path / "not" / "yet"
    assert check_output(wanted).detail.startswith(f"{wanted}, to be made in {tmp_path}: writable")
    assert check_output(tmp_path).detail.startswith(f"{tmp_path}: writable")


def test_the_longest_name_stands_apart_from_what_was_found():
    names = [check.name for check in diagnose(start_workers=False)]
    for name in names:
        assert f"{name} " in render([Check(name, "ok", "found")])


def test_a_file_in_the_place_of_the_folder_fails(tmp_path):
    file = tmp_path / "out"
    file.write_text("")
    assert check_output(file).state == "fail"


@pytest.mark.parametrize(("free", "state"), [(50, "ok"), (5, "warn"), (0.1, "fail")])
def test_room_decides_between_ok_warn_and_fail(free, state, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(0, 0, free * doctor.GIB))
    assert check_output(tmp_path).state == state


def test_weights_that_are_missing_are_named_with_the_place_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "weights_folder", lambda: tmp_path)
    (tmp_path / "hovernet_fast-pannuke.pth").write_bytes(b"weights")
    check = check_weights()
    assert check.state == "warn"
    assert check.detail == f"hovernet_fast-pannuke in {tmp_path}"
    assert "missing: hovernet_fast-monusac, hovernet_original-consep" in check.advice
    assert "compact" in check.advice


def test_all_weights_present_is_ok(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "weights_folder", lambda: tmp_path)
    for name in doctor._hovernet_repositories():
        (tmp_path / f"{name}.pth").write_bytes(b"weights")
    assert check_weights() == Check("Weights", "ok", f"all 4 in {tmp_path}")


def test_the_bundled_segmenter_is_named_with_its_licences(tmp_path, monkeypatch):
    check = doctor.check_segmenters()
    assert check.state == "ok"
    assert "CC BY 4.0" in check.detail
    monkeypatch.setattr("ccrl_wsi.nuclei.compact.BUNDLED", tmp_path / "none.safetensors")
    assert doctor.check_segmenters().state == "warn"


def test_the_bundled_encoder_is_named_with_its_data_and_licence(tmp_path, monkeypatch):
    training = {"data": "CoNSeP", "licence": "CC BY-NC-SA 4.0"}
    path = write_small_checkpoint(tmp_path / "ccrl.safetensors", name="best", training=training)
    monkeypatch.setitem(encoders.BUNDLED, "ccrl", path)
    detail = "ccrl: best, trained on CoNSeP (licence: CC BY-NC-SA 4.0)"
    assert doctor.check_encoders() == Check("Encoders", "ok", detail)


@pytest.mark.parametrize(("default", "state"), [("morphology", "warn"), ("ccrl", "fail")])
def test_an_absent_or_damaged_encoder_fails_only_where_runs_would_use_it(
    tmp_path, monkeypatch, default, state
):
    path = tmp_path / "ccrl.safetensors"
    monkeypatch.setitem(encoders.BUNDLED, "ccrl", path)
    monkeypatch.setattr(doctor, "EmbeddingSettings", lambda: EmbeddingSettings(encoder=default))
    absent = doctor.check_encoders()
    path.write_bytes(b"nothing")
    damaged = doctor.check_encoders()
    assert (absent.state, damaged.state) == (state, state)
    assert absent.detail == damaged.detail == "ccrl: not usable"
    assert "lacks the encoder ccrl" in absent.advice
    assert "is not a .safetensors file" in damaged.advice


def test_a_package_that_does_not_fit_is_named(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["zarr>=99", "no-such-package"])
    check = doctor.check_packages()
    assert check.state == "fail"
    assert "is not >=99" in check.detail
    assert "no-such-package is missing" in check.detail


@pytest.mark.parametrize(
    ("module", "look"), [("openslide", doctor.check_openslide), ("cv2", doctor.check_opencv)]
)
def test_a_library_that_does_not_load_is_a_finding_not_a_crash(module, look, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    check = look()
    assert check.state == "fail"
    assert "install" in check.advice


def test_little_memory_is_answered_with_a_number_of_workers(monkeypatch):
    monkeypatch.setattr("dask.system.cpu_count", lambda: 8)
    monkeypatch.setattr("distributed.system.memory_limit", lambda: 6 * doctor.GIB)
    check = doctor.check_computer()
    assert check.state == "warn"
    assert "workers: 3" in check.advice


def test_advice_stands_below_its_finding():
    text = render([Check("Python", "ok", "3.11"), Check("GPU", "warn", "none", "Buy one.")])
    assert text.splitlines() == [
        "ok    Python      3.11",
        "warn  GPU         none",
        "                  -> Buy one.",
    ]


def test_weights_are_found_without_importing_tiatoolbox():
    code = (
        "import sys; from pipelines.doctor import check_weights; check_weights();"
        "sys.exit(any(m in sys.modules for m in ('tiatoolbox', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
