"""A run that is stopped while clusters are written ends as if it never had been."""

from __future__ import annotations

import pytest

import pipelines.cluster
import pipelines.finish
from ccrl_wsi.clusters.codebook import load_codebook
from ccrl_wsi.config import load_settings
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import clusters, codebook_of
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide
from pipelines.machines import SerialMachine
from pipelines.run import cluster_again, run_cohort
from pipelines.verify import verify_output
from tests.pipelines.conftest import SMOKE

SERIAL = SerialMachine()


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def die(*_: object) -> None:
    raise Killed


PLACES = [
    (clusters, "consolidate"),
    (clusters, "seal_store"),
    (pipelines.finish, "write_slide_overlay"),
    (pipelines.finish, "add_files"),
    (pipelines.cluster, "save_state"),
]


def assert_whole(out, k):
    codebook = load_codebook(out / "codebook.safetensors")
    assert codebook.k == k
    for store in (out / "slides").glob("*.zarr"):
        assert codebook_of(store) == codebook.fingerprint
    assert verify_output(out)[0] == []


@pytest.mark.parametrize(("module", "name"), PLACES, ids=lambda p: getattr(p, "__name__", p))
def test_clustering_that_was_stopped_can_be_taken_back(
    slide_file, smoke, tmp_path, monkeypatch, module, name
):
    run_cohort(list_slides([str(slide_file)]), tmp_path, smoke, SERIAL)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, die)
        with pytest.raises(Killed):
            cluster_again(tmp_path, load_settings(overrides=[*SMOKE, "clusters.k=5"]), SERIAL)
    assert cluster_again(tmp_path, smoke, SERIAL).exit_code == 0
    assert_whole(tmp_path, 3)


def test_a_slide_can_be_added_after_clustering_was_stopped(
    slide_file, smoke, tmp_path, monkeypatch
):
    second = tmp_path / "second.tif"
    write_pyramid(second, draw_slide(DrawnSlideSpec(300, 300, 0.5, n_nuclei=50, seed=8)).rgb, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(clusters, "consolidate", die)
        with pytest.raises(Killed):
            run_cohort(list_slides([str(slide_file)]), tmp_path / "out", smoke, SERIAL)
    both = list_slides([str(slide_file), str(second)])
    assert run_cohort(both, tmp_path / "out", smoke, SERIAL).exit_code == 0
    assert_whole(tmp_path / "out", 3)
