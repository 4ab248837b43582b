"""The benchmarks of robustness on a small scale: what they prove must hold at every commit."""

from __future__ import annotations

import shutil

import broken_cohort
import chaos
import pytest

from ccrl_wsi.config import load_settings
from pipelines.verify import verify_output


def test_broken_slides_are_explained_one_by_one_and_the_others_finish(tmp_path):
    sound = chaos.draw_cohort(tmp_path / "slides", 3)
    broken = broken_cohort.break_slides(tmp_path / "slides", sound[0])
    settings = load_settings(overrides=broken_cohort.SETTINGS)
    slides = [sound[0], *broken.values(), *sound[1:]]
    assert broken_cohort.run(slides, tmp_path / "out", settings) == 1
    assert broken_cohort.unexplained(tmp_path / "out") == []
    finished = {path.stem for path in (tmp_path / "out" / "state").glob("*.json")}
    assert finished == {path.stem for path in sound}
    assert verify_output(tmp_path / "out")[0] == []


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chaos")
    slides = chaos.draw_cohort(folder / "slides", 2)
    assert chaos.start_driver(slides, folder / "reference", "serial").wait() == 0
    with chaos.cluster_in(folder / "cluster") as cluster:
        yield slides, folder / "reference", cluster


@pytest.mark.parametrize("victim", chaos.VICTIMS)
def test_whoever_is_killed_nothing_is_lost(cohort, victim):
    slides, reference, cluster = cohort
    out = reference.with_name(victim)
    seconds = 1.0
    while True:
        was_running, problem = chaos.run_and_kill(victim, slides, out, cluster, seconds)
        assert problem == "", out.with_suffix(".log").read_text()
        assert chaos.difference(reference, out) == ""
        if was_running:
            return
        shutil.rmtree(out)  # This computer was faster than the axe.
        seconds /= 2
