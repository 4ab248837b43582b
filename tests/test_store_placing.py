"""Workers that make the same store, one of them late: it is whole, and keeps its clusters."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest

from ccrl_wsi.errors import StoreError
from ccrl_wsi.object_storage import ObjectFolder
from ccrl_wsi.store import assemble as assembling
from ccrl_wsi.store import (
    assemble_store,
    check_store,
    fetch_store,
    open_store,
    publish_changed_store,
    publish_new_store,
    remove_leftovers,
    write_clusters,
)
from tests.drawn_cells import describe_store, draw_cells
from tests.object_stores import contents, empty_memory
from tests.test_store import COLORS, NAMES, TINY, write_parts


@pytest.fixture
def parts(tmp_path):
    return write_parts(tmp_path / "parts", [draw_cells(40, seed=1), draw_cells(33, seed=2)])


def assemble(path, parts, **changes):
    return assemble_store(path, parts, describe_store(**changes), TINY)


def cluster(path):
    n = open_store(path).n_cells
    write_clusters(path, np.arange(n) % 3, np.arange(n, dtype=float), NAMES, COLORS, "cb1")


def interrupted_by(monkeypatch, step):
    """Once, when a worker has written all arrays of its store, ``step`` is done."""
    consolidate = assembling.consolidate

    def stop_first(folder):
        monkeypatch.setattr(assembling, "consolidate", consolidate)
        step()
        consolidate(folder)

    monkeypatch.setattr(assembling, "consolidate", stop_first)


def test_two_workers_at_one_slide_leave_one_whole_store(tmp_path, parts, monkeypatch):
    path = tmp_path / "slides" / "S01.zarr"
    interrupted_by(monkeypatch, lambda: assemble(path, parts))
    assert assemble(path, parts) == 73
    assert check_store(path) == []
    assert [p.name for p in path.parent.iterdir()] == ["S01.zarr"]


def test_a_late_worker_leaves_the_clusters_alone(tmp_path, parts):
    path = tmp_path / "S01.zarr"
    assemble(path, parts)
    cluster(path)
    assert assemble(path, parts) == 73
    assert open_store(path).has_clusters
    assert check_store(path) == []


@pytest.mark.parametrize("change", ["cells", "damage", "skipped"])
def test_a_store_with_other_or_damaged_cells_is_replaced(tmp_path, parts, change):
    path = tmp_path / "S01.zarr"
    assemble(path, parts)
    cluster(path)
    changes = {"notes": {"n_tiles_skipped": 1}} if change == "skipped" else {}
    if change == "cells":
        parts = write_parts(tmp_path / "others", [draw_cells(40, seed=1), draw_cells(33, seed=5)])
    if change == "damage":
        (path / "tables/cells/X/c/0/0").write_bytes(b"?")
    assemble(path, parts, **changes)
    assert not open_store(path).has_clusters
    assert check_store(path) == []


@pytest.mark.parametrize("state", ["sealed", "broken", "damaged"])
def test_a_late_worker_leaves_the_clusters_in_an_object_store_alone(tmp_path, parts, state):
    empty_memory()
    objects, path = ObjectFolder.at("memory://late/out"), tmp_path / "S01.zarr"
    assemble(path, parts)
    publish_new_store(objects, "S01.zarr", path)
    late = shutil.copytree(path, tmp_path / "late.zarr")
    cluster(path)
    publish_changed_store(objects, "S01.zarr", path)
    if state == "broken":
        objects.write("S01.zarr/ccrl-seal.json.broken", objects.read("S01.zarr/ccrl-seal.json"))
        objects.delete(["S01.zarr/ccrl-seal.json"])
    if state == "damaged":
        objects.write("S01.zarr/tables/cells/X/c/0/0", b"?")
    before = contents("memory://late/out")
    publish_new_store(objects, "S01.zarr", late)
    assert (contents("memory://late/out") == before) == (state != "damaged")
    fetch_store(objects, "S01.zarr", tmp_path / "fetched.zarr")
    if state == "damaged":
        assert check_store(tmp_path / "fetched.zarr") == []


@pytest.mark.parametrize("stopped_at", [1, 2])
@pytest.mark.parametrize("remains", [False, True])
def test_a_worker_that_was_stopped_while_it_wrote_changes_nothing_of_what_others_did(
    tmp_path, parts, stopped_at, remains
):
    """It stops before it looks, or between arrays and metadata; then it goes on."""
    empty_memory()
    url, path = "memory://stopped/out", tmp_path / "S01.zarr"
    objects = ObjectFolder.at(url)
    assemble(path, parts)
    late, asked, before = shutil.copytree(path, tmp_path / "late.zarr"), [], {}
    if remains:  # Of a run that was killed.
        objects.inside("S01.zarr").put_files(path, ["zarr.json", "tables/zarr.json"])

    def others_meanwhile():
        asked.append(1)
        if len(asked) == stopped_at:
            publish_new_store(objects, "S01.zarr", path)
            cluster(path)
            publish_changed_store(objects, "S01.zarr", path)
            before.update(contents(url))

    publish_new_store(objects, "S01.zarr", late, others_meanwhile)
    assert contents(url) == before
    fetch_store(objects, "S01.zarr", tmp_path / "fetched.zarr")
    assert check_store(tmp_path / "fetched.zarr") == []
    assert open_store(tmp_path / "fetched.zarr").has_clusters


def test_nothing_is_published_that_is_no_longer_ours(tmp_path, parts):
    empty_memory()
    objects, path = ObjectFolder.at("memory://taken/out"), tmp_path / "S01.zarr"
    assemble(path, parts)

    def refuse():
        raise StoreError("taken over")

    with pytest.raises(StoreError, match="taken over"):
        publish_new_store(objects, "S01.zarr", path, refuse)
    assert contents("memory://taken/out") == {}
    publish_new_store(objects, "S01.zarr", path)
    before = contents("memory://taken/out")
    cluster(path)
    with pytest.raises(StoreError, match="taken over"):
        publish_changed_store(objects, "S01.zarr", path, refuse)
    assert contents("memory://taken/out") == before


def test_a_store_that_cannot_take_its_place_leaves_the_old_one(tmp_path, parts, monkeypatch):
    path, rename = tmp_path / "slides" / "S01.zarr", Path.rename
    assemble(path, parts[:1])

    def fail(self, target):
        if self.suffix == ".partial":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        assemble(path, parts)
    assert open_store(path).n_cells == 40
    assert [p.name for p in path.parent.iterdir()] == ["S01.zarr"]


def test_what_dead_workers_left_goes_and_stores_stay(tmp_path, parts):
    slides = tmp_path / "slides"
    assemble(slides / "S01.zarr", parts)
    for name in (".S01.zarr.partial", ".S02.zarr.0a.partial", ".S02.zarr.0b.old"):
        (slides / name / "tables").mkdir(parents=True)
    remove_leftovers(slides)
    assert [p.name for p in slides.iterdir()] == ["S01.zarr"]
    remove_leftovers(tmp_path / "nothing")


def test_a_worker_of_a_dead_driver_never_seals_what_was_taken_from_it(tmp_path, parts, monkeypatch):
    path = tmp_path / "slides" / "S01.zarr"
    interrupted_by(monkeypatch, lambda: remove_leftovers(path.parent))
    with pytest.raises(StoreError, match="Cannot write"):
        assemble(path, parts)
    assert not path.exists()
    shutil.rmtree(path.parent, ignore_errors=True)
    assert assemble(path, parts) == 73
