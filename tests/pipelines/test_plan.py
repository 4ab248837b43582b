"""A slide's plan: what its fingerprint stands for, and how it is cut."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import pytest

from ccrl_wsi.config import TissueSettings, load_settings
from ccrl_wsi.parts import write_part
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.regions import regions_digest
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import assemble_store
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide
from pipelines.jobs import Tally
from pipelines.output_folder import OutputFolder, made_folder
from pipelines.plan import committed_tally, identify_slide, job_of, plan_slide
from pipelines.resolved_settings import resolved
from pipelines.slide_grid import halo_px
from pipelines.state import SlideState, known_slides, load_state, load_states, save_state
from tests.drawn_cells import describe_store, draw_cells
from tests.pipelines.conftest import SMOKE


@pytest.fixture
def source(slide_file):
    return list_slides([str(slide_file)])[0]


def settings_of(*overrides):
    return resolved(load_settings(overrides=[*SMOKE, *overrides]))


def fingerprint(source, settings, models="networks"):
    return identify_slide(source, settings, models).fingerprint


def test_the_fingerprint_follows_pixels_pixel_size_networks_and_settings(source, smoke, tmp_path):
    other = tmp_path / "drawn.tif"
    write_pyramid(other, draw_slide(DrawnSlideSpec(640, 520, 0.5, seed=4)).rgb, 0.5)
    prints = [
        fingerprint(source, smoke),
        fingerprint(source, smoke, "other networks"),
        fingerprint(replace(source, mpp=0.25), smoke),
        fingerprint(replace(source, path=other), smoke),
        fingerprint(source, settings_of("crops.scale=3")),
    ]
    assert len(set(prints)) == len(prints)


def test_the_fingerprint_does_not_follow_names_clusters_or_the_machine(source, smoke):
    renamed = replace(source, slide_id="renamed", patient="P1")
    free = settings_of("clusters.k=9", "compute.read_ahead=0", "seed=5")
    assert fingerprint(source, smoke) == fingerprint(renamed, smoke) == fingerprint(source, free)


def test_the_fingerprint_follows_the_regions_not_their_file(source, tmp_path):
    def drawn_in(name, side):
        ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
        file = tmp_path / name
        file.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
        regions = ["tissue.method=geojson", f"tissue.regions={file}"]
        return fingerprint(source, settings_of(*regions))

    assert drawn_in("a.geojson", 100) == drawn_in("a.geojson", 100) != drawn_in("a.geojson", 200)


def test_the_fingerprint_changes_where_ignored_areas_no_longer_count(tmp_path):
    file = tmp_path / "r.geojson"
    ring = [[0, 0], [50, 0], [50, 50], [0, 50], [0, 0]]
    file.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    info = SimpleNamespace(slide_id="s")
    settings = TissueSettings(method="geojson", regions=file)
    assert regions_digest(info, settings) == sha256(file.read_bytes()).hexdigest()
    square = {"type": "Polygon", "coordinates": [ring]}
    ignored = {"properties": {"classification": {"name": "Ignore*"}}, "geometry": square}
    file.write_text(json.dumps([square, {"type": "Feature", **ignored}]))
    assert regions_digest(info, settings) != sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("halo_um", "mpp", "px"), [(32, 0.25, 128), (32, 0.5, 64), (33, 0.25, 136)]
)
def test_the_halo_is_whole_steps_of_the_networks_and_never_smaller(halo_um, mpp, px):
    assert halo_px(load_settings(overrides=[f"tiles.halo_um={halo_um}"]), mpp) == px


def test_a_slide_without_tissue_has_one_partition_without_tiles(smoke, tmp_path):
    blank = tmp_path / "blank.tif"
    white = draw_slide(DrawnSlideSpec(300, 300, 0.5, n_nuclei=0, background_share=1.0)).rgb
    write_pyramid(blank, white * 0 + 244, 0.5)
    [source] = list_slides([str(blank)])
    folder = made_folder(tmp_path / "out")
    plan = plan_slide(identify_slide(source, smoke, ""), smoke, folder)
    assert [len(partition.tiles) for partition in plan.partitions] == [0]
    assert "no tissue" in plan.warnings[-1]


def test_a_committed_part_counts_only_with_the_same_fingerprint(source, smoke, tmp_path):
    folder = made_folder(tmp_path / "out")
    plan = plan_slide(identify_slide(source, smoke, ""), smoke, folder)
    job = job_of(plan, plan.partitions[0], smoke, folder)
    assert committed_tally(job) is None
    job.target.parent.mkdir(parents=True)
    tally = {"n_cells": 3, "seconds": {"read": 0.5}}
    write_part(job.target, draw_cells(3), {"fingerprint": job.fingerprint, "tally": tally})
    assert committed_tally(job) == Tally(n_cells=3, seconds={"read": 0.5})
    assert committed_tally(replace(job, fingerprint="other")) is None
    job.target.write_bytes(job.target.read_bytes()[:-9])
    assert committed_tally(job) is None


def make_state(slide_id):
    return SlideState(slide_id, "a.svs", "P1", None, 0.25, "f00d", 1.5, Tally(7), ("a warning",))


def make_store(folder, slide_id):
    part = folder.root / f"{slide_id}.npz"
    write_part(part, draw_cells(7), {"fingerprint": "f00d"})
    folder.slides.mkdir(exist_ok=True)
    assemble_store(folder.store(slide_id), [part], describe_store(slide_id))


def test_a_state_comes_back_as_it_was_saved_while_its_store_is_there(tmp_path):
    folder = OutputFolder(tmp_path)
    for name in ("b", "a"):
        save_state(folder, make_state(name))
    assert load_states(folder) == []
    assert known_slides(folder) == ["a", "b"]
    for name in ("b", "a"):
        make_store(folder, name)
    assert load_states(folder) == [make_state("a"), make_state("b")]


def test_a_state_does_not_count_for_a_store_of_other_cells(tmp_path):
    folder = OutputFolder(tmp_path)
    make_store(folder, "a")
    save_state(folder, replace(make_state("a"), cells="other"))
    assert load_state(folder, "a") is None


@pytest.mark.parametrize("text", ["{", "{}"])
def test_a_damaged_state_is_told_and_does_not_count(tmp_path, caplog, monkeypatch, text):
    folder = OutputFolder(tmp_path)
    make_store(folder, "a")
    save_state(folder, make_state("a"))
    folder.state("a").write_text(text)
    monkeypatch.setattr(logging.getLogger("ccrl_wsi"), "propagate", True)
    assert load_state(folder, "a") is None
    assert "a is done anew" in caplog.text
    assert "a.json" in caplog.text
