"""What goes wrong between cells and tables is told as it was, and nobody works in a lost folder."""

from __future__ import annotations

import shutil

import pytest

import pipelines.cluster
import pipelines.infer
import pipelines.run
from ccrl_wsi.config import load_settings
from ccrl_wsi.errors import ConfigError, RunStopped, StorageError
from ccrl_wsi.slides.slide_list import list_slides
from pipelines.cohort_jobs import AssembleJob
from pipelines.folder_lock import exclusive
from pipelines.machines import SerialMachine
from pipelines.run import cluster_again, run_cohort
from pipelines.verify import verify_output
from tests.pipelines.conftest import SMOKE

SERIAL = SerialMachine()


@pytest.fixture(scope="module")
def made(slide_file, smoke, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    assert run_cohort(list_slides([str(slide_file)]), out, smoke, SERIAL).exit_code == 0
    return out


@pytest.fixture
def out(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out", copy_function=shutil.copy2)


def refuse(*_: object) -> None:
    raise RuntimeError("the server hung up")


def again(out, *settings):
    return cluster_again(out, load_settings(overrides=[*SMOKE, *settings]), SERIAL)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("finish_slide", "clusters.k=4"), ("mean_of_slide", "clusters.centre_slides=true")],
)
def test_a_failure_is_told_as_it_was_with_a_log(out, monkeypatch, name, settings):
    with monkeypatch.context() as patch:
        patch.setattr(pipelines.cluster, name, refuse)
        [failure] = again(out, settings).failures
    assert "RuntimeError: the server hung up" in failure.message
    assert "Delete" not in failure.message
    assert (failure.stage, failure.slide_id) == ("finish", "drawn")
    assert "in refuse" in (out / failure.log).read_text()
    assert again(out, settings).exit_code == 0
    assert not (out / failure.log).exists()
    assert verify_output(out)[0] == []


def test_a_folder_that_vanishes_before_clustering_is_told_and_not_made_anew(
    slide_file, smoke, tmp_path, monkeypatch
):
    out, finish = tmp_path / "out", pipelines.run.finish_cohort

    def vanish(*arguments: object) -> object:
        out.rename(tmp_path / "elsewhere")
        return finish(*arguments)

    monkeypatch.setattr(pipelines.run, "finish_cohort", vanish)
    with pytest.raises(RunStopped, match="out is gone"):
        run_cohort(list_slides([str(slide_file)]), out, smoke, SERIAL)
    assert not out.exists()


@pytest.mark.parametrize("name", ["finish_slide", "load_states"])
def test_a_folder_that_vanishes_while_clusters_are_made_is_told(out, tmp_path, monkeypatch, name):
    do = getattr(pipelines.cluster, name)

    def vanish(*arguments: object) -> object:
        done = do(*arguments)
        out.rename(tmp_path / "elsewhere")
        return done

    monkeypatch.setattr(pipelines.cluster, name, vanish)
    with pytest.raises(RunStopped, match="out is gone"):
        again(out, "clusters.k=4")
    assert not out.exists()


def test_a_run_that_may_not_work_in_a_folder_claims_nothing(slide_file, smoke, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with exclusive(out), pytest.raises(ConfigError, match="is working in"):
        run_cohort(list_slides([str(slide_file)]), out, smoke, SERIAL)
    assert not (out / "run.json").exists()


def test_parts_that_cannot_be_looked_at_do_not_end_the_run(
    slide_file, smoke, tmp_path, monkeypatch
):
    do = pipelines.infer.do_job

    def work(job: object) -> object:
        return refuse() if isinstance(job, AssembleJob) else do(job)

    def away(*_: object) -> None:
        raise StorageError("The object store is away.")

    monkeypatch.setattr(pipelines.infer, "do_job", work)
    monkeypatch.setattr(pipelines.infer, "remove_damaged", away)
    result = run_cohort(list_slides([str(slide_file)]), tmp_path / "out", smoke, SERIAL)
    assert ["the server hung up" in failure.message for failure in result.failures] == [True]
